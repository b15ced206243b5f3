use std::net::{SocketAddr, TcpListener};

use cellmesh_dpu::{Acceptor, ConnectionCaps, DpuConfig};
use tokio::net::TcpSocket;
use tokio::task::spawn_local;

use crate::client::Raw;
use crate::node::{Node, check_with};

/// Two lanes share what is accepted: each new connection goes where fewest are open.
#[test]
fn connections_go_to_the_lane_with_the_fewest() {
    check_with(DpuConfig::default(), async |first: Node| {
        let second = Node::start(DpuConfig::default()).await;
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let addr = listener.local_addr().expect("bound");
        let (acceptor, intakes) = Acceptor::new(listener, 2, &DpuConfig::default());
        for (intake, node) in intakes.into_iter().zip([&first, &second]) {
            spawn_local(intake.serve(node.dpu.clone()));
        }
        let accepting = spawn_local(acceptor.run());
        let open = |node: &Node| node.dpu.stats().connections_open;
        let mut clients = Vec::new();
        for count in 1..=10_u32 {
            let mut client = Raw::connect(addr).await;
            assert_eq!(client.get("/hello").await.status, 200);
            clients.push(client);
            assert_eq!((open(&first), open(&second)), (count.div_ceil(2), count / 2));
        }
        clients.drain(..).step_by(2).for_each(drop);
        first.settled().await;
        second.settled().await;
        accepting.abort();
    });
}

/// An acceptor with this config, two connections to it that are served, and its caps.
async fn full(node: &Node, config: DpuConfig) -> (SocketAddr, [Raw; 2], ConnectionCaps) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addr = listener.local_addr().expect("bound");
    let (acceptor, mut intakes) = Acceptor::new(listener, 1, &config);
    spawn_local(intakes.remove(0).serve(node.dpu.clone()));
    let caps = acceptor.caps();
    spawn_local(acceptor.run());
    let mut kept = [Raw::connect(addr).await, Raw::connect(addr).await];
    for client in &mut kept {
        assert_eq!(client.get("/hello").await.status, 200);
    }
    (addr, kept, caps)
}

/// Beyond the cap a client is told at once; a connection that closes makes room.
#[test]
fn connections_are_capped() {
    check_with(DpuConfig::default(), async |node: Node| {
        let (addr, kept, _) = full(&node, DpuConfig { connections_max: 2, ..DpuConfig::default() }).await;
        let mut refused = Raw::connect(addr).await;
        let reply = refused.reply().await;
        assert_eq!((reply.status, reply.error()), (503, "too many connections".to_owned()));
        refused.expect_close().await;
        drop(kept);
        node.settled().await;
        assert_eq!(Raw::connect(addr).await.get("/hello").await.status, 200);
    });
}

/// A cap can be changed while connections are accepted; open ones stay.
#[test]
fn caps_can_be_changed() {
    check_with(DpuConfig::default(), async |node: Node| {
        let (addr, mut kept, caps) = full(&node, DpuConfig::default()).await;
        caps.set(&DpuConfig { connections_max: 1, ..DpuConfig::default() });
        assert_eq!(Raw::connect(addr).await.reply().await.status, 503);
        assert_eq!(kept[0].get("/hello").await.status, 200);
        caps.set(&DpuConfig { connections_max: 3, ..DpuConfig::default() });
        assert_eq!(Raw::connect(addr).await.get("/hello").await.status, 200);
    });
}

/// An address that has as many connections as one may is told at once; others are served.
#[test]
fn connections_of_one_address_are_capped() {
    check_with(DpuConfig::default(), async |node: Node| {
        let (addr, kept, _) =
            full(&node, DpuConfig { connections_per_address_max: 2, ..DpuConfig::default() }).await;
        let reply = Raw::connect(addr).await.reply().await;
        assert_eq!((reply.status, reply.error()), (503, "too many connections from your address".to_owned()));
        let other = TcpSocket::new_v4().expect("a socket");
        other.bind("127.0.0.2:0".parse().expect("an address")).expect("of this machine");
        let mut other = Raw::on(other.connect(addr).await.expect("the node listens"));
        assert_eq!(other.get("/hello").await.status, 200);
        drop((kept, other));
        node.settled().await;
        assert_eq!(Raw::connect(addr).await.get("/hello").await.status, 200);
    });
}

/// An acceptor that stops closes its port; what is open goes on.
#[test]
fn stopped_acceptor_closes_the_port() {
    check_with(DpuConfig::default(), async |node: Node| {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let addr = listener.local_addr().expect("bound");
        let (acceptor, mut intakes) = Acceptor::new(listener, 1, &DpuConfig::default());
        let serving = spawn_local(intakes.remove(0).serve(node.dpu.clone()));
        let accepting = spawn_local(acceptor.run());
        let mut client = Raw::connect(addr).await;
        assert_eq!(client.get("/hello").await.status, 200);
        accepting.abort();
        crate::client::soon("intake", serving).await.expect("no panic");
        assert!(tokio::net::TcpStream::connect(addr).await.is_err());
        assert_eq!(client.get("/hello").await.status, 200);
    });
}
