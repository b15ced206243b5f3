//! HTTP in front of real cells: versions, routes, limits, and what a response looks like.

use std::time::Duration;

use cellmesh_tests::{H2, Node, Reply, Run, Wire};
use http::Method;

const MIB: usize = 1 << 20;

/// Three services: `front` is the entry, `s1` and `back-end` are reached by name. The largest body is the default, 16 MiB, which
/// an unoptimised host on a busy machine may take longer for than a handler has by default.
fn node() -> Node {
    Run::app(
        r#"
        entry = "front"
        [[cell]]
        component = "{cells}/unruly.wasm"
        services = ["s1", "front", "back-end"]
        handler_timeout = "10s"
        "#,
    )
    .start()
}

/// Bytes that differ from place to place: a lost or doubled piece shows.
fn pattern(len: usize) -> Vec<u8> {
    let digits = (0..len).map(usize::to_le_bytes);
    digits.map(|digits| digits[0] ^ digits[1].rotate_left(3) ^ digits[2].rotate_left(5)).collect()
}

/// Compares without printing megabytes.
#[track_caller]
fn assert_same(found: &[u8], expected: &[u8]) {
    let differs = found.iter().zip(expected).position(|(a, b)| a != b);
    assert_eq!((found.len(), differs), (expected.len(), None));
}

/// A connection is kept for the next request, whatever came of the one before.
#[test]
fn connection_is_kept() {
    let node = node();
    let mut wire = node.connect();
    let statuses =
        ["/", "/answer?status=404", "/do/trap", "/do/error", "/"].map(|path| wire.get("s1", path).status);
    assert_eq!(statuses, [200, 404, 500, 500, 200]);
}

/// Requests that come in one packet are answered one by one, in order, also when the first takes long.
#[test]
fn pipelined_requests_are_answered_in_order() {
    let node = node();
    let mut wire = node.connect();
    let paths = ["/step/spin:300", "/config", "/echo", "/answer?status=418", "/count"];
    wire.send(paths.map(|path| format!("GET {path} HTTP/1.1\r\nhost: s1\r\n\r\n")).concat());
    assert_eq!(paths.map(|_| wire.reply().status), [200, 404, 200, 418, 200]);
}

/// Requests that come while another is answered wait for it, however long they are: more of them than is read ahead.
#[test]
fn requests_behind_a_slow_one_are_answered_in_order() {
    let node = node();
    let mut wire = node.connect();
    wire.send("GET /step/sleep:300 HTTP/1.1\r\nhost: s1\r\n\r\n");
    let bodies = ["a", "b", "c"].map(|letter| letter.repeat(40_000));
    for body in &bodies {
        std::thread::sleep(Duration::from_millis(20)); // several packets, behind each other
        let length = body.len();
        wire.send(format!("POST /echo HTTP/1.1\r\nhost: s1\r\ncontent-length: {length}\r\n\r\n{body}"));
    }
    assert_eq!(wire.reply().status, 200);
    assert!(bodies.iter().all(|body| wire.reply().ok().text() == body.as_str()));
}

/// A request's end is found whichever way its length is told; trailers are taken off.
#[test]
fn next_request_begins_where_a_chunked_body_ends() {
    let node = node();
    let mut wire = node.connect();
    wire.send(
        "POST /echo HTTP/1.1\r\nhost: s1\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n\
         3;name=value\r\nabc\r\n4\r\ndefg\r\n0\r\nx-sum: 7\r\n\r\nGET /echo HTTP/1.1\r\nhost: s1\r\n\r\n",
    );
    assert_eq!(wire.reply().ok().text(), "abcdefg");
    assert_eq!(wire.reply().ok().text(), "");
}

/// HEAD has the head of GET and no body; what follows is the next response.
#[test]
fn head_has_no_body() {
    let node = node();
    let mut wire = node.connect();
    wire.ask("HEAD", "s1", "/do/big:1234");
    let reply = wire.reply_head();
    assert_eq!((reply.status, reply.header("content-length")), (200, Some("1234")));
    assert_eq!(wire.get("s1", "/").text(), "ok\n");
}

/// Statuses that have no body are sent without one.
#[test]
fn no_content_has_no_body() {
    let node = node();
    let mut wire = node.connect();
    for status in [204, 205, 304] {
        let reply = wire.get("s1", &format!("/answer?status={status}"));
        assert_eq!((reply.status, reply.body.len()), (status, 0));
    }
    assert_eq!(wire.get("s1", "/").text(), "ok\n");
}

/// A client that asks whether it may send a body is told to, and its request is answered.
#[test]
fn expectation_is_met() {
    let node = node();
    let mut wire = node.connect();
    wire.send("POST /echo HTTP/1.1\r\nhost: s1\r\ncontent-length: 4\r\nexpect: 100-continue\r\n\r\n");
    assert_eq!(wire.reply_head().status, 100);
    wire.send("body");
    assert_eq!(wire.reply().ok().text(), "body");
    assert_eq!(wire.get("s1", "/").text(), "ok\n");
}

/// A client that asks first is spared the sending of a body that is too long.
#[test]
fn expectation_of_a_body_that_is_too_long_is_refused() {
    let node = node();
    let mut wire = node.connect();
    let length = 16 * MIB + 1;
    wire.send(format!(
        "POST /echo HTTP/1.1\r\nhost: s1\r\ncontent-length: {length}\r\nexpect: 100-continue\r\n\r\n"
    ));
    let reply = wire.reply();
    assert_eq!((reply.status, reply.header("x-cellmesh-error")), (413, Some("body-too-large")));
}

/// Which service gets a request: host, header, path, entry, in this order. The path goes on unchanged.
#[test]
fn requests_are_routed_by_host_header_path_and_entry() {
    let node = node();
    let served = |head: &str| {
        let mut wire = node.connect();
        wire.send(format!("GET {head}\r\n\r\n"));
        let seen = wire.reply().ok().json();
        format!("{} {}", seen["service"].as_str().unwrap(), seen["target"].as_str().unwrap())
    };
    let cases = [
        ("/reflect HTTP/1.1\r\nhost: s1", "s1 /reflect"),
        ("/reflect HTTP/1.1\r\nhost: S1.default.svc.cluster.local:80", "s1 /reflect"),
        ("http://back-end/reflect?x HTTP/1.1\r\nhost: s1", "back-end /reflect?x"),
        ("/reflect HTTP/1.1\r\nhost: s1\r\nx-cellmesh-service: back-end", "s1 /reflect"),
        ("/reflect HTTP/1.1\r\nhost: example.org\r\nx-cellmesh-service: back-end", "back-end /reflect"),
        ("/reflect HTTP/1.1\r\nhost: 127.0.0.1:5005", "front /reflect"),
        ("/reflect/s1 HTTP/1.1\r\nhost: [::1]:5005", "front /reflect/s1"),
    ];
    for (head, expected) in cases {
        assert_eq!(served(head), expected, "{head}");
    }
}

/// The first segment of the path is a service's name, and stays in the path.
#[test]
fn path_that_names_a_service_reaches_it_unchanged() {
    let node = Run::app(
        r#"
        [[cell]]
        component = "{cells}/hello.wasm"
        services = ["front"]
        [[cell]]
        component = "{cells}/unruly.wasm"
        services = ["reflect"]
        "#,
    )
    .start();
    let seen = node.get("127.0.0.1", "/reflect/deeper?and=query").ok().json();
    assert_eq!(
        (seen["service"].as_str(), seen["target"].as_str()),
        (Some("reflect"), Some("/reflect/deeper?and=query"))
    );
    assert_eq!(node.get("127.0.0.1", "/reflection").ok().text(), "hello\n");
}

/// A client that means a service that is not there is told so at once, with the name.
#[test]
fn unknown_service_is_named() {
    let node = node();
    let mut wire = node.connect();
    wire.send("GET / HTTP/1.1\r\nhost: localhost\r\nx-cellmesh-service: nobody\r\n\r\n");
    let reply = wire.reply();
    assert_eq!((reply.status, reply.header("x-cellmesh-error")), (503, Some("unknown-service")));
    assert!(reply.error().contains("nobody"), "{}", reply.error());
    assert_eq!(wire.get("s1", "/").text(), "ok\n");
}

/// What a cell sees of a request: method, target, headers without those of the connection, body, and a request id.
#[test]
fn cell_sees_the_request() {
    let node = node();
    let mut wire = node.connect();
    wire.send(
        "PATCH /reflect?a=b%20c HTTP/1.1\r\nHost: s1\r\nX-Twice: 1\r\nX-Twice: 2\r\nConnection: keep-alive, x-hop\r\n\
         X-Hop: 1\r\nKeep-Alive: 5\r\nx-cellmesh-hops: 3\r\nContent-Length: 2\r\n\r\nhi",
    );
    let seen = wire.reply().ok().json();
    let headers: Vec<(String, String)> = serde_json::from_value(seen["headers"].clone()).unwrap();
    let (ids, headers): (Vec<_>, Vec<_>) = headers.into_iter().partition(|(name, _)| name == "x-request-id");
    let expected = [("host", "s1"), ("x-twice", "1"), ("x-twice", "2")];
    assert_eq!(headers, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    assert_eq!(ids.len(), 1);
    let seen = ["method", "target", "body"].map(|key| seen[key].as_str().unwrap().to_owned());
    assert_eq!(seen, ["PATCH", "/reflect?a=b%20c", "hi"]);
}

/// A response has the cell's headers, but none that belong to a connection or that only the mesh may say.
#[test]
fn response_has_the_headers_of_the_cell() {
    let node = node();
    let path = "/answer?status=201&header=set-cookie:a&header=set-cookie:b&header=content-length:1&header=connection:close\
                &header=keep-alive:9&header=transfer-encoding:chunked&header=x-cellmesh-hops:1&header=x-name:value";
    let mut wire = node.connect();
    let reply = wire.get("s1", path);
    assert_eq!((reply.status, reply.text()), (201, "as asked\n"));
    assert_eq!((reply.all("set-cookie"), reply.all("x-name")), (vec!["a", "b"], vec!["value"]));
    assert_eq!((reply.all("content-length"), reply.all("date").len()), (vec!["9"], 1));
    for dropped in ["connection", "keep-alive", "transfer-encoding", "x-cellmesh-hops"] {
        assert_eq!(reply.header(dropped), None, "{dropped}");
    }
    assert_eq!(wire.get("s1", "/").status, 200);
}

/// What a cell says that HTTP cannot is a 500 that tells what it was.
#[test]
fn answer_that_is_none_is_a_500() {
    let node = node();
    for (path, reason) in [
        ("/answer?status=99", "status 99"),
        ("/answer?status=600", "status 600"),
        ("/answer?status=101", "status 101"),
        ("/answer?header=bad%20name:1", "bad name"),
        ("/answer?header=x:a%0d%0ay:b", "x"),
    ] {
        let reply = node.get("s1", path);
        assert_eq!(reply.status, 500, "{path}");
        assert!(reply.error().contains(reason), "{path}: {}", reply.error());
    }
}

/// Tracing headers go from a request to the calls that it causes, and to the response.
#[test]
fn tracing_headers_are_passed_on() {
    let node = node();
    let tracing = [
        ("x-request-id", "r-1"),
        ("x-b3-traceid", "80f198ee56343ba864fe8b2a57d3eff7"),
        ("x-b3-spanid", "e457b5a2e4d86bd1"),
        ("x-b3-parentspanid", "05e3ac9a4f6e3b90"),
        ("x-b3-sampled", "1"),
        ("x-b3-flags", "1"),
        ("x-datadog-trace-id", "1"),
        ("x-datadog-parent-id", "2"),
        ("x-datadog-sampling-priority", "1"),
        ("x-ot-span-context", "c"),
        ("grpc-trace-bin", "AAA"),
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        ("tracestate", "a=b"),
        ("x-cloud-trace-context", "105445aa7843bc8bf206b12000100000/1;o=1"),
    ];
    let lines: String = tracing.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let mut wire = node.connect();
    wire.send(format!(
        "GET /order?url=http://front/order?url=http://back-end/reflect HTTP/1.1\r\nhost: s1\r\nx-other: 1\r\n{lines}\r\n"
    ));
    let reply = wire.reply().ok();
    let seen: Vec<(String, String)> = serde_json::from_value(reply.json()["headers"].clone()).unwrap();
    for (name, value) in tracing {
        assert_eq!(reply.all(name), [value], "in the response");
        let of_callee: Vec<_> = seen.iter().filter(|(found, _)| found == name).collect();
        assert_eq!(of_callee, [&(name.to_owned(), value.to_owned())], "at the callee");
    }
    assert!(!seen.iter().any(|(name, _)| name == "x-other"), "{seen:?}");
}

/// A body of the largest size comes back as it went, passed on by name or through the cell's memory, over both versions.
#[test]
fn largest_body_comes_back_unchanged() {
    let node = node();
    let body = pattern(16 * MIB);
    let mut wire = node.connect();
    assert_same(&wire.post("s1", "/echo", &body).ok().body, &body);
    assert_same(&wire.post("s1", "/echo-bytes", &body).ok().body, &body);
    assert_same(&H2::connect(node.address()).post("s1", "/echo-bytes", body.clone()).ok().body, &body);
}

/// A body of the largest size passes from service to service, there and back.
#[test]
fn largest_body_passes_between_services() {
    let node = node();
    let body = pattern(16 * MIB);
    let path = "/order?url=http://front/order?url=http://back-end/echo-bytes";
    assert_same(&node.post("s1", path, &body).ok().body, &body);
}

/// Two large bodies at the same time do not mix, with another lane or the same one.
#[test]
fn large_bodies_at_the_same_time_do_not_mix() {
    let node = node();
    let h2 = H2::connect(node.address());
    let bodies = [1, 2, 3].map(|seed| pattern(4 * MIB + seed)[seed..].to_vec());
    let streams = bodies
        .each_ref()
        .map(|body| h2.start(Method::POST, "s1", "/order?url=http://front/echo", body.clone()));
    for (stream, body) in streams.into_iter().zip(&bodies) {
        assert_same(&h2.finish(stream).unwrap().ok().body, body);
    }
}

/// One byte more than the limit is refused, told before or found while it is read. The node goes on.
#[test]
fn body_over_the_limit_is_413() {
    let node = node();
    let check = |reply: Reply| {
        assert_eq!((reply.status, reply.header("x-cellmesh-error")), (413, Some("body-too-large")));
        assert!(reply.error().contains("16MiB"), "{}", reply.error());
    };
    let mut told = node.connect();
    told.send(format!("POST /echo HTTP/1.1\r\nhost: s1\r\ncontent-length: {}\r\n\r\n", 16 * MIB + 1));
    check(told.reply());
    told.expect_close();
    let mut found = node.connect();
    found.send("POST /echo HTTP/1.1\r\nhost: s1\r\ntransfer-encoding: chunked\r\n\r\n");
    let chunk = [b"100000\r\n", &pattern(MIB)[..], b"\r\n"].concat();
    (0..16).for_each(|_| found.send_some(&chunk));
    found.send_some("1\r\nx\r\n0\r\n\r\n");
    check(found.reply());
    check(H2::connect(node.address()).post("s1", "/echo", vec![0; 16 * MIB + 1]));
    assert_eq!(node.get("s1", "/").status, 200);
}

/// A response that is larger than a message may be costs its own request.
#[test]
fn response_over_the_limit_is_an_error() {
    let node = node();
    let mut wire = node.connect();
    assert_eq!(wire.get("s1", "/do/big:16777216").ok().body.len(), 16 * MIB);
    let reply = wire.get("s1", "/do/big:17825792");
    assert!(reply.status >= 500 && reply.header("x-cellmesh-error").is_some(), "{reply:?}");
    assert!(reply.error().contains("too large") || reply.error().contains("limit"), "{}", reply.error());
    assert_eq!(wire.get("s1", "/").status, 200);
}

/// Heads that are too long or have too many lines are refused with the status that says so.
#[test]
fn head_over_the_limits_is_refused() {
    let node = node();
    let status = |head: String| {
        let mut wire = node.connect();
        wire.send_some(format!("GET {head}\r\n\r\n"));
        wire.reply().status
    };
    let line = |length: usize| format!("x: {}\r\n", "v".repeat(length));
    let fits = line(100).repeat(90);
    assert_eq!(status(format!("/ HTTP/1.1\r\nhost: s1\r\n{fits}")), 200);
    assert_eq!(status(format!("/ HTTP/1.1\r\nhost: s1\r\n{}", line(20_000))), 431);
    assert_eq!(status(format!("/ HTTP/1.1\r\nhost: s1\r\n{}", line(1).repeat(101))), 431);
    assert_eq!(status(format!("/{} HTTP/1.1\r\nhost: s1\r\n", "p".repeat(8_000))), 200);
    assert_eq!(status(format!("/{} HTTP/1.1\r\nhost: s1\r\n", "p".repeat(8_200))), 414);
}

/// Bytes that are no HTTP get 400 and the connection is closed.
#[test]
fn bytes_that_are_no_http_are_refused() {
    let node = node();
    for bytes in
        ["no http at all\r\n\r\n", "GET / HTTP/1.1\r\n\r\n", "GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n"]
    {
        let mut wire = node.connect();
        wire.send(bytes);
        assert_eq!(wire.reply().status, 400, "{bytes:?}");
        wire.expect_close();
    }
}

/// Streams of one HTTP/2 connection do not wait for each other.
#[test]
fn streams_overtake_each_other() {
    let node = node();
    let h2 = H2::connect(node.address());
    let slow = h2.start(Method::GET, "s1", "/step/sleep:2000", "");
    for path in ["/", "/order?url=http://front/", "/answer?status=204"] {
        assert!(h2.get("s1", path).status < 300, "{path}");
    }
    assert!(!slow.is_finished());
    assert_eq!(h2.finish(slow).unwrap().ok().text(), "done\n");
}

/// An HTTP/2 request is routed by its authority, and its response has the same headers as over HTTP/1.
#[test]
fn second_version_is_served_alike() {
    let node = node();
    let h2 = H2::connect(node.address());
    assert_eq!(h2.get("back-end:80", "/reflect").json()["service"], "back-end");
    assert_eq!(h2.get("localhost", "/reflect").json()["service"], "front");
    let path = "/answer?status=202&header=x-name:value&header=connection:close";
    let (second, first) = (h2.get("s1", path), node.get("s1", path));
    let told = |reply: &Reply| (reply.status, reply.body.clone(), reply.header("x-name").map(str::to_owned));
    assert_eq!(told(&second), told(&first));
}

/// Many connections that say nothing do not keep others from being served.
#[test]
fn silent_connections_are_in_nobodys_way() {
    let node = node();
    let silent: Vec<Wire> = (0..200).map(|_| node.connect()).collect();
    assert_eq!(node.get("s1", "/").status, 200);
    drop(silent);
}
