//! The cells that come with cellmesh, as a newcomer runs them.

use cellmesh_tests::{Node, Run};
use serde_json::json;

const HELLO: &str = r#"
    name = "greetings"
    [[cell]]
    component = "{cells}/hello.wasm"
    services = ["hello"]
"#;

/// The smallest application serves, and says at the start what to type.
#[test]
fn hello_answers_as_the_greeting_says() {
    let node = Run::app(HELLO).start();
    let greeting = node.greeting();
    assert!(
        greeting.starts_with(&format!("greetings: 1 services on http://{}\n", node.address())),
        "{greeting}"
    );
    assert!(greeting.contains(&format!("try: curl http://{}/", node.address())), "{greeting}");
    let reply = node.get("localhost", "/").ok();
    assert_eq!((reply.text(), reply.header("content-type")), ("hello\n", Some("text/plain; charset=utf-8")));
}

/// The cell for fan-out and fan-in, asking `prices` and itself. `price`: what the config says of the URL.
fn shop(price: &str) -> Node {
    Run::app(&format!(
        r#"
        [[cell]]
        component = "{{cells}}/fanout.wasm"
        services = ["shop"]
        config = {{ "fanout.price" = "{price}", "fanout.stock" = "http://stock/config?key=stock" }}
        [[cell]]
        component = "{{cells}}/unruly.wasm"
        services = ["prices", "stock"]
        config = {{ price = "12", stock = "0" }}
        "#
    ))
    .start()
}

/// Answers of several services are joined; a call that is made of earlier answers is sent with them.
#[test]
fn fan_out_joins_what_all_services_say() {
    let toml = "[[cell]]\ncomponent = \"{cells}/fanout.wasm\"\nservices = [\"shop\"]\n";
    let alone = Run::app(toml).start();
    let offer = alone.get("shop", "/?item=tea").ok();
    assert_eq!(offer.header("content-type"), Some("application/json"));
    let expected = json!({"wanted": "item=tea", "price": "7", "stock": "3", "delivery": "tomorrow"});
    assert_eq!(offer.json(), expected);
}

/// A builder that makes no call skips its step: nothing is delivered of what is not there.
#[test]
fn fan_out_skips_a_call_that_is_not_needed() {
    let node = shop("http://prices/config?key=price");
    let expected = json!({"wanted": "", "price": "12", "stock": "0", "delivery": ""});
    assert_eq!(node.get("shop", "/").ok().json(), expected);
}

/// A callee that fails is the answer; what would have come after it does not run.
#[test]
fn fan_out_fails_with_its_callee() {
    let reply = shop("http://prices/answer?status=404").get("shop", "/");
    assert_eq!((reply.status, reply.text()), (404, "as asked\n"));
    let reply = shop("http://nobody/").get("shop", "/");
    assert_eq!(reply.status, 503);
    assert!(reply.error().contains("nobody"), "{}", reply.error());
}
