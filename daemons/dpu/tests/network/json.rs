use cellmesh_dpu::DpuConfig;
use cellmesh_dpu::units::{ByteSize, TimeSpan};
use serde_json::{Value, json};

use crate::client::Raw;
use crate::node::{Node, check, check_with};

async fn ask(node: &Node, object: &Value) -> Value {
    Raw::connect(node.addr).await.json(&object.to_string()).await
}

/// The answers on one connection.
fn answers(bytes: &[u8]) -> Vec<Value> {
    let answers = serde_json::Deserializer::from_slice(bytes).into_iter();
    answers.map(|answer| answer.expect("JSON")).collect()
}

/// The answer of an error: its status and the text in its body.
fn error_of(answer: &Value) -> (u64, String) {
    let body: Value =
        serde_json::from_str(answer["body"].as_str().expect("a text")).expect("JSON in the body");
    (answer["status"].as_u64().expect("a number"), body["error"].as_str().expect("a text").to_owned())
}

/// One object in, one out, and the connection closes under a client that keeps its side open.
#[test]
fn object_is_answered_and_the_connection_closes() {
    check(async |node: Node| {
        let answer = ask(&node, &json!({"method": "POST", "path": "/echo", "body": "hi \u{e4}"})).await;
        assert_eq!((&answer["status"], &answer["body"]), (&json!(200), &json!("hi \u{e4}")));
        assert_eq!(answer["headers"]["content-type"], "text/plain");
        assert_eq!(answer["req_id"].as_str().map(str::len), Some(36));
        assert_eq!(answer.as_object().map(serde_json::Map::len), Some(4));
    });
}

/// An empty object is a request: GET / of the entry service.
#[test]
fn all_keys_are_optional() {
    check(async |node: Node| {
        assert_eq!(ask(&node, &json!({})).await["status"], 200);
        let seen = node.last_seen();
        assert_eq!((seen.service.0, seen.method.as_str(), seen.target.as_str()), (0, "GET", "/"));
        let nulls = json!({"method": null, "path": null, "headers": null, "body": null, "query_string": null,
                           "url": null, "target_service": null, "unknown": {"a": [1]}});
        assert_eq!(ask(&node, &nulls).await["status"], 200);
    });
}

/// However the bytes arrive, the object is found once it is whole.
#[test]
fn object_may_come_byte_by_byte() {
    check(async |node: Node| {
        let mut client = Raw::connect(node.addr).await;
        for byte in r#"  {"path":"/echo","method":"POST","body":"}\"{\\"}"#.as_bytes() {
            client.send([*byte]).await;
            tokio::task::yield_now().await;
        }
        assert_eq!(client.json_rest().await["body"], "}\"{\\");
    });
}

/// Several objects on one connection are answered in order, whether they came together or in pieces.
#[test]
fn objects_are_answered_in_order() {
    check(async |node: Node| {
        let mut client = Raw::connect(node.addr).await;
        client.send(r#"{"path":"/target/1"} {"path":"/target/2"}{"path":"#).await;
        client.send("\"/target/3\"}\n").await;
        let bodies: Vec<Value> =
            answers(&client.rest().await).iter().map(|answer| answer["body"].clone()).collect();
        assert_eq!(bodies, ["/target/1", "/target/2", "/target/3"]);
    });
}

/// An object that arrives while the one before it is being answered is answered too.
#[test]
fn object_may_come_during_an_answer() {
    check(async |node: Node| {
        let mut client = Raw::connect(node.addr).await;
        client.send(r#"{"path":"/never"}"#).await;
        node.until(|node| node.seen_count() == 1).await;
        client.send(r#"{"path":"/hello"}"#).await;
        node.answer_all_held();
        let bodies: Vec<Value> =
            answers(&client.rest().await).iter().map(|answer| answer["body"].clone()).collect();
        assert_eq!(bodies, ["late", "hello"]);
    });
}

/// A client that has shut its sending side is answered.
#[test]
fn half_closed_clients_are_answered() {
    check(async |node: Node| {
        let mut client = Raw::connect(node.addr).await;
        client.send(r#"{"path":"/hello"}"#).await;
        client.end_sending().await;
        assert_eq!(client.json_rest().await["body"], "hello");
    });
}

/// Where an object says it goes, in the order of what counts.
#[test]
fn objects_reach_their_service() {
    check(async |node: Node| {
        for (object, service, target) in [
            (json!({"url": "http://s1.ns:80/x?y", "target_service": "s0"}), 1, "/x?y"),
            (json!({"url": "s1"}), 1, "/"),
            (json!({"url": "http://s1/ignored", "path": "/s0/p"}), 1, "/s0/p"),
            (json!({"target_service": "s1", "path": "/s0"}), 1, "/s0"),
            (json!({"path": "/s1/api"}), 1, "/s1/api"),
            (json!({"path": "/api"}), 0, "/api"),
            (json!({"path": "/api", "query_string": "a=1"}), 0, "/api?a=1"),
            (json!({"path": "/api?b", "query_string": "?a=1"}), 0, "/api?b&a=1"),
        ] {
            assert_eq!(ask(&node, &object).await["status"], 200, "{object}");
            let seen = node.last_seen();
            assert_eq!((seen.service.0, seen.target.as_str()), (service, target), "{object}");
        }
    });
}

/// Headers go both ways as they do in HTTP; numbers and booleans are written out.
#[test]
fn headers_pass_both_ways() {
    check(async |node: Node| {
        let object = json!({"path": "/answer-head", "method": "POST",
            "headers": {"X-Number": 1, "X-Flag": true, "X-Request-Id": "mine", "Connection": "x", "x-cellmesh-hops": "9"},
            "body": "a: 1\na: 2\nconnection: close\nx-cellmesh-secret: x\n"});
        let answer = ask(&node, &object).await;
        assert_eq!(answer["headers"], json!({"a": "1, 2"}));
        let seen = node.last_seen();
        assert_eq!(
            (seen.header("x-number"), seen.header("x-flag"), seen.header("host")),
            (Some("1"), Some("true"), Some("s0"))
        );
        assert_eq!((seen.header("connection"), seen.header("x-cellmesh-hops")), (None, None));
        assert_eq!(seen.header("x-request-id"), Some("mine"));
    });
}

/// A body that is no text is sent with its bad bytes replaced.
#[test]
fn bytes_are_replaced() {
    check(async |node: Node| {
        assert_eq!(ask(&node, &json!({"path": "/bytes"})).await["body"], "a\u{fffd}b");
    });
}

/// What cannot be read is 400 and says why.
#[test]
fn unreadable_objects_say_why() {
    check(async |node: Node| {
        for (text, why) in [
            ("{]", "key must be a string"),
            (r#"{"a" 1}"#, "expected `:`"),
            (r#"{"method":1}"#, "invalid type: integer `1`, expected a string"),
            (r#"{"method":"G T"}"#, "method: must be an HTTP method"),
            (r#"{"path":"api"}"#, "path \"api\": must start with /"),
            (r#"{"path":"/a b"}"#, "percent-encoded"),
            (r#"{"headers":[]}"#, "expected headers as an object"),
            (r#"{"headers":{"a":[]}}"#, "header values must be texts"),
            (r#"{"headers":{"a b":"x"}}"#, "\"a b\" is no header name"),
            (r#"{"headers":{"a":"x\ny"}}"#, "the value of header \"a\" is not allowed"),
            (r#"{"body":{}}"#, "invalid type: map, expected a string"),
            (r#"{"url":"http://"}"#, "is no URL"),
            ("{\"body\":\"\u{1}\"}", "control character"),
        ] {
            let answer = Raw::connect(node.addr).await.json(text).await;
            let (status, error) = error_of(&answer);
            assert_eq!(status, 400, "{text}: {answer}");
            assert!(error.contains(why), "{text}: {error}");
            assert_eq!(answer["headers"]["x-cellmesh-error"], "bad-request");
        }
        assert_eq!(node.seen_count(), 0);
    });
}

/// What is no object is refused, and nothing behind it is taken for one.
#[test]
fn nothing_is_read_behind_a_broken_object() {
    check(async |node: Node| {
        let mut client = Raw::connect(node.addr).await;
        client.send(r#"{} x {"path":"/hello"}"#).await;
        let statuses: Vec<Value> =
            answers(&client.rest().await).iter().map(|answer| answer["status"].clone()).collect();
        assert_eq!(statuses, [200, 400]);
    });
}

/// An object that ends too early, or does not come to an end, or nests too deep.
#[test]
fn endless_objects_are_refused() {
    let config = DpuConfig { json_timeout: TimeSpan::millis(500), ..DpuConfig::default() };
    check_with(config, async |node: Node| {
        let mut client = Raw::connect(node.addr).await;
        client.send(r#"{"path":"#).await;
        client.end_sending().await;
        assert_eq!(
            error_of(&client.json_rest().await),
            (400, "the connection ended inside the JSON object".to_owned())
        );
        let stalled = Raw::connect(node.addr).await.json(r#"{"path":"#).await;
        assert_eq!(error_of(&stalled), (400, "the JSON object was not complete within 500ms".to_owned()));
        let deep = Raw::connect(node.addr).await.json(&"{\"a\":".repeat(100)).await;
        assert_eq!(error_of(&deep), (400, "nested deeper than 64 levels".to_owned()));
        let level = |count: usize| format!("{{\"a\":{}{}}}", "[".repeat(count), "]".repeat(count));
        assert_eq!(Raw::connect(node.addr).await.json(&level(63)).await["status"], 200);
        assert_eq!(Raw::connect(node.addr).await.json(&level(64)).await["status"], 400);
        node.settled().await;
    });
}

/// The largest body passes both ways; one byte more is 413, and so is an object without end.
#[test]
fn body_limit_is_exact() {
    check(async |node: Node| {
        let limit = 16 * 1024 * 1024;
        let answer = ask(&node, &json!({"path": "/echo", "method": "POST", "body": "x".repeat(limit)})).await;
        assert_eq!(
            (answer["status"].as_u64(), answer["body"].as_str().map(str::len)),
            (Some(200), Some(limit))
        );
        let answer = ask(&node, &json!({"path": "/echo", "body": "x".repeat(limit + 1)})).await;
        assert_eq!(error_of(&answer), (413, "the body is longer than 16MiB".to_owned()));
        let mut client = Raw::connect(node.addr).await;
        client.try_send(format!("{{\"body\":\"{}", "x".repeat(limit + 1_000_000))).await;
        let (status, error) = error_of(&client.json_rest().await);
        assert!(status == 413 && error.starts_with("the JSON object is longer than "), "{status} {error}");
        assert_eq!(node.dpu.stats().buffered_bytes, 0);
    });
}

/// Services that nobody knows or serves, and cells that do not answer.
#[test]
fn faults_name_the_service() {
    let config = DpuConfig { request_timeout: TimeSpan::millis(500), ..DpuConfig::default() };
    check_with(config, async |node: Node| {
        let answer = ask(&node, &json!({"target_service": "nope"})).await;
        assert_eq!(error_of(&answer), (503, "no service \"nope\"".to_owned()));
        let answer = ask(&node, &json!({"url": "http://nope.ns/"})).await;
        assert_eq!(error_of(&answer), (503, "no service \"nope.ns\"".to_owned()));
        assert!(answer["headers"]["x-request-id"].as_str().is_some_and(|id| id.len() == 36), "{answer}");
        let headers = json!({"x-request-id": "mine", "cookie": "a=b"});
        let answer = ask(&node, &json!({"path": "/idle", "headers": headers})).await;
        assert_eq!(error_of(&answer), (503, "no worker serves \"idle\"".to_owned()));
        assert_eq!(
            answer["headers"],
            json!({
                "content-type": "application/json",
                "x-cellmesh-error": "no-worker",
                "x-request-id": "mine",
            })
        );
        let answer = ask(&node, &json!({"path": "/never"})).await;
        assert_eq!(error_of(&answer), (504, "service \"s0\" did not answer in time".to_owned()));
        let answer = ask(&node, &json!({"path": "/answer-head", "method": "POST", "body": "bad"})).await;
        assert_eq!(error_of(&answer).0, 502);
        assert_eq!((node.dpu.stats().refused, node.dpu.stats().bad_responses), (5, 1));
    });
}

/// A client that does not take its answer keeps nobody out: only the bytes of it count, and they have a bound.
#[test]
fn slow_readers_hold_no_places() {
    let config = DpuConfig { requests_max: 1, answer_bytes_max: ByteSize::mib(16), ..DpuConfig::default() };
    check_with(config, async |node: Node| {
        let large = json!({"path": "/echo", "method": "POST", "body": "x".repeat(15 << 20)}).to_string();
        let mut slow = Raw::connect(node.addr).await;
        slow.send(&large).await;
        node.until(|node| node.dpu.stats().answer_bytes > 15 << 20).await;
        let stats = node.dpu.stats();
        assert_eq!((stats.answered, stats.dispatched, stats.buffered_bytes), (1, 0, 0));
        assert_eq!(ask(&node, &json!({"path": "/hello"})).await["status"], 200);
        let answer =
            ask(&node, &json!({"path": "/echo", "method": "POST", "body": "x".repeat(2 << 20)})).await;
        assert_eq!(
            error_of(&answer),
            (503, "too many bytes of answers that clients have not taken".to_owned())
        );
        assert_eq!(slow.json_rest().await["status"], 200);
        node.until(|node| node.dpu.stats().answer_bytes == 0).await;
        assert_eq!(Raw::connect(node.addr).await.json(&large).await["status"], 200);
    });
}

/// Objects shed under load and with the bridge off.
#[test]
fn bridge_sheds_and_can_be_off() {
    let config = DpuConfig {
        buffered_bytes_max: ByteSize::kib(64),
        body_bytes_max: ByteSize::kib(64),
        ..DpuConfig::default()
    };
    check_with(config, async |node: Node| {
        let answer = ask(&node, &json!({"body": "x".repeat(70_000)})).await;
        assert_eq!((error_of(&answer).0, &answer["headers"]["retry-after"]), (503, &json!("1")));
    });
    let config = DpuConfig { json_bridge: false, ..DpuConfig::default() };
    check_with(config, async |node: Node| {
        let mut client = Raw::connect(node.addr).await;
        client.send("{}\r\n\r\n").await;
        assert_eq!(client.reply().await.status, 400);
    });
}
