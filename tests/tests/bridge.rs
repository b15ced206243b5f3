//! The JSON bridge: one JSON object in, one out, over a bare connection.

use cellmesh_tests::{Node, Run};
use serde_json::{Value, json};

/// `front` is the entry. `dpu`: lines of `[dpu]`.
fn node_with(dpu: &str) -> Node {
    let cell = r#"
        [[cell]]
        component = "{cells}/unruly.wasm"
        services = ["front", "s1"]
    "#;
    Run::app(&format!("[dpu]\n{dpu}\n{cell}")).start()
}

fn node() -> Node {
    node_with("")
}

/// The body of an answer that is JSON itself.
fn body(answer: &Value) -> Value {
    serde_json::from_str(answer["body"].as_str().expect("a body of text")).expect("a body of JSON")
}

/// `{"error": text}` in the body of an answer.
#[track_caller]
fn check_error(answer: &Value, status: u16, part: &str) {
    assert_eq!(answer["status"], status, "{answer}");
    let error = body(answer)["error"].as_str().expect("an error text").to_owned();
    assert!(error.contains(part), "{error}");
}

/// An answer has the four keys that the format has, and the connection is closed behind it.
#[test]
fn object_is_answered_with_an_object() {
    let node = node();
    let answer =
        node.bridge(&json!({"method": "GET", "path": "/answer?status=201&header=x-name:1&header=x-name:2"}));
    let mut keys: Vec<&str> = answer.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    assert_eq!(keys, ["body", "headers", "req_id", "status"]);
    assert_eq!((&answer["status"], &answer["body"]), (&json!(201), &json!("as asked\n")));
    assert_eq!(answer["headers"]["x-name"], "1, 2");
    let id = answer["req_id"].as_str().unwrap();
    assert_eq!(id.split('-').map(str::len).collect::<Vec<_>>(), [8, 4, 4, 4, 12], "{id}");
}

/// Nothing has to be said: everything has a default.
#[test]
fn empty_object_asks_for_the_entry() {
    let answer = node().bridge(&json!({}));
    assert_eq!((&answer["status"], &answer["body"]), (&json!(200), &json!("ok\n")));
}

/// All of what a request can have arrives at the cell.
#[test]
fn cell_sees_the_request() {
    let answer = node().bridge(&json!({
        "method": "PUT", "path": "/reflect", "query_string": "a=b", "target_service": "s1",
        "headers": {"X-Name": "value", "x-number": 7, "traceparent": "00-1-2-01"}, "body": "line\nü\u{1f600}",
    }));
    let seen = body(&answer);
    let wanted = ["service", "method", "target", "body"].map(|key| seen[key].as_str().unwrap().to_owned());
    assert_eq!(wanted, ["s1", "PUT", "/reflect?a=b", "line\nü\u{1f600}"]);
    let headers = seen["headers"].as_array().unwrap();
    assert!(
        headers.contains(&json!(["x-name", "value"])) && headers.contains(&json!(["x-number", "7"])),
        "{seen}"
    );
    assert_eq!(answer["headers"]["traceparent"], "00-1-2-01");
}

/// Which service is meant: the URL's host, the target, the path, the entry.
#[test]
fn objects_are_routed() {
    let node = node();
    for (object, expected) in [
        (json!({"url": "http://s1.ns/reflect?x=1"}), "s1 /reflect?x=1"),
        (json!({"url": "http://s1/else", "path": "/reflect"}), "s1 /reflect"),
        (json!({"target_service": "s1", "path": "/reflect"}), "s1 /reflect"),
        (json!({"path": "/reflect"}), "front /reflect"),
    ] {
        let seen = body(&node.bridge(&object));
        let found = format!("{} {}", seen["service"].as_str().unwrap(), seen["target"].as_str().unwrap());
        assert_eq!(found, expected, "{object}");
    }
}

/// An object is whole when it parses, however small the pieces are that it comes in.
#[test]
fn object_may_come_byte_by_byte() {
    let node = node();
    let mut wire = node.connect();
    for byte in json!({"path": "/echo", "method": "POST", "body": "a } \" \\ { b"}).to_string().bytes() {
        assert!(wire.is_silent(), "answered before the object was whole");
        wire.send([byte]);
    }
    let answer: Value = serde_json::from_slice(&wire.rest()).unwrap();
    assert_eq!(answer["body"], "a } \" \\ { b");
}

/// Two objects in one packet are answered in their order, without anything between, although the first takes longer.
#[test]
fn objects_on_one_connection_are_answered_in_order() {
    let node = node();
    let mut wire = node.connect();
    wire.send(r#"{"path":"/step/spin:100"}{"path":"/answer?status=418"}"#);
    let answers = wire.rest();
    let answers: Result<Vec<Value>, _> = serde_json::Deserializer::from_slice(&answers).into_iter().collect();
    let statuses: Vec<Value> = answers.unwrap().iter().map(|answer| answer["status"].clone()).collect();
    assert_eq!(statuses, [200, 418]);
}

/// A client that keeps its side open gets its answer at once; one that has shut it gets it too.
#[test]
fn answer_does_not_wait_for_the_client() {
    let node = node();
    let mut open = node.connect();
    open.send(r#"{"path":"/"}"#);
    let mut shut = node.connect();
    shut.send(r#"{"path":"/step/spin:50"}"#);
    shut.end_sending();
    for wire in [&mut open, &mut shut] {
        let answer: Value = serde_json::from_slice(&wire.rest()).unwrap();
        assert_eq!(answer["status"], 200);
    }
}

/// An error of the client's own making is told with what is wrong.
#[test]
fn object_that_cannot_be_read_is_400() {
    let node = node();
    let deep = format!(r#"{{"headers":{}"#, "[".repeat(70));
    for (bytes, part) in [
        (r#"{"path":7}"#, "expected a string"),
        (r#"{"path" "/"}"#, "JSON"),
        (r#"{"path":"no-slash"}"#, "no-slash"),
        (r#"{"method":"GE T"}"#, "method"),
        (r#"{"headers":["a"]}"#, "headers"),
        (&deep, "64"),
    ] {
        let mut wire = node.connect();
        wire.send(bytes);
        check_error(&serde_json::from_slice(&wire.rest()).unwrap(), 400, part);
    }
    let mut wire = node.connect();
    wire.send(r#"{"path":"/"#);
    wire.end_sending();
    check_error(&serde_json::from_slice(&wire.rest()).unwrap(), 400, "ended");
}

/// A service that is not there is named; a cell's own failure is 500 with its reason.
#[test]
fn failures_have_their_statuses() {
    let node = node();
    check_error(&node.bridge(&json!({"target_service": "nobody"})), 503, "nobody");
    check_error(&node.bridge(&json!({"url": "http://nobody/x"})), 503, "nobody");
    check_error(&node.bridge(&json!({"path": "/step/trap"})), 500, "trap");
    assert_eq!(node.bridge(&json!({}))["status"], 200);
}

/// A cell that takes too long is 504.
#[test]
fn deadline_is_504() {
    let node = node_with("request_timeout = \"400ms\"");
    check_error(&node.bridge(&json!({"path": "/step/sleep:60000"})), 504, "front");
}

/// A body over the limit is 413.
#[test]
fn body_over_the_limit_is_413() {
    let node = node_with("body_bytes_max = \"64KiB\"");
    let ask = |len: usize| node.bridge(&json!({"method": "POST", "path": "/echo", "body": "x".repeat(len)}));
    assert_eq!(ask(64 << 10)["body"].as_str().unwrap().len(), 64 << 10);
    check_error(&ask((64 << 10) + 1), 413, "64KiB");
}

/// The bridge can be turned off: then its first byte is no HTTP.
#[test]
fn bridge_can_be_off() {
    let node = node_with("json_bridge = false");
    let mut wire = node.connect();
    wire.send("{}\r\n\r\n");
    assert_eq!(wire.reply().status, 400);
}
