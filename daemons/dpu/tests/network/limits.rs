use std::rc::Rc;

use cellmesh_dpu::DpuConfig;
use cellmesh_dpu::config::ForwardedRule;
use cellmesh_dpu::policy::{HeaderRules, ServicePolicy};
use cellmesh_dpu::units::{ByteSize, TimeSpan};

use crate::client::Raw;
use crate::http1::Told;
use crate::node::{Node, check_with};

fn small() -> DpuConfig {
    DpuConfig { body_bytes_max: ByteSize::kib(100), ..DpuConfig::default() }
}

fn chunked(body: &[u8]) -> Vec<u8> {
    let head = "POST /echo HTTP/1.1\r\nhost: node\r\ntransfer-encoding: chunked\r\n\r\n";
    [format!("{head}{:x}\r\n", body.len()).as_bytes(), body, b"\r\n0\r\n\r\n"].concat()
}

/// The limit itself passes, one byte more is 413, whether the length is declared or not. The client
/// sees the answer though it was still sending.
#[test]
fn body_limit_is_exact() {
    check_with(small(), async |node: Node| {
        let mut client = Raw::connect(node.addr).await;
        let body = vec![b'x'; 100 * 1024];
        assert_eq!(client.post("/echo", &body).await.body, body);
        client.send(chunked(&body)).await;
        assert_eq!(client.reply().await.body, body);
        let longer = vec![b'x'; 100 * 1024 + 1];
        let declared =
            [&b"POST /echo HTTP/1.1\r\nhost: node\r\ncontent-length: 102401\r\n\r\n"[..], &longer].concat();
        for request in [declared, chunked(&longer)] {
            let mut client = Raw::connect(node.addr).await;
            client.send(request).await;
            let reply = client.reply().await;
            assert_eq!((reply.status, reply.header("x-cellmesh-error")), (413, Some("body-too-large")));
            client.expect_close().await;
        }
        assert_eq!(node.seen_count(), 2);
    });
}

/// A client that sends far too much, and only then reads, reads its 413 and not a reset.
#[test]
fn answer_survives_an_endless_sender() {
    check_with(small(), async |node: Node| {
        let mut client = Raw::connect(node.addr).await;
        client.send("POST /echo HTTP/1.1\r\nhost: node\r\ncontent-length: 20000000\r\n\r\n").await;
        client.send(vec![b'x'; 20_000_000]).await;
        assert_eq!(client.reply().await.status, 413);
    });
}

/// Too many lines, too long a head, too long a target.
#[test]
fn head_limits_hold() {
    check_with(DpuConfig::default(), async |node: Node| {
        let lines = |count: usize| (0..count).map(|n| format!("x-{n}: y\r\n")).collect::<String>();
        for (status, target, lines) in [
            (200, "/hello".to_owned(), lines(99)), // with host: 100, and then x-request-id
            (431, "/hello".to_owned(), lines(100)),
            (431, "/hello".to_owned(), format!("x: {}\r\n", "y".repeat(17 * 1024))),
            (431, "/hello".to_owned(), format!("x: {}\r\n", "y".repeat(1024 * 1024))),
            (200, format!("/hello?{}", "y".repeat(8000)), String::new()),
            (414, format!("/hello?{}", "y".repeat(8190)), String::new()),
        ] {
            let mut client = Raw::connect(node.addr).await;
            client.try_send(format!("GET {target} HTTP/1.1\r\nhost: node\r\n{lines}\r\n")).await;
            let reply = client.reply().await;
            assert_eq!(reply.status, status, "{} bytes of target, {} of lines", target.len(), lines.len());
        }
        assert_eq!(node.seen_count(), 2);
    });
}

/// What is added on the way takes nothing of what clients may send: as many lines as docs say pass with all of it, over HTTP and
/// as an object; one more does not.
#[test]
fn lines_added_here_are_not_the_clients() {
    let headers =
        HeaderRules { add: [("x-policy".to_owned(), "1".to_owned())].into(), ..HeaderRules::default() };
    let policy = ServicePolicy { headers, ..ServicePolicy::default() };
    let services = [("s0".to_owned(), policy)].into();
    let config = DpuConfig { forwarded: ForwardedRule::Append, services, ..DpuConfig::default() };
    check_with(config, async |node: Node| {
        node.dpu.tell_spans(Rc::new(Told::default()));
        for (count, status) in [(100, 200), (101, 431)] {
            let lines: String = (1..count).map(|n| format!("x-{n}: y\r\n")).collect();
            let mut client = Raw::connect(node.addr).await;
            client.send(format!("GET /hello HTTP/1.1\r\nhost: s0\r\n{lines}\r\n")).await;
            assert_eq!(client.reply().await.status, status, "{count} lines");
            let headers: serde_json::Map<_, _> = (0..count).map(|n| (format!("x-{n}"), "y".into())).collect();
            let object = serde_json::json!({ "path": "/hello", "headers": headers }).to_string();
            let answer = Raw::connect(node.addr).await.json(&object).await;
            assert_eq!(answer["status"], status, "{count} headers of an object");
        }
        let seen = node.last_seen();
        for added in
            ["host", "x-request-id", "traceparent", "x-forwarded-for", "x-forwarded-proto", "x-policy"]
        {
            assert!(seen.header(added).is_some(), "{added} in {seen:?}");
        }
    });
}

/// Clients that do not finish a head - or begin none - are cut, and what they held is given back.
#[test]
fn slow_heads_are_cut() {
    let config = DpuConfig { header_read_timeout: TimeSpan::millis(500), ..DpuConfig::default() };
    check_with(config, async |node: Node| {
        let mut slow = vec![Raw::connect(node.addr).await];
        assert_eq!(slow[0].get("/hello").await.status, 200);
        slow[0].send("GET /hello HT").await;
        for start in ["", "G", "GET /hello HTTP/1.1\r\nhost: no", "PRI * HT", "\r\n"] {
            let mut client = Raw::connect(node.addr).await;
            client.send(start).await;
            slow.push(client);
        }
        for client in &mut slow {
            client.expect_close().await;
        }
        node.settled().await;
        assert_eq!(node.seen_count(), 1);
    });
}

/// The time for a head does not run while a connection waits for its next request; the idle time does.
#[test]
fn idle_connections_are_closed() {
    let config = DpuConfig {
        header_read_timeout: TimeSpan::millis(20),
        keep_alive_idle_timeout: TimeSpan::secs(1),
        ..DpuConfig::default()
    };
    check_with(config, async |node: Node| {
        let mut client = Raw::connect(node.addr).await;
        for _ in 0..3 {
            assert_eq!(client.get("/hello").await.status, 200);
            tokio::time::sleep(std::time::Duration::from_millis(60)).await;
        }
        client.expect_close().await;
        node.settled().await;
    });
}

/// A body that stops arriving is 408, with the tracing headers of its request; the time does not run while a cell works.
#[test]
fn slow_bodies_are_refused() {
    let config = DpuConfig {
        body_idle_timeout: TimeSpan::millis(50),
        linger_timeout: TimeSpan::millis(50),
        ..DpuConfig::default()
    };
    check_with(config, async |node: Node| {
        let mut client = Raw::connect(node.addr).await;
        let lines =
            "host: node\r\nx-request-id: r7\r\ntraceparent: 00-abc-1\r\nx-own: 1\r\ncontent-length: 10";
        client.send(format!("POST /echo HTTP/1.1\r\n{lines}\r\n\r\nabc")).await;
        let reply = client.reply().await;
        assert_eq!((reply.status, reply.header("x-cellmesh-error")), (408, Some("body-too-slow")));
        let traced = ["x-request-id", "traceparent", "x-own"].map(|name| reply.header(name));
        assert_eq!(traced, [Some("r7"), Some("00-abc-1"), None]);
        node.settled().await;
        assert_eq!(node.seen_count(), 0);
    });
}

/// A body that trickles for ever ends with the time that a request has.
#[test]
fn trickling_body_ends_with_the_request() {
    let config = DpuConfig { request_timeout: TimeSpan::millis(200), ..DpuConfig::default() };
    check_with(config, async |node: Node| {
        let mut client = Raw::connect(node.addr).await;
        client.send("POST /echo HTTP/1.1\r\nhost: node\r\ncontent-length: 1000000\r\n\r\n").await;
        let (mut read, mut write) = client.stream.into_split();
        let trickle = tokio::task::spawn_local(async move {
            while tokio::io::AsyncWriteExt::write_all(&mut write, b"x").await.is_ok() {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        });
        let mut answer = [0; 12];
        let got =
            crate::client::soon("408", tokio::io::AsyncReadExt::read_exact(&mut read, &mut answer)).await;
        assert_eq!((got.is_ok(), &answer), (true, b"HTTP/1.1 408"));
        trickle.abort();
    });
}

/// A client that takes nothing of its answer is cut, and the answer's memory is free again.
#[test]
fn slow_readers_are_cut() {
    let config = DpuConfig { write_idle_timeout: TimeSpan::millis(50), ..DpuConfig::default() };
    check_with(config, async |node: Node| {
        let mut client = Raw::connect(node.addr).await;
        client.send("GET /big HTTP/1.1\r\nhost: node\r\n\r\n").await;
        node.until(|node| node.seen_count() == 1).await;
        node.settled().await;
        assert!(client.rest().await.len() < 16 * 1024 * 1024);
    });
}

/// A request that is not answered in time is 504, and an answer that comes later disturbs nobody.
#[test]
fn deadline_is_504() {
    let config = DpuConfig { request_timeout: TimeSpan::millis(500), ..DpuConfig::default() };
    check_with(config, async |node: Node| {
        let mut client = Raw::connect(node.addr).await;
        let reply = client.get("/never").await;
        assert_eq!((reply.status, reply.header("x-cellmesh-error")), (504, Some("deadline")));
        assert_eq!(reply.error(), "service \"s0\" did not answer in time");
        node.answer_all_held();
        for _ in 0..10 {
            assert_eq!(client.get("/hello").await.text(), "hello");
        }
    });
}

/// Beyond the requests in flight more are shed with advice; each one that ends makes room.
#[test]
fn requests_in_flight_are_bounded() {
    let config = DpuConfig { requests_max: 2, ..DpuConfig::default() };
    check_with(config, async |node: Node| {
        let mut held = Vec::new();
        for _ in 0..2 {
            let mut client = Raw::connect(node.addr).await;
            client.send("GET /never HTTP/1.1\r\nhost: node\r\n\r\n").await;
            held.push(client);
        }
        node.until(|node| node.dpu.stats().dispatched == 2).await;
        let mut client = Raw::connect(node.addr).await;
        let reply = client.get("/hello").await;
        assert_eq!((reply.status, reply.header("x-cellmesh-error")), (503, Some("overloaded")));
        assert_eq!(reply.header("retry-after"), Some("1"));
        node.answer_all_held();
        for client in &mut held {
            assert_eq!(client.reply().await.status, 200);
        }
        assert_eq!(client.get("/hello").await.status, 200);
    });
}

/// Clients that are slow with their bodies do not take the places of others.
#[test]
fn slow_bodies_hold_no_places() {
    let config = DpuConfig { requests_max: 1, ..DpuConfig::default() };
    check_with(config, async |node: Node| {
        let mut slow = Raw::connect(node.addr).await;
        slow.send("POST /echo HTTP/1.1\r\nhost: node\r\ncontent-length: 10\r\n\r\nabc").await;
        node.until(|node| node.dpu.in_flight() == 1).await;
        assert_eq!(Raw::connect(node.addr).await.get("/hello").await.status, 200);
        slow.send("defghij").await;
        assert_eq!(slow.reply().await.text(), "abcdefghij");
    });
}

/// A request that found room when it began, and none when its body was there, is shed then.
#[test]
fn room_is_asked_again_before_the_call() {
    let config = DpuConfig { requests_max: 1, ..DpuConfig::default() };
    check_with(config, async |node: Node| {
        let mut slow = Raw::connect(node.addr).await;
        slow.send("POST /echo HTTP/1.1\r\nhost: node\r\ncontent-length: 4\r\n\r\nab").await;
        node.until(|node| node.dpu.in_flight() == 1).await;
        let mut held = Raw::connect(node.addr).await;
        held.send("GET /never HTTP/1.1\r\nhost: node\r\n\r\n").await;
        node.until(|node| node.dpu.stats().dispatched == 1).await;
        slow.send("cd").await;
        assert_eq!(slow.reply().await.status, 503);
        assert_eq!(node.seen_count(), 1);
        node.answer_all_held();
        assert_eq!(held.reply().await.status, 200);
        assert_eq!(slow.post("/echo", b"ef").await.text(), "ef");
    });
}

/// All bodies together have a limit too.
#[test]
fn buffered_bytes_are_bounded() {
    let config = DpuConfig { buffered_bytes_max: ByteSize::kib(100), ..small() };
    check_with(config, async |node: Node| {
        let mut slow = Raw::connect(node.addr).await;
        slow.send("POST /echo HTTP/1.1\r\nhost: node\r\ncontent-length: 60001\r\n\r\n").await;
        slow.send(vec![b'x'; 60_000]).await;
        node.until(|node| node.dpu.stats().buffered_bytes == 60_000).await;
        let reply = Raw::connect(node.addr).await.post("/echo", &vec![b'x'; 60_000]).await;
        assert_eq!((reply.status, reply.header("x-cellmesh-error")), (503, Some("overloaded")));
        slow.send("x").await;
        assert_eq!(slow.reply().await.status, 200);
        assert_eq!(Raw::connect(node.addr).await.post("/echo", &vec![b'x'; 60_000]).await.status, 200);
    });
}
