//! Clients that leave: nothing of them stays.

use cellmesh_dpu::DpuConfig;

use crate::client::Raw;
use crate::node::{Node, check, check_with};

/// A client that leaves during its call cancels it, as far as the worker; all places are free again.
#[test]
fn disconnect_cancels_the_call() {
    check_with(DpuConfig { requests_max: 4, ..DpuConfig::default() }, async |node: Node| {
        for round in 1..=20 {
            let mut clients = Vec::new();
            for _ in 0..4 {
                let mut client = Raw::connect(node.addr).await;
                client.send("GET /never HTTP/1.1\r\nhost: node\r\n\r\n").await;
                clients.push(client);
            }
            node.until(|node| node.seen_count() == 4 * round).await;
            drop(clients);
            node.settled().await;
            node.until(|node| node.cancelled_count() == 4 * round).await;
        }
        assert_eq!(node.dpu.stats().abandoned, 80);
        assert_eq!(Raw::connect(node.addr).await.get("/hello").await.status, 200);
    });
}

/// A client that leaves inside its body, or inside its head, leaves nothing.
#[test]
fn disconnect_inside_a_request_leaves_nothing() {
    check(async |node: Node| {
        for start in [
            "",
            "GET /he",
            "POST /echo HTTP/1.1\r\nhost: node\r\ncontent-length: 100\r\n\r\nabc",
            "POST /echo HTTP/1.1\r\nhost: node\r\ntransfer-encoding: chunked\r\n\r\n5\r\nab",
            "{\"path\":",
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        ] {
            let mut client = Raw::connect(node.addr).await;
            client.send(start).await;
            node.until(|node| node.dpu.stats().connections_open == 1).await;
            drop(client);
            node.until(|node| node.dpu.stats().connections_open == 0).await;
            node.settled().await;
        }
        assert_eq!(node.seen_count(), 0);
    });
}

/// A JSON client that leaves is answered into the void, and nothing stays.
#[test]
fn json_client_that_leaves_leaves_nothing() {
    check(async |node: Node| {
        let mut client = Raw::connect(node.addr).await;
        client.send(r#"{"path":"/never"}"#).await;
        node.until(|node| node.seen_count() == 1).await;
        drop(client);
        node.answer_all_held();
        node.settled().await;
    });
}
