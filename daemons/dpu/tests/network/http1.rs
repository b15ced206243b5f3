use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::sync::{Arc, Mutex};

use cellmesh_dpu::DpuConfig;
use cellmesh_dpu::config::ForwardedRule;
use cellmesh_dpu::spans::{Sampling, Span, Spans};
use cellmesh_dpu::trace_context::{Parent, Traceparent};

use serde_json::Value;

use crate::client::Raw;
use crate::node::{Node, check, check_with};

/// A plain request gets the cell's answer, with a length and a date.
#[test]
fn request_gets_the_cells_answer() {
    check(async |node: Node| {
        let reply = Raw::connect(node.addr).await.get("/hello").await;
        assert_eq!((reply.status, reply.text()), (200, "hello"));
        assert_eq!(reply.header("content-length"), Some("5"));
        assert!(reply.header("date").is_some());
    });
}

/// One connection serves requests until the client has enough.
#[test]
fn connection_is_kept() {
    check(async |node: Node| {
        let mut client = Raw::connect(node.addr).await;
        for number in 0..100 {
            let text = format!("body {number}");
            assert_eq!(client.post("/echo", text.as_bytes()).await.text(), text);
        }
        assert_eq!(node.dpu.stats().connections_open, 1);
    });
}

/// Requests sent without waiting are answered in order.
#[test]
fn pipelined_requests_are_answered_in_order() {
    check(async |node: Node| {
        let mut client = Raw::connect(node.addr).await;
        let burst: String =
            (0..50).map(|n| format!("GET /target/{n} HTTP/1.1\r\nhost: node\r\n\r\n")).collect();
        client.send(burst).await;
        for number in 0..50 {
            assert_eq!(client.reply().await.text(), format!("/target/{number}"));
        }
    });
}

/// HEAD tells the length and sends no body; the next request on the connection is answered as usual.
#[test]
fn head_has_no_body() {
    check(async |node: Node| {
        let mut client = Raw::connect(node.addr).await;
        client.send("HEAD /hello HTTP/1.1\r\nhost: node\r\n\r\n").await;
        let reply = client.reply_head().await;
        assert_eq!((reply.status, reply.header("content-length")), (200, Some("5")));
        assert_eq!(client.get("/hello").await.text(), "hello");
    });
}

/// Answers that have no body by definition have none, whatever the cell gave.
#[test]
fn statuses_without_body_have_none() {
    check(async |node: Node| {
        let mut client = Raw::connect(node.addr).await;
        for status in [204, 304] {
            client.send(format!("GET /status/{status} HTTP/1.1\r\nhost: node\r\n\r\n")).await;
            assert_eq!(client.reply_head().await.status, status);
            assert_eq!(client.get("/hello").await.text(), "hello");
        }
    });
}

/// A cell's own errors are answers like any other.
#[test]
fn cells_errors_pass_through() {
    check(async |node: Node| {
        let reply = Raw::connect(node.addr).await.get("/status/404").await;
        assert_eq!((reply.status, reply.text()), (404, "status"));
        assert_eq!(reply.header("x-cellmesh-error"), None);
        assert_eq!(node.dpu.stats().answered, 1);
    });
}

/// The cell sees method, target, host and end-to-end headers; nothing that was for this hop or for the mesh.
#[test]
fn cell_sees_the_request() {
    check(async |node: Node| {
        let mut client = Raw::connect(node.addr).await;
        client
            .send(
                "PUT /echo?a=%20b HTTP/1.1\r\nHost: s1:5005\r\nX-Request-Id: mine\r\nAccept: a\r\nAccept: b\r\n\
                 Connection: close, X-Private\r\nX-Private: 1\r\nKeep-Alive: 1\r\nTE: trailers\r\nProxy-Authorization: x\r\n\
                 X-Cellmesh-Hops: 9\r\nX-Cellmesh-Service: s0\r\nX-Empty:\r\nContent-Length: 2\r\n\r\nhi",
            )
            .await;
        assert_eq!(client.reply().await.status, 200);
        let seen = node.last_seen();
        assert_eq!((seen.service.0, seen.method.as_str(), seen.target.as_str()), (1, "PUT", "/echo?a=%20b"));
        assert_eq!(
            seen.headers,
            [
                ("host", "s1:5005"),
                ("x-request-id", "mine"),
                ("accept", "a"),
                ("accept", "b"),
                ("x-empty", "")
            ]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
        );
        assert_eq!(seen.body, b"hi");
    });
}

/// A request without an id gets one, each its own.
#[test]
fn request_ids_are_made() {
    check(async |node: Node| {
        let mut client = Raw::connect(node.addr).await;
        let mut ids = Vec::new();
        for _ in 0..3 {
            client.get("/hello").await;
            ids.push(node.last_seen().header("x-request-id").expect("an id").to_owned());
        }
        ids.dedup();
        assert_eq!(ids.iter().map(String::len).collect::<Vec<_>>(), [36, 36, 36]);
    });
}

/// An absolute target decides the host; its path is what the cell sees.
#[test]
fn absolute_target_replaces_host() {
    check(async |node: Node| {
        let mut client = Raw::connect(node.addr).await;
        client.send("GET http://s1.ns/target?x HTTP/1.1\r\nhost: s0\r\n\r\n").await;
        assert_eq!(client.reply().await.text(), "/target?x");
        let seen = node.last_seen();
        assert_eq!((seen.service.0, seen.header("host")), (1, Some("s1.ns")));
    });
}

/// A URL without a path means its root, also when it has a query.
#[test]
fn absolute_target_without_a_path_means_the_root() {
    check(async |node: Node| {
        let mut client = Raw::connect(node.addr).await;
        for (url, target) in [("http://s1", "/"), ("http://s1?x=y", "/?x=y"), ("http://s1/?x=y", "/?x=y")] {
            client.send(format!("GET {url} HTTP/1.1\r\nhost: s1\r\n\r\n")).await;
            assert_eq!(client.reply().await.text(), target, "{url}");
        }
    });
}

/// Each way of naming a service, and the entry for a request that names none.
#[test]
fn requests_reach_their_service() {
    check(async |node: Node| {
        let mut client = Raw::connect(node.addr).await;
        for (request, service) in [
            ("GET /target HTTP/1.1\r\nhost: s1.default.svc.cluster.local:80\r\n\r\n", 1),
            ("GET /target HTTP/1.1\r\nhost: 127.0.0.1\r\nx-cellmesh-service: s1\r\n\r\n", 1),
            ("GET /s1/target HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n", 1),
            ("GET /target HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n", 0),
            ("GET /target HTTP/1.0\r\nconnection: keep-alive\r\n\r\n", 0),
        ] {
            client.send(request).await;
            assert_eq!(client.reply().await.status, 200, "{request}");
            assert_eq!(node.last_seen().service.0, service, "{request}");
        }
    });
}

/// The client sees the cell's headers, each line; nothing of the hop, and of the mesh only its error.
#[test]
fn client_sees_the_answers_headers() {
    check(async |node: Node| {
        let lines = "content-type: text/x\nset-cookie: a\nset-cookie: b\nconnection: close\ncontent-length: 99\n\
                     transfer-encoding: chunked\nx-cellmesh-secret: x\nx-cellmesh-error: trap\nx-empty: \n";
        let mut client = Raw::connect(node.addr).await;
        let reply = client.post("/answer-head", lines.as_bytes()).await;
        assert_eq!((reply.status, reply.text()), (200, "head"));
        assert_eq!(reply.headers("set-cookie"), ["a", "b"]);
        assert_eq!(reply.header("x-cellmesh-error"), Some("trap"));
        for gone in ["connection", "transfer-encoding", "x-cellmesh-secret"] {
            assert_eq!(reply.header(gone), None, "{gone}");
        }
        assert_eq!(reply.headers("content-length"), ["4"]);
        assert_eq!(client.get("/hello").await.status, 200);
    });
}

/// Header lines and statuses that HTTP cannot say: 502, and the connection goes on.
#[test]
fn bad_answers_are_502() {
    check(async |node: Node| {
        let mut client = Raw::connect(node.addr).await;
        for lines in
            ["no line", "a b: c\n", ": x\n", "x: a\rb\n", "x: a\0b\n", "x:y\n", "x: \u{7f}\n", "X: upper\n"]
        {
            let reply = client.post("/answer-head", lines.as_bytes()).await;
            assert_eq!(
                (reply.status, reply.header("x-cellmesh-error")),
                (502, Some("bad-response")),
                "{lines:?}"
            );
            assert!(reply.error().contains("\"s0\""), "{}", reply.error());
        }
        for status in [101, 199, 600, 999] {
            assert_eq!(client.get(&format!("/status/{status}")).await.status, 502);
        }
        assert_eq!(node.dpu.stats().bad_responses, 12);
        assert_eq!(client.get("/hello").await.status, 200);
    });
}

/// The line in the log about a bad answer says whose it was, over HTTP and over the bridge.
#[test]
fn bad_answers_are_logged_with_their_request() {
    const HEADERS: &str =
        "x-request-id: r-7\r\ntraceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00\r\n";
    let log = Log::default();
    let to = log.clone();
    let writes =
        tracing_subscriber::fmt().json().flatten_event(true).with_writer(move || to.clone()).finish();
    let _guard = tracing::subscriber::set_default(writes);
    check(async |node: Node| {
        let mut client = Raw::connect(node.addr).await;
        client.send(&format!("GET /status/999 HTTP/1.1\r\nhost: s0\r\n{HEADERS}\r\n")).await;
        assert_eq!(client.reply().await.status, 502);
        let object = r#"{"path": "/status/999", "headers": {"x-request-id": "r-8"}}"#;
        assert_eq!(Raw::connect(node.addr).await.json(object).await["status"], 502);
        assert_eq!(client.get("/status/999").await.status, 502);
    });
    let [over_http, over_bridge, unnamed] = &log.lines()[..] else {
        panic!("three lines: {:?}", log.lines())
    };
    assert_eq!(over_http["request_id"], "r-7", "{over_http}");
    assert_eq!(over_http["trace_id"], "4bf92f3577b34da6a3ce929d0e0e4736", "{over_http}");
    assert_eq!((&over_bridge["request_id"], &over_bridge["trace_id"]), (&"r-8".into(), &Value::Null));
    assert!(unnamed["request_id"].is_string() && unnamed["trace_id"].is_null(), "{unnamed}");
}

/// Where somebody wants to hear of requests, they go on as a part of what we tell, and are told of at their end with what they
/// were answered; what was never routed is nobody's.
#[test]
fn requests_go_on_below_our_part_of_their_trace() {
    const PARENT: &str = "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n";
    check(async |node: Node| {
        let mut client = Raw::connect(node.addr).await;
        client.send(format!("GET /hello HTTP/1.1\r\nhost: s0\r\n{PARENT}\r\n")).await;
        assert_eq!(client.reply().await.status, 200);
        let as_it_came = node.last_seen();
        assert!(as_it_came.header("traceparent").is_some_and(|value| value.contains("00f067aa0ba902b7")));
        let told = Rc::new(Told::default());
        node.dpu.tell_spans(Rc::clone(&told) as Rc<dyn Spans>);
        client.send(format!("GET /hello?a HTTP/1.1\r\nhost: s0\r\n{PARENT}\r\n")).await;
        assert_eq!(client.reply().await.status, 200);
        let seen = node.last_seen();
        let lines: Vec<&String> =
            seen.headers.iter().filter(|(name, _)| name == "traceparent").map(|(_, value)| value).collect();
        assert_eq!(lines, ["00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000001-01"]);
        let object = r#"{"path": "/status/503", "headers": {"traceparent": "nonsense"}}"#;
        assert_eq!(Raw::connect(node.addr).await.json(object).await["status"], 503);
        assert_eq!(
            node.last_seen().header("traceparent"),
            Some("00-00000000000000000000000000000002-0000000000000002-00")
        );
        client.send("GET / HTTP/1.1\r\nhost: s0\r\nx-cellmesh-service: nobody\r\nhost: s0\r\n\r\n").await;
        assert_eq!(client.reply().await.status, 400);
        let mut leaving = Raw::connect(node.addr).await;
        leaving.send("GET /never HTTP/1.1\r\nhost: s1\r\n\r\n").await;
        node.until(|node| node.last_seen().target == "/never").await;
        drop(leaving);
        node.until(|_| told.ended.borrow().len() == 3).await;
        let parent = Some(0x00f0_67aa_0ba9_02b7);
        assert_eq!(
            *told.ended.borrow(),
            [
                ("s0 GET /hello?a".to_owned(), 1, parent, Some(200)),
                ("s0 GET /status/503".to_owned(), 2, None, Some(503)),
                ("s1 GET /never".to_owned(), 3, None, None),
            ]
        );
    });
}

/// What a client's vendors say of a trace goes on only with the trace that it is said of.
#[test]
fn tracestate_goes_on_with_its_traceparent_only() {
    const GOOD: &str = "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n";
    const STATE: &str = "tracestate: a=b\r\n";
    check(async |node: Node| {
        let mut client = Raw::connect(node.addr).await;
        for is_told in [false, true] {
            if is_told {
                node.dpu.tell_spans(Rc::new(Told::default()));
            }
            for (lines, state) in [
                (format!("{GOOD}{STATE}x: 1\r\n"), Some("a=b")),
                (format!("{STATE}x: 1\r\n{GOOD}"), Some("a=b")),
                (format!("{STATE}x: 1\r\ntraceparent: 00-abc-1\r\n"), None),
                (
                    format!("{STATE}x: 1\r\n{}", GOOD.to_uppercase().replace("TRACEPARENT", "traceparent")),
                    None,
                ),
                (format!("x: 1\r\n{STATE}{STATE}"), None),
                (format!("{GOOD}{GOOD}x: 1\r\n{STATE}"), None),
            ] {
                client.send(format!("GET /hello HTTP/1.1\r\nhost: s0\r\n{lines}\r\n")).await;
                assert_eq!(client.reply().await.status, 200);
                let seen = node.last_seen();
                assert_eq!(
                    (seen.header("tracestate"), seen.header("x")),
                    (state, Some("1")),
                    "{lines} {seen:?}"
                );
                assert_eq!((&*seen.method, &*seen.target), ("GET", "/hello"));
            }
        }
    });
}

/// What it was, its span, its parent's, and its status.
type Ended = (String, u64, Option<u64>, Option<u16>);

/// Gives the spans of requests the numbers from 1.
#[derive(Default)]
pub(crate) struct Told {
    begun: Cell<u64>,
    ended: RefCell<Vec<Ended>>,
}

impl Spans for Told {
    fn begin(&self, parent: Option<Parent>) -> (Traceparent, Sampling) {
        self.begun.set(self.begun.get() + 1);
        let trace_id = parent.map_or(u128::from(self.begun.get()), |parent| parent.trace_id);
        let sampled = parent.is_some_and(|parent| parent.sampled);
        (Traceparent { trace_id, span_id: self.begun.get(), sampled }, Sampling::No)
    }

    fn end(&self, span: &Span<'_>) {
        let [method, target] = [span.method, span.target].map(String::from_utf8_lossy);
        let what = format!("{} {method} {target}", span.service);
        self.ended.borrow_mut().push((what, span.own.span_id, span.parent, span.status));
    }
}

/// What this thread logs.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn lines(&self) -> Vec<Value> {
        let bytes = self.0.lock().expect("no panic under it");
        serde_json::Deserializer::from_slice(&bytes).into_iter().map(|line| line.expect("JSON")).collect()
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("no panic under it").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// 16 MiB in and out, with a declared length and in chunks.
#[test]
fn largest_bodies_pass_both_ways() {
    check(async |node: Node| {
        let body: Vec<u8> = (0..16 * 1024 * 1024).map(|n: u32| n.to_le_bytes()[n as usize % 3]).collect();
        let mut client = Raw::connect(node.addr).await;
        let reply = client.post("/echo", &body).await;
        assert!(reply.status == 200 && reply.body == body, "{}", reply.head);
        client.send("POST /echo HTTP/1.1\r\nhost: node\r\ntransfer-encoding: chunked\r\n\r\n").await;
        for chunk in body.chunks(1_000_000) {
            client.send(format!("{:x}\r\n", chunk.len())).await;
            client.send(chunk).await;
            client.send("\r\n").await;
        }
        client.send("0\r\ntrailer: x\r\n\r\n").await;
        let reply = client.reply().await;
        assert!(reply.status == 200 && reply.body == body, "{}", reply.head);
        assert_eq!(node.last_seen().header("trailer"), None);
        assert_eq!(client.get("/hello").await.status, 200);
        assert_eq!(node.dpu.stats().buffered_bytes, 0);
    });
}

/// A client that waits for `100 Continue` gets it when its body is wanted, and only then.
#[test]
fn continue_is_said_when_the_body_is_wanted() {
    check(async |node: Node| {
        let mut client = Raw::connect(node.addr).await;
        client
            .send("POST /echo HTTP/1.1\r\nhost: node\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n")
            .await;
        assert_eq!(client.reply_head().await.status, 100);
        client.send("hi").await;
        assert_eq!(client.reply().await.text(), "hi");
        client
            .send("POST /echo HTTP/1.1\r\nhost: node\r\nexpect: 100-continue\r\ncontent-length: 99999999\r\n\r\n")
            .await;
        assert_eq!(client.reply().await.status, 413);
        client.expect_close().await;
    });
}

/// Protocols to switch to: WebSocket and CONNECT are refused, an offer of h2c or of HTTP/1.0 is ignored.
#[test]
fn other_protocols_are_refused_clearly() {
    check(async |node: Node| {
        let upgrade = |to: &str| {
            format!("GET /hello HTTP/1.1\r\nhost: node\r\nconnection: upgrade\r\nupgrade: {to}\r\n\r\n")
        };
        for request in [upgrade("websocket"), "CONNECT node:80 HTTP/1.1\r\nhost: node:80\r\n\r\n".to_owned()]
        {
            let mut client = Raw::connect(node.addr).await;
            client.send(&request).await;
            let reply = client.reply().await;
            assert_eq!(
                (reply.status, reply.header("x-cellmesh-error")),
                (501, Some("not-implemented")),
                "{request}"
            );
            client.expect_close().await;
        }
        for ignored in [upgrade("h2c"), upgrade("websocket").replace("HTTP/1.1", "HTTP/1.0")] {
            let mut client = Raw::connect(node.addr).await;
            client.send(&ignored).await;
            assert_eq!(client.reply().await.text(), "hello", "{ignored}");
        }
    });
}

/// What nobody can answer says so at once, with the service's name.
#[test]
fn faults_name_the_service() {
    check(async |node: Node| {
        let mut client = Raw::connect(node.addr).await;
        let traced = "GET / HTTP/1.1\r\nhost: node\r\nx-cellmesh-service: nope\r\nx-request-id: mine\r\nx-other: x\r\n\r\n";
        client.send(traced).await;
        let reply = client.reply().await;
        assert_eq!((reply.header("x-request-id"), reply.header("x-other")), (Some("mine"), None));
        assert_eq!((reply.status, reply.header("x-cellmesh-error")), (503, Some("unknown-service")));
        assert_eq!(reply.error(), "no service \"nope\"");
        let reply = client.get("/idle").await;
        assert_eq!((reply.status, reply.header("x-cellmesh-error")), (503, Some("no-worker")));
        assert_eq!(reply.error(), "no worker serves \"idle\"");
        // The id that it went on with.
        assert_eq!(reply.header("x-request-id").map(str::len), Some(36));
        assert_eq!(reply.header("content-type"), Some("application/json"));
        assert_eq!(client.get("/hello").await.status, 200);
        assert_eq!((node.dpu.stats().refused, node.dpu.stats().answered), (2, 1));
    });
}

/// At the edge a cell is told who its client is, and nothing that the client says of that; the bridge's clients are clients too.
#[test]
fn forwarded_headers_are_ours_at_the_edge() {
    let config = DpuConfig { forwarded: ForwardedRule::Replace, ..DpuConfig::default() };
    check_with(config, async |node: Node| {
        let mut client = Raw::connect(node.addr).await;
        client.send("GET /hello HTTP/1.1\r\nhost: node\r\nx-forwarded-for: 192.0.2.1\r\nforwarded: for=192.0.2.1\r\n\r\n").await;
        assert_eq!(client.reply().await.text(), "hello");
        let found = |node: &Node| {
            let seen = node.last_seen();
            ["x-forwarded-for", "x-forwarded-proto", "forwarded"]
                .map(|name| seen.header(name).map(ToOwned::to_owned))
        };
        let ours = [Some("127.0.0.1".to_owned()), Some("http".to_owned()), None];
        assert_eq!(found(&node), ours);
        let mut bridge = Raw::connect(node.addr).await;
        let object =
            r#"{"path":"/hello","headers":{"x-forwarded-for":"192.0.2.1","forwarded":"for=192.0.2.1"}}"#;
        assert_eq!(bridge.json(object).await["body"], "hello");
        assert_eq!(found(&node), ours);
        assert_eq!(node.seen_count(), 2);
    });
}
