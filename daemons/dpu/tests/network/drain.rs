use crate::client::{Raw, soon};
use crate::node::{Node, check};

/// Idle connections close at once, those with a request in flight when it is answered; then all is drained.
#[test]
fn drain_finishes_what_is_in_flight() {
    check(async |node: Node| {
        let mut fresh = Raw::connect(node.addr).await;
        let mut idle = Raw::connect(node.addr).await;
        assert_eq!(idle.get("/hello").await.status, 200);
        let mut busy = Raw::connect(node.addr).await;
        busy.send("GET /never HTTP/1.1\r\nhost: node\r\n\r\n").await;
        node.until(|node| node.seen_count() == 2 && node.dpu.stats().connections_open == 3).await;
        let drained = tokio::task::spawn_local(node.dpu.drain());
        idle.expect_close().await;
        fresh.expect_close().await;
        assert!(!drained.is_finished());
        node.answer_all_held();
        let reply = busy.reply().await;
        assert_eq!((reply.status, reply.header("connection")), (200, Some("close")));
        busy.expect_close().await;
        soon("drain", drained).await.expect("no panic");
        node.settled().await;
    });
}

/// What arrives after the drain has begun is told so, in its own protocol.
#[test]
fn new_requests_are_refused_while_draining() {
    check(async |node: Node| {
        drop(node.dpu.drain());
        let mut client = Raw::connect(node.addr).await;
        client.send("GET /hello HTTP/1.1\r\nhost: node\r\n\r\n").await;
        let reply = client.reply().await;
        assert_eq!((reply.status, reply.header("x-cellmesh-error")), (503, Some("draining")));
        assert_eq!((reply.header("connection"), reply.header("retry-after")), (Some("close"), Some("1")));
        client.expect_close().await;
        let answer = Raw::connect(node.addr).await.json(r#"{"path":"/hello"}"#).await;
        assert_eq!(
            (&answer["status"], &answer["headers"]["x-cellmesh-error"]),
            (&503.into(), &"draining".into())
        );
        assert_eq!(node.seen_count(), 0);
    });
}

/// A request that is being read when the drain begins is finished.
#[test]
fn half_sent_requests_are_finished() {
    check(async |node: Node| {
        let mut http = Raw::connect(node.addr).await;
        http.send("POST /echo HTTP/1.1\r\nhost: node\r\ncontent-length: 4\r\n\r\nab").await;
        let mut json = Raw::connect(node.addr).await;
        json.send(r#"{"path":"/he"#).await;
        node.until(|node| node.dpu.in_flight() == 2).await;
        let drained = tokio::task::spawn_local(node.dpu.drain());
        http.send("cd").await;
        let reply = http.reply().await;
        assert_eq!((reply.status, reply.text(), reply.header("connection")), (200, "abcd", Some("close")));
        http.expect_close().await;
        assert_eq!(json.json(r#"llo"}"#).await["body"], "hello");
        soon("drain", drained).await.expect("no panic");
    });
}

/// A drain without connections is over at once, also the second time.
#[test]
fn empty_drain_is_over() {
    check(async |node: Node| {
        soon("drain", node.dpu.drain()).await;
        soon("drain", node.dpu.drain()).await;
    });
}
