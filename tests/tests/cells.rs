//! The cells that come with cellmesh, as a newcomer runs them.

use cellmesh_tests::Run;

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
