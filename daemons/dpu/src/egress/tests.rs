//! Which connections are asked whether they are still there, frame by frame.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::*;
use crate::egress::trust::Cas;

/// Types and flags of frames. Source: RFC 9113, 6.
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const ACK: u8 = 1;
const END_STREAM_AND_HEADERS: u8 = 5;
/// `:status: 200`. Source: RFC 7541, appendix A.
const STATUS_200: u8 = 0x88;

const NAME: &str = "host.example";

/// A host that speaks HTTP/2 to one client.
struct Host {
    address: SocketAddr,
    seen: Arc<Seen>,
}

#[derive(Default)]
struct Seen {
    pings: AtomicUsize,
    /// Whether it answers a request only behind the next ping.
    waits: AtomicBool,
}

impl Host {
    fn start(tls: Option<Arc<ServerConfig>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let (address, seen) = (listener.local_addr().expect("bound"), Arc::<Seen>::default());
        let in_thread = Arc::clone(&seen);
        std::thread::spawn(move || {
            let (stream, _) = listener.accept()?;
            match tls {
                None => serve(stream, &in_thread),
                Some(tls) => {
                    let tls = ServerConnection::new(tls).expect("a config of ours");
                    serve(StreamOwned::new(tls, stream), &in_thread)
                }
            }
        });
        Self { address, seen }
    }

    fn pings(&self) -> usize {
        self.seen.pings.load(Ordering::SeqCst)
    }
}

/// Until the client leaves.
fn serve(mut stream: impl Read + Write, seen: &Seen) -> io::Result<()> {
    stream.read_exact(&mut [0; 24])?;
    send(&mut stream, SETTINGS, 0, 0, &[])?;
    let mut waiting = None;
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head)?;
        let [a, b, c, kind, flags, id @ ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        stream.read_exact(&mut payload)?;
        match (kind, flags & ACK) {
            (SETTINGS, 0) => send(&mut stream, SETTINGS, ACK, 0, &[])?,
            (PING, 0) => {
                seen.pings.fetch_add(1, Ordering::SeqCst);
                send(&mut stream, PING, ACK, 0, &payload)?;
            }
            (HEADERS, _) => waiting = Some((u32::from_be_bytes(id), seen.pings.load(Ordering::SeqCst))),
            _ => {}
        }
        let may_answer =
            |before| !seen.waits.load(Ordering::SeqCst) || seen.pings.load(Ordering::SeqCst) > before;
        if let Some((id, _)) = waiting.take_if(|(_, before)| may_answer(*before)) {
            send(&mut stream, HEADERS, END_STREAM_AND_HEADERS, id, &[STATUS_200])?;
        }
    }
}

fn send(stream: &mut impl Write, kind: u8, flags: u8, id: u32, payload: &[u8]) -> io::Result<()> {
    let length = u8::try_from(payload.len()).expect("short frames");
    let head = [&[0, 0, length, kind, flags][..], &id.to_be_bytes()].concat();
    stream.write_all(&[&head, payload].concat())?;
    stream.flush()
}

/// What a host over TLS that chooses HTTP/2 is made of, and who vouches for it.
fn identity() -> (Arc<ServerConfig>, Cas) {
    let made = rcgen::generate_simple_self_signed(vec![NAME.to_owned()]).expect("a certificate");
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("ca.pem");
    std::fs::write(&file, made.cert.pem()).expect("a file in a temporary folder");
    let key = made.signing_key.serialize_der().try_into().expect("a key");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let server = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let server = server.expect("the provider has suites").with_no_client_auth();
    let mut server = server.with_single_cert(vec![made.cert.der().clone()], key).expect("a pair");
    server.alpn_protocols = vec![b"h2".to_vec()];
    (Arc::new(server), Cas::load(&file).expect("a certificate"))
}

async fn ask(client: &HttpClient, url: &str) {
    let mut request = Request::new(Full::new(Bytes::new()));
    *request.uri_mut() = url.parse().expect("a URL");
    let answer = client.request(request).await.unwrap_or_else(|error| panic!("{}", with_causes(&error)));
    assert_eq!(answer.status(), 200);
}

/// A host that config says speaks HTTP/2 is asked while nothing is in flight, so that a dead one is found before it is called.
/// One that chose it over TLS is asked while it owes an answer, and left alone otherwise.
#[test]
fn idle_hosts_over_tls_are_left_alone() {
    let (server, cas) = identity();
    let (clear, secure) = (Host::start(None), Host::start(Some(server)));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let made = |host: &Host, http2| {
        let hosts = [(NAME.to_owned(), host.address.into())].into();
        let config = EgressConfig { hosts, cas: Some(cas.clone()), ..EgressConfig::default() };
        pinging_client(&config, Connector::new(&config), http2, Duration::from_millis(1))
    };
    runtime.block_on(async {
        let (to_clear, to_secure) = (made(&clear, true), made(&secure, false));
        secure.seen.waits.store(true, Ordering::SeqCst);
        ask(&to_secure, &format!("https://{NAME}/")).await;
        let before = secure.pings();
        assert!(before > 0, "it answers nobody who does not ask");
        ask(&to_clear, &format!("http://{NAME}/")).await;
        while clear.pings() < 50 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        // One may have been on its way when the answer came.
        assert!(secure.pings() <= before + 1, "{} pings, {before} before", secure.pings());
    });
}
