//! Many clients at once for a while: no error, nothing grows, and nothing stays. `CELLMESH_SOAK_ROUNDS=100` makes it minutes.

use cellmesh_tests::{Node, Run, Usage, Wire};
use serde_json::json;

const CLIENTS: usize = 64;
/// Of each client, in each round.
const REQUESTS: usize = 30;

/// A request of the mix: service, target, body, and the length of the answer where it is known.
const MIX: [(&str, &str, usize, Option<usize>); 8] = [
    ("hello", "/", 0, Some(6)),
    ("front", "/echo", 300, Some(300)),
    ("front", "/echo-bytes", 40_000, Some(40_000)),
    ("front", "/step/nothing", 0, Some(5)),
    ("front", "/pipe?url=http://back/&url=http://hello/&url=http://back/reflect", 0, None),
    ("front", "/order?url=http://back/order?url=http://hello/", 0, Some(6)),
    ("back", "/step/spin:3", 0, Some(5)),
    ("s0", "/api/v1", 0, None),
];

fn node() -> Node {
    let entry = json!({
        "external_services": [{"services": ["back"]}, {"services": ["hello", "hello__2"]}],
        "internal_service": {"loader": {"sleep_stress": {"run": true, "sleep_time": 0.002}, "mean_response_size": 0.5}},
    });
    let toml = format!(
        r#"
        [[cell]]
        component = "{{cells}}/hello.wasm"
        services = ["hello"]
        [[cell]]
        component = "{{cells}}/unruly.wasm"
        services = ["front", "back"]
        handler_timeout = "20s"
        [[cell]]
        component = "{{cells}}/mubench.wasm"
        services = ["s0"]
        handler_timeout = "20s"
        [cell.config]
        "mubench.service" = '{entry}'
        "mubench.services" = '["s0", "back", "hello"]'
        "mubench.paths" = '{{"back": "/", "hello": "/"}}'
        "#
    );
    Run::app(&toml).start()
}

/// One client: its requests one after the other, over a connection that it keeps, or a new one for each.
fn client(node: &Node, number: usize) {
    let mut kept = node.connect();
    for turn in 0..REQUESTS {
        let (service, target, body, expected) = MIX[(number + turn) % MIX.len()];
        let mut fresh = number.is_multiple_of(4).then(|| node.connect());
        let wire: &mut Wire = fresh.as_mut().unwrap_or(&mut kept);
        let reply =
            if body == 0 { wire.get(service, target) } else { wire.post(service, target, vec![b'x'; body]) };
        assert_eq!(reply.status, 200, "{service}{target}: {:?}", String::from_utf8_lossy(&reply.body));
        assert!(
            expected.is_none_or(|length| reply.body.len() == length),
            "{service}{target}: {}",
            reply.body.len()
        );
    }
}

fn round(node: &Node) -> Usage {
    std::thread::scope(|scope| {
        for number in 0..CLIENTS {
            scope.spawn(move || client(node, number));
        }
    });
    node.usage()
}

/// Sixty-four clients, thousands of requests of all kinds: each is answered right; afterwards the node has as many
/// descriptors and threads as before, and hardly more memory.
#[test]
fn nothing_fails_and_nothing_grows() {
    let node = node();
    let warm = [round(&node), round(&node)][1];
    let rounds = std::env::var("CELLMESH_SOAK_ROUNDS").map_or(2, |rounds| rounds.parse().expect("a number"));
    let last = (0..rounds).map(|_| round(&node)).last().expect("at least one round");
    node.until("as many descriptors as after the first rounds", |node| {
        node.usage().descriptors <= warm.descriptors.min(last.descriptors) + 2
    });
    assert_eq!(last.threads, warm.threads);
    let grown = last.anonymous_bytes.saturating_sub(warm.anonymous_bytes);
    assert!(grown < 48 << 20, "{grown} bytes more than after {} requests", 2 * CLIENTS * REQUESTS);
    println!("{} requests more: {warm:?}, then {last:?}", rounds * CLIENTS * REQUESTS);
    assert!(!node.log().text().contains("ERROR"), "errors in the log");
}

/// What hundreds of slow clients took goes back to the system when they have left, though nobody asks for anything.
#[test]
fn waves_give_their_memory_back() {
    const SLOW: usize = 600;
    let node = node();
    assert_eq!(node.get("hello", "/").status, 200);
    let before = node.usage().anonymous_bytes;
    let slow: Vec<Wire> = (0..SLOW)
        .map(|_| {
            let mut wire = node.connect();
            wire.send("POST / HTTP/1.1\r\nhost: hello\r\ncontent-length: 1000\r\n\r\nabc");
            wire
        })
        .collect();
    node.until("each has taken some KiB", |node| {
        node.usage().anonymous_bytes > before + SLOW as u64 * 8 * 1024
    });
    let most = node.usage().anonymous_bytes;
    drop(slow);
    node.until("most of it is given back", |node| {
        node.usage().anonymous_bytes < before + (most - before) / 4
    });
}
