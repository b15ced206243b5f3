//! Tokens: who may ask a service, and for what.

use std::net::SocketAddr;

use cellmesh_tests::upstream::nobody;
use cellmesh_tests::{Node, Reply, Run, sample};
use serde_json::{Value, json};

const JWKS: &str = include_str!("../../daemons/dpu/src/policy/jwt/testdata/jwks.json");

/// `{ name: token }`; the names of the keys are those of the tokens that they have signed.
fn token(name: &str) -> String {
    let tokens: Value =
        serde_json::from_str(include_str!("../../daemons/dpu/src/policy/jwt/testdata/tokens.json"))
            .expect("JSON");
    tokens[name].as_str().expect("a token").to_owned()
}

/// The key set without one key.
fn without(id: &str) -> String {
    let mut set: Value = serde_json::from_str(JWKS).expect("JSON");
    set["keys"].as_array_mut().expect("a list").retain(|key| key["kid"] != id);
    set.to_string()
}

/// Services `front` and `back`, of which `back` wants tokens.
fn app(admin: SocketAddr) -> Run {
    Run::app(&format!(
        r#"
        [admin]
        listen = "{admin}"
        [service.back.jwt]
        jwks = "jwks.json"
        issuer = "https://issuer.example"
        audience = ["shop"]
        public = ["/echo"]
        rules = [{{ path = "/count", claim = "role", values = ["admin"] }}]
        [[cell]]
        component = "{{cells}}/unruly.wasm"
        services = ["front", "back"]
        "#
    ))
    .with_file("jwks.json", JWKS)
}

fn ask(node: &Node, path: &str, name: &str) -> Reply {
    let mut wire = node.connect();
    wire.send(format!("GET {path} HTTP/1.1\r\nhost: back\r\nauthorization: Bearer {}\r\n\r\n", token(name)));
    wire.reply()
}

/// Status, code, and what would help.
fn refusal(reply: &Reply) -> (u16, &str, &str) {
    let header = |name| reply.header(name).unwrap_or_default();
    (reply.status, header("x-cellmesh-error"), header("www-authenticate"))
}

/// A good token opens the service, none or a bad one does not, and a rule asks for more; other services do not mind.
#[test]
fn tokens_open_a_service() {
    let admin = nobody();
    let node = app(admin).start();
    assert_eq!(refusal(&node.get("back", "/")), (401, "token-missing", "Bearer"));
    let expired = "Bearer error=\"invalid_token\", error_description=\"it has expired\"";
    assert_eq!(refusal(&ask(&node, "/", "expired")), (401, "token-invalid", expired));
    let more = "Bearer error=\"insufficient_scope\"";
    for path in ["/count", "/x/..%2fcount", "//count"] {
        assert_eq!(refusal(&ask(&node, path, "ed")), (403, "token-claim", more), "{path}");
    }
    assert_eq!(ask(&node, "/count", "admin").status, 200);
    for name in ["ed", "rsa", "ec"] {
        assert_eq!(ask(&node, "/", name).ok().text(), "ok\n", "{name}");
    }
    assert_eq!(node.get("back", "/echo").status, 200, "it is public");
    assert_eq!(node.get("front", "/").ok().text(), "ok\n");
    for (reason, count) in [("token", 2), ("claim", 3), ("rate", 0)] {
        let name = format!("policy_refused_total{{service=\"back\",reason=\"{reason}\"}}");
        assert_eq!(sample(admin, &name), count, "{name}");
    }
}

/// Without a token nobody gets as far as sending a body, cells are asked for one too, and so are objects of the JSON bridge.
#[test]
fn everybody_is_asked_for_a_token() {
    let node = app(nobody()).start();
    let mut wire = node.connect();
    wire.send("POST /echo-bytes HTTP/1.1\r\nhost: back\r\ncontent-length: 1000000\r\n\r\n");
    assert_eq!(refusal(&wire.reply()), (401, "token-missing", "Bearer"), "before the body");

    let line = node.get("front", "/order?tolerant&url=http://back/").ok().text().to_owned();
    assert!(line.starts_with("401 "), "{line}");
    let mut object = json!({"path": "/", "target_service": "back"});
    let refused = node.bridge(&object);
    assert_eq!(
        (&refused["status"], &refused["headers"]["www-authenticate"]),
        (&json!(401), &json!("Bearer"))
    );
    object["headers"] = json!({"Authorization": format!("Bearer {}", token("ec"))});
    assert_eq!(node.bridge(&object)["body"], "ok\n");
}

/// Keys that are replaced hold without a restart; a file that has none is refused, and the old ones stay.
#[test]
fn keys_are_followed() {
    let node = app(nobody()).start();
    let write = |text: &str| std::fs::write(node.dir().join("jwks.json"), text).expect("a file");
    assert_eq!(ask(&node, "/", "ec").status, 200);
    write(&without("ec"));
    node.until("the key is gone", |node| ask(node, "/", "ec").status == 401);
    assert_eq!(ask(&node, "/", "rsa").status, 200);
    let _ = node.log().wait_for("the change", |line| line["changed"] == "service.back.jwt.jwks (keys)");
    write("{\"keys\": []}");
    let _ = node.log().wait_for("the refusal", |line| line["message"] == "config refused, the old one stays");
    // It may have been read half written; what is wrong with it then is told when it is tried again.
    node.until("the reason", |node| node.log().text().contains("jwks.json has no key for signatures"));
    assert_eq!((ask(&node, "/", "rsa").status, ask(&node, "/", "ec").status), (200, 401));
    write(JWKS);
    node.until("the key is back", |node| ask(node, "/", "ec").status == 200);
}

/// A config that is read while its file of keys is broken holds as soon as that is whole again, without another word to the
/// process; until then the old one does, and the log says once what is wrong.
#[test]
fn refused_config_is_tried_again() {
    const REFUSED: &str = "config refused, the old one stays";
    let text = |extra: &str| {
        format!(
            "[runtime]\nwatch = false\n[service.back]\n{extra}\n[service.back.jwt]\njwks = \"jwks.json\"\n\
             [[cell]]\ncomponent = \"{{cells}}/unruly.wasm\"\nservices = [\"back\"]\n"
        )
    };
    let node = Run::app(&text("")).with_file("jwks.json", JWKS).start();
    let write = |text: &str| std::fs::write(node.dir().join("jwks.json"), text).expect("a file");
    let refusals = |node: &Node| node.log().messages_of("message", REFUSED).len();
    let is_marked = |node: &Node| ask(node, "/", "ec").header("x-new") == Some("yes");
    write("half a fi");
    node.replace_app(&text("response_headers = { add = { x-new = \"yes\" } }"));
    node.signal(rustix::process::Signal::HUP);
    node.until("the refusal", |node| refusals(node) > 0);
    assert_eq!((ask(&node, "/", "ec").status, is_marked(&node)), (200, false));
    // The file of keys is told by itself, once, unless it is the hangup that finds it first.
    let _ = node.log().wait_for("the keys", |line| {
        line["message"].as_str().is_some_and(|text| text.contains("is no JSON Web Key Set"))
    });
    write(JWKS);
    node.until("the new config", is_marked);
    assert!(refusals(&node) <= 2, "{}", node.log().text());
}

/// A file of keys that cannot be used, and rules that could not be kept, are told before anything is bound.
#[test]
fn bad_policies_are_told() {
    let toml = r#"
        [service.back.jwt]
        jwks = "missing.json"
        rules = [{ path = "/admin/", claim = "role", values = ["admin"] }]
        [[cell]]
        component = "{cells}/unruly.wasm"
        services = ["back"]
        "#;
    let told = Run::app(toml).check();
    assert_eq!(told.code, Some(2), "{}", told.stderr);
    for problem in [
        "app.toml:4: service.back.jwt.rules: \"/admin/\" does not fit; must be a path such as \"/admin\"",
        "app.toml:3: service.back.jwt.jwks: ",
        "missing.json cannot be read: No such file",
    ] {
        assert!(told.stderr.contains(problem), "{problem} in {}", told.stderr);
    }
}
