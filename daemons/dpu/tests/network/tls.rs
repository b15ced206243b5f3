//! The listener with TLS: handshakes, and that behind them everything is as in cleartext.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use cellmesh_dpu::config::{ClientCa, TlsConfig};
use cellmesh_dpu::units::TimeSpan;
use cellmesh_dpu::{Acceptor, DpuConfig, Tls};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, HandshakeKind};
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::task::spawn_local;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::client::{Raw, soon};
use crate::node::{Node, check_with};
use crate::pki::Ca;

/// A node with both listeners.
struct Secured {
    node: Node,
    /// Where TLS is spoken.
    addr: SocketAddr,
    cleartext: SocketAddr,
    /// Who signed the node's certificate, and signs those of clients.
    ca: Ca,
    folder: TempDir,
    tls: Tls,
}

/// What is asked of clients.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Clients {
    Anybody,
    Optional,
    Required,
}

fn check(config: DpuConfig, clients: Clients, test: impl AsyncFnOnce(Secured)) {
    check_within(TlsConfig::HANDSHAKE_TIMEOUT, config, clients, test);
}

/// Runs `test` on such a node with this handshake timeout.
fn check_within(
    handshake_timeout: TimeSpan,
    config: DpuConfig,
    clients: Clients,
    test: impl AsyncFnOnce(Secured),
) {
    let (ca, folder) = (Ca::new(), tempfile::tempdir().expect("a temporary folder"));
    ca.sign("node").write(folder.path());
    let file = folder.path().join("ca.crt");
    std::fs::write(&file, ca.certificate.pem()).expect("writable");
    let listener = || TcpListener::bind("127.0.0.1:0").expect("a free port");
    let (cleartext, encrypted) = (listener(), listener());
    let addr = |listener: &TcpListener| listener.local_addr().expect("bound");
    let tls = TlsConfig {
        listen: addr(&encrypted),
        certificate: folder.path().join("tls.crt"),
        key: folder.path().join("tls.key"),
        clients: (clients != Clients::Anybody)
            .then_some(ClientCa { file, required: clients == Clients::Required }),
        handshake_timeout,
    };
    check_with(config.clone(), async |node| {
        let tls = Tls::load(&tls).expect("good files");
        let (addr, plain) = (addr(&encrypted), addr(&cleartext));
        let (acceptor, mut intakes) = Acceptor::new(cleartext, 1, &config);
        spawn_local(intakes.remove(0).serve(node.dpu.clone()));
        spawn_local(acceptor.with_tls(encrypted, tls.clone()).run());
        test(Secured { node, addr, cleartext: plain, ca, folder, tls }).await;
    });
}

async fn shake(addr: SocketAddr, client: Arc<ClientConfig>) -> std::io::Result<Raw<TlsStream<TcpStream>>> {
    let tcp = TcpStream::connect(addr).await.expect("listening");
    tcp.set_nodelay(true).expect("connected");
    let name = ServerName::try_from("node").expect("a name");
    soon("handshake", TlsConnector::from(client).connect(name, tcp)).await.map(Raw::over)
}

impl Secured {
    /// A client without a certificate.
    async fn connect(&self) -> Raw<TlsStream<TcpStream>> {
        shake(self.addr, self.ca.client(&["http/1.1"], None)).await.expect("good certificates")
    }

    fn failed(&self) -> u64 {
        self.node.dpu.stats().tls_failed
    }
}

/// Requests of all sizes on one connection, and several connections.
#[test]
fn requests_are_served() {
    check(DpuConfig::default(), Clients::Anybody, async |node| {
        let mut client = node.connect().await;
        assert_eq!(client.get("/hello").await.text(), "hello");
        for length in [0, 1, 16 * 1024, 100_000, 16 * 1024 * 1024] {
            let body: Vec<u8> = (0..=u8::MAX).cycle().take(length).collect();
            assert!(client.post("/echo", &body).await.body == body, "{length} bytes are not the same");
        }
        assert_eq!(node.connect().await.get("/hello").await.text(), "hello");
        assert_eq!(Raw::connect(node.cleartext).await.get("/hello").await.text(), "hello");
        drop(client);
        node.node.settled().await;
        assert_eq!(node.failed(), 0);
    });
}

/// HTTP/2 is chosen where the client can speak it; who names no protocol may speak any, the bridge's too; who names only
/// others is refused.
#[test]
fn protocol_is_agreed_upon() {
    check(DpuConfig::default(), Clients::Anybody, async |node| {
        for (offer, agreed) in [
            (&["h2", "http/1.1"][..], Some(&b"h2"[..])),
            (&["http/1.1", "h2"], Some(b"h2")),
            (&["http/1.1"], Some(b"http/1.1")),
            (&[], None),
        ] {
            let client = shake(node.addr, node.ca.client(offer, None)).await.expect("a handshake");
            assert_eq!(client.stream.get_ref().1.alpn_protocol(), agreed, "{offer:?}");
        }
        let error = shake(node.addr, node.ca.client(&["smtp"], None)).await.err().expect("refused");
        assert!(error.to_string().contains("NoApplicationProtocol"), "{error}");
        let mut bridge = shake(node.addr, node.ca.client(&[], None)).await.expect("a handshake");
        assert_eq!(bridge.json(r#"{"path":"/hello"}"#).await["body"], "hello");
        node.node.until(|_| node.failed() == 1).await;
    });
}

/// Two requests in one go, and objects of the bridge too: what TLS has decrypted ahead is not forgotten.
#[test]
fn what_comes_together_is_answered() {
    check(DpuConfig::default(), Clients::Anybody, async |node| {
        let mut client = node.connect().await;
        client.send("GET /one HTTP/1.1\r\nhost: node\r\n\r\nGET /two HTTP/1.1\r\nhost: node\r\n\r\n").await;
        assert_eq!((client.reply().await.text(), client.reply().await.text()), ("/one", "/two"));
        let mut bridge = shake(node.addr, node.ca.client(&[], None)).await.expect("a handshake");
        bridge.send(r#"{"path":"/one"}{"path":"/two"}"#).await;
        let answers = bridge.rest().await;
        let answers = String::from_utf8(answers).expect("text");
        assert!(answers.contains(r#""body":"/one""#) && answers.contains(r#""body":"/two""#), "{answers}");
    });
}

/// HTTP in cleartext is told what would be right; other bytes are closed; both are counted, silence is not.
#[test]
fn cleartext_is_refused() {
    check(DpuConfig::default(), Clients::Anybody, async |node| {
        for start in ["GET / HTTP/1.1\r\nhost: node\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
            let mut client = Raw::connect(node.addr).await;
            client.send(start).await;
            let reply = client.reply().await;
            assert_eq!((reply.status, reply.header("connection")), (400, Some("close")));
            assert!(reply.error().contains("https://"), "{}", reply.error());
            client.expect_close().await;
        }
        for start in [&b"{\"path\":\"/\"}"[..], b"\0\0\0\0", b"\xff", b"\r\n"] {
            let mut client = Raw::connect(node.addr).await;
            client.send(start).await;
            client.expect_close().await;
        }
        assert_eq!(node.failed(), 6);
        drop(Raw::connect(node.addr).await);
        node.node.settled().await;
        assert_eq!((node.failed(), node.node.seen_count()), (6, 0));
    });
}

/// What begins like a handshake and is none gets an alert at most, and a close.
#[test]
fn garbage_handshakes_are_refused() {
    check(DpuConfig::default(), Clients::Anybody, async |node| {
        let mut client = Raw::connect(node.addr).await;
        client.send([b"\x16\x03\x01\x00\x20\x01\x00\x00\x1c\x03\x03", &[7; 26][..]].concat()).await;
        let alert = client.rest().await;
        assert!(alert.is_empty() || alert[0] == 21, "{alert:?}");
        let mut client = Raw::connect(node.addr).await;
        client.send(vec![0x16; 100_000]).await;
        let alert = client.rest().await;
        assert!(alert.is_empty() || alert[0] == 21, "{alert:?}");
        node.node.until(|_| node.failed() == 2).await;
        node.node.settled().await;
        assert_eq!(node.connect().await.get("/hello").await.text(), "hello");
    });
}

/// A client that comes again resumes its session, unless clients are asked for certificates: those are looked at each time, or
/// one that has ended would go on.
#[test]
fn sessions_are_resumed_unless_clients_are_known() {
    for (clients, resumes) in
        [(Clients::Anybody, true), (Clients::Optional, false), (Clients::Required, false)]
    {
        check(DpuConfig::default(), clients, async |node| {
            let client = node.ca.client(&["http/1.1"], Some(&node.ca.sign("client")));
            let mut kinds = Vec::new();
            for _ in 0..3 {
                let mut connection = shake(node.addr, Arc::clone(&client)).await.expect("good certificates");
                // Tickets come behind the handshake.
                assert_eq!(connection.get("/hello").await.text(), "hello");
                kinds.push(connection.stream.get_ref().1.handshake_kind().expect("shaken"));
            }
            assert_ne!(kinds[0], HandshakeKind::Resumed);
            assert_eq!(kinds[2] == HandshakeKind::Resumed, resumes, "{kinds:?}");
        });
    }
}

/// Clients that do not finish the handshake are cut when its time is over, while others are served.
#[test]
fn slow_handshakes_are_cut() {
    let config = DpuConfig::default();
    check_within(TimeSpan::secs(2), config, Clients::Anybody, async |node| {
        let mut slow = Vec::new();
        for start in [&b""[..], b"\x16", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"] {
            let mut client = Raw::connect(node.addr).await;
            client.send(start).await;
            slow.push(client);
        }
        assert_eq!(node.connect().await.get("/hello").await.text(), "hello");
        for client in &mut slow {
            client.expect_close().await;
        }
        node.node.settled().await;
        assert_eq!(node.failed(), 2);
    });
}

/// The time for a head runs from accept: who shakes hands and then says nothing is cut too, and so is half a head.
#[test]
fn slow_heads_are_cut() {
    let config = DpuConfig { header_read_timeout: TimeSpan::secs(2), ..DpuConfig::default() };
    check(config, Clients::Anybody, async |node| {
        let mut silent = node.connect().await;
        let mut half = node.connect().await;
        half.send("GET /hello HT").await;
        silent.expect_close().await;
        half.expect_close().await;
        Raw::connect(node.addr).await.expect_close().await;
        node.node.settled().await;
        assert_eq!((node.node.seen_count(), node.failed()), (0, 0));
    });
}

/// A client that takes nothing of its answer is cut, although TLS has taken some of it.
#[test]
fn slow_readers_are_cut() {
    let config = DpuConfig { write_idle_timeout: TimeSpan::millis(50), ..DpuConfig::default() };
    check(config, Clients::Anybody, async |node| {
        let mut client = node.connect().await;
        client.send("GET /big HTTP/1.1\r\nhost: node\r\n\r\n").await;
        node.node.until(|node| node.seen_count() == 1).await;
        node.node.settled().await;
        assert!(client.rest().await.len() < 16 * 1024 * 1024);
    });
}

/// A client that leaves cancels what it asked for, with a word of goodbye and without.
#[test]
fn departure_is_noticed() {
    check(DpuConfig::default(), Clients::Anybody, async |node| {
        for (count, says_goodbye) in [(1, true), (2, false)] {
            let mut client = node.connect().await;
            client.send("GET /never HTTP/1.1\r\nhost: node\r\n\r\n").await;
            node.node.until(|node| node.seen_count() == count).await;
            if says_goodbye {
                client.end_sending().await;
            }
            drop(client);
            node.node.until(|node| node.cancelled_count() == count).await;
        }
        node.node.settled().await;
    });
}

/// Who sends far too much reads its 413 and not a reset.
#[test]
fn answer_survives_an_endless_sender() {
    check(DpuConfig::default(), Clients::Anybody, async |node| {
        let mut client = node.connect().await;
        client.send("POST /echo HTTP/1.1\r\nhost: node\r\ncontent-length: 20000000\r\n\r\n").await;
        client.try_send(vec![b'x'; 4_000_000]).await;
        assert_eq!(client.reply().await.status, 413);
    });
}

/// A drain closes what is idle and what has not shaken hands yet, and finishes what is in flight.
#[test]
fn drain_finishes_what_is_in_flight() {
    check(DpuConfig::default(), Clients::Anybody, async |node| {
        let mut silent = Raw::connect(node.addr).await;
        let mut idle = node.connect().await;
        assert_eq!(idle.get("/hello").await.status, 200);
        let mut busy = node.connect().await;
        busy.send("GET /never HTTP/1.1\r\nhost: node\r\n\r\n").await;
        node.node.until(|node| node.seen_count() == 2 && node.dpu.stats().connections_open == 3).await;
        let drained = spawn_local(node.node.dpu.drain());
        idle.expect_close().await;
        silent.expect_close().await;
        assert!(!drained.is_finished());
        node.node.answer_all_held();
        assert_eq!(busy.reply().await.status, 200);
        busy.expect_close().await;
        soon("drain", drained).await.expect("no panic");
        let mut late = node.connect().await;
        assert_eq!(late.get("/hello").await.header("x-cellmesh-error"), Some("draining"));
    });
}

/// Both listeners count together; who is one too many is closed before the handshake.
#[test]
fn connections_are_capped() {
    for config in [
        DpuConfig { connections_max: 2, ..DpuConfig::default() },
        DpuConfig { connections_per_address_max: 2, ..DpuConfig::default() },
    ] {
        check(config, Clients::Anybody, async |node| {
            let mut kept = (node.connect().await, Raw::connect(node.cleartext).await);
            assert_eq!(kept.0.get("/hello").await.status, 200);
            assert_eq!(kept.1.get("/hello").await.status, 200);
            Raw::connect(node.addr).await.expect_close().await;
            assert_eq!(Raw::connect(node.cleartext).await.reply().await.status, 503);
            drop(kept);
            node.node.settled().await;
            assert_eq!(node.connect().await.get("/hello").await.status, 200);
        });
    }
}

/// Where certificates are required nobody comes in without a good one, and cells are told whose it was.
#[test]
fn certificates_of_clients_are_required() {
    check(DpuConfig::default(), Clients::Required, async |node| {
        let known = node.ca.sign("client");
        let mut client = shake(node.addr, node.ca.client(&[], Some(&known))).await.expect("a handshake");
        assert_eq!(client.get("/hello").await.status, 200);
        let digest = format!("{:x}", Sha256::digest(known.certificate.der()));
        assert_eq!(node.node.last_seen().header("x-client-cert-sha256"), Some(&*digest));
        let unknown = Ca::new().sign("client");
        for own in [None, Some(&unknown)] {
            // In TLS 1.3 a client is done before the server has judged it.
            if let Ok(mut client) = shake(node.addr, node.ca.client(&[], own)).await {
                client.try_send("GET /hello HTTP/1.1\r\nhost: node\r\n\r\n").await;
                client.expect_close().await;
            }
        }
        node.node.until(|_| node.failed() == 2).await;
        assert_eq!(node.node.seen_count(), 1);
    });
}

/// Where they are optional a client may have none, but not a bad one.
#[test]
fn certificates_of_clients_are_optional() {
    check(DpuConfig::default(), Clients::Optional, async |node| {
        assert_eq!(node.connect().await.get("/hello").await.status, 200);
        assert_eq!(node.node.last_seen().header("x-client-cert-sha256"), None);
        let known = node.ca.sign("client");
        let mut bridge = shake(node.addr, node.ca.client(&[], Some(&known))).await.expect("a handshake");
        assert_eq!(bridge.json(r#"{"path":"/hello"}"#).await["status"], 200);
        let digest = format!("{:x}", Sha256::digest(known.certificate.der()));
        assert_eq!(node.node.last_seen().header("x-client-cert-sha256"), Some(&*digest));
        let unknown = Ca::new().sign("client");
        if let Ok(mut client) = shake(node.addr, node.ca.client(&[], Some(&unknown))).await {
            client.try_send("GET /hello HTTP/1.1\r\nhost: node\r\n\r\n").await;
            client.expect_close().await;
        }
        assert_eq!(node.node.seen_count(), 2);
    });
}

/// Nobody says by himself which certificate he has.
#[test]
fn forged_certificates_are_dropped() {
    check(DpuConfig::default(), Clients::Optional, async |node| {
        let get = "GET /hello HTTP/1.1\r\nhost: node\r\nX-Client-Cert-SHA256: 00\r\nx-other: 1\r\n\r\n";
        let json = r#"{"path":"/hello","headers":{"X-Client-Cert-SHA256":"00","x-other":"1"}}"#;
        let mut client = node.connect().await;
        client.send(get).await;
        assert_eq!(client.reply().await.status, 200);
        let known = node.ca.sign("client");
        let mut with_one = shake(node.addr, node.ca.client(&[], Some(&known))).await.expect("a handshake");
        with_one.send(get).await;
        assert_eq!(with_one.reply().await.status, 200);
        let digest = format!("{:x}", Sha256::digest(known.certificate.der()));
        let seen = node.node.last_seen();
        let said: Vec<_> = seen.headers.iter().filter(|(name, _)| name == "x-client-cert-sha256").collect();
        assert_eq!(said, [&("x-client-cert-sha256".to_owned(), digest)]);
        let mut plain = Raw::connect(node.cleartext).await;
        plain.send(get).await;
        assert_eq!(plain.reply().await.status, 200);
        assert_eq!(node.node.last_seen().header("x-client-cert-sha256"), None);
        assert_eq!(Raw::connect(node.cleartext).await.json(json).await["status"], 200);
        let seen = node.node.last_seen();
        assert_eq!((seen.header("x-client-cert-sha256"), seen.header("x-other")), (None, Some("1")));
    });
}

/// New connections are served with new files; open ones and their requests go on.
#[test]
fn reload_disturbs_nobody() {
    check(DpuConfig::default(), Clients::Anybody, async |node| {
        let mut open = node.connect().await;
        assert_eq!(open.get("/hello").await.status, 200);
        open.send("GET /never HTTP/1.1\r\nhost: node\r\n\r\n").await;
        node.node.until(|node| node.seen_count() == 2).await;
        let (other, old) = (Ca::new(), node.ca.client(&[], None));
        other.sign("node").write(node.folder.path());
        node.tls.reload().expect("good files");
        let mut client = shake(node.addr, other.client(&[], None)).await.expect("the new certificate");
        assert_eq!(client.get("/hello").await.status, 200);
        assert!(shake(node.addr, old).await.is_err(), "the old certificate is still used");
        std::fs::write(node.folder.path().join("tls.key"), "no key").expect("writable");
        node.tls.reload().expect_err("a bad file");
        assert!(shake(node.addr, other.client(&[], None)).await.is_ok());
        node.node.answer_all_held();
        assert_eq!(open.reply().await.status, 200);
        assert_eq!(open.get("/hello").await.status, 200);
    });
}

/// TLS at the port for cleartext is answered in cleartext, and closed.
#[test]
fn tls_at_the_port_for_cleartext_is_closed() {
    check(DpuConfig::default(), Clients::Anybody, async |node| {
        assert!(shake(node.cleartext, node.ca.client(&[], None)).await.is_err());
        node.node.settled().await;
        assert_eq!((node.failed(), node.node.seen_count()), (0, 0));
    });
}

/// The acceptor follows the files by itself.
#[test]
fn replaced_files_are_noticed() {
    check(DpuConfig::default(), Clients::Anybody, async |node| {
        let other = Ca::new();
        other.sign("node").write(node.folder.path());
        soon("the new certificate", async {
            while shake(node.addr, other.client(&[], None)).await.is_err() {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        })
        .await;
    });
}
