use bytes::Bytes;
use cellmesh_dpu::DpuConfig;
use cellmesh_dpu::units::{ByteSize, TimeSpan};
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::{JoinHandle, spawn_local};

use crate::client::{Raw, soon};
use crate::node::{Node, check, check_with};

type Client = SendRequest<Full<Bytes>>;

#[derive(Clone)]
struct OnLane;

impl<F: Future + 'static> hyper::rt::Executor<F> for OnLane
where
    F::Output: 'static,
{
    fn execute(&self, task: F) {
        spawn_local(task);
    }
}

/// A client, and the task of its connection, which ends when the connection does.
async fn connect(node: &Node) -> (Client, JoinHandle<()>) {
    let tcp = TcpStream::connect(node.addr).await.expect("listening");
    let (client, connection) = handshake(OnLane, TokioIo::new(tcp)).await.expect("HTTP/2");
    (client, spawn_local(async { drop(connection.await) }))
}

fn request(uri: &str, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    Request::post(uri).body(Full::new(body.into())).expect("a request")
}

async fn send(client: &mut Client, request: Request<Full<Bytes>>) -> Response<Incoming> {
    soon("ready", client.ready()).await.expect("open");
    soon("answer", client.send_request(request)).await.expect("an answer")
}

async fn text(response: Response<Incoming>) -> String {
    let body = soon("body", response.into_body().collect()).await.expect("a body").to_bytes();
    String::from_utf8(body.to_vec()).expect("text")
}

/// The authority is the host, for routing and for the cell; cookies come as one line.
#[test]
fn request_reaches_its_service() {
    check(async |node: Node| {
        let (mut client, _) = connect(&node).await;
        let mut asked = request("http://s1:5005/echo?x", "hi");
        for cookie in ["a=1", "b=2"] {
            asked.headers_mut().append("cookie", cookie.parse().expect("a value"));
        }
        let response = send(&mut client, asked).await;
        assert_eq!((response.status().as_u16(), response.version()), (200, http::Version::HTTP_2));
        assert_eq!(response.headers()["content-type"], "text/plain");
        assert_eq!(text(response).await, "hi");
        let seen = node.last_seen();
        assert_eq!(
            (seen.service.0, seen.target.as_str(), seen.header("host")),
            (1, "/echo?x", Some("s1:5005"))
        );
        assert_eq!(seen.header("cookie"), Some("a=1; b=2"));
    });
}

/// What was on its way when a drain began was sent by a client that could not know: it is served.
#[test]
fn request_that_crosses_the_goaway_is_served() {
    check(async |node: Node| {
        let (mut client, connection) = connect(&node).await;
        assert_eq!(send(&mut client, request("http://s0/hello", "")).await.status(), 200);
        soon("ready", client.ready()).await.expect("open");
        let crossing = client.send_request(request("http://s0/hello", ""));
        let drained = spawn_local(node.dpu.drain());
        assert_eq!(soon("answer", crossing).await.expect("an answer").status(), 200);
        drop(client);
        soon("drain", drained).await.expect("no panic");
        soon("end", connection).await.expect("no panic");
    });
}

/// Streams do not wait for each other.
#[test]
fn streams_are_independent() {
    check(async |node: Node| {
        let (mut client, _) = connect(&node).await;
        let mut held = client.clone();
        let held = spawn_local(async move { send(&mut held, request("http://s0/never", "")).await });
        for number in 0..200 {
            let asked = request(&format!("http://s0/target/{number}"), "");
            assert_eq!(text(send(&mut client, asked).await).await, format!("/target/{number}"));
        }
        assert!(!held.is_finished());
        node.answer_all_held();
        assert_eq!(text(soon("held", held).await.expect("no panic")).await, "late");
    });
}

/// 16 MiB both ways, several at once; the limit plus one is 413 and the connection goes on.
#[test]
fn large_bodies_pass() {
    check(async |node: Node| {
        let (mut client, _) = connect(&node).await;
        let body = Bytes::from(vec![b'x'; 16 * 1024 * 1024]);
        let mut all = Vec::new();
        for _ in 0..3 {
            let (mut client, asked) = (client.clone(), request("http://s0/echo", body.clone()));
            all.push(spawn_local(async move { text(send(&mut client, asked).await).await.len() }));
        }
        for one in all {
            assert_eq!(soon("echo", one).await.expect("no panic"), body.len());
        }
        let longer = Bytes::from(vec![b'x'; 16 * 1024 * 1024 + 1]);
        assert_eq!(send(&mut client, request("http://s0/echo", longer)).await.status(), 413);
        assert_eq!(send(&mut client, request("http://s0/hello", "")).await.status(), 200);
        node.until(|node| node.dpu.stats().buffered_bytes == 0).await;
    });
}

/// A stream that the client gives up cancels its call alone.
#[test]
fn reset_stream_cancels_its_call() {
    check(async |node: Node| {
        let (mut client, _) = connect(&node).await;
        let mut given_up = client.clone();
        let task = spawn_local(async move { send(&mut given_up, request("http://s0/never", "")).await });
        node.until(|node| node.seen_count() == 1).await;
        task.abort();
        node.until(|node| node.cancelled_count() == 1 && node.dpu.in_flight() == 0).await;
        assert_eq!(node.dpu.stats().abandoned, 1);
        assert_eq!(send(&mut client, request("http://s0/hello", "")).await.status(), 200);
    });
}

/// A connection that goes away takes its streams with it.
#[test]
fn lost_connection_cancels_its_calls() {
    check(async |node: Node| {
        let tcp = TcpStream::connect(node.addr).await.expect("listening").into_std().expect("a socket");
        let cut = tcp.try_clone().expect("a descriptor");
        let tcp = TcpStream::from_std(tcp).expect("a socket");
        let (client, connection) = handshake(OnLane, TokioIo::new(tcp)).await.expect("HTTP/2");
        spawn_local(async { drop(connection.await) });
        for _ in 0..10 {
            let mut client = client.clone();
            spawn_local(async move { drop(client.send_request(request("http://s0/never", "")).await) });
        }
        node.until(|node| node.seen_count() == 10).await;
        cut.shutdown(std::net::Shutdown::Both).expect("connected");
        node.settled().await;
        node.until(|node| node.cancelled_count() == 10).await;
    });
}

/// Errors of the mesh are answers on the stream; limits on heads hold.
#[test]
fn errors_are_answers() {
    let config = DpuConfig { target_bytes_max: ByteSize::kib(1), ..DpuConfig::default() };
    check_with(config, async |node: Node| {
        let (mut client, _) = connect(&node).await;
        let response = send(&mut client, request("http://idle/", "")).await;
        assert_eq!(
            (response.status().as_u16(), &response.headers()["x-cellmesh-error"]),
            (503, &"no-worker".parse().expect("text"))
        );
        assert_eq!(response.headers().get("connection"), None);
        assert_eq!(text(response).await, "{\"error\":\"no worker serves \\\"idle\\\"\"}");
        let long = request(&format!("http://s0/{}", "x".repeat(1024)), "");
        assert_eq!(send(&mut client, long).await.status(), 414);
        let mut many = request("http://s0/hello", "");
        for number in 0..101 {
            many.headers_mut().insert(
                http::HeaderName::try_from(format!("x-{number}")).expect("a name"),
                "y".parse().expect("a value"),
            );
        }
        assert_eq!(send(&mut client, many).await.status(), 431);
        assert_eq!(node.seen_count(), 0);
    });
}

/// A drain lets open streams finish, refuses later ones and then closes.
#[test]
fn drain_finishes_streams() {
    check(async |node: Node| {
        let (client, connection) = connect(&node).await;
        let mut busy = client.clone();
        let busy = spawn_local(async move { send(&mut busy, request("http://s0/never", "")).await });
        node.until(|node| node.seen_count() == 1).await;
        let drained = spawn_local(node.dpu.drain());
        tokio::task::yield_now().await;
        node.answer_all_held();
        assert_eq!(text(soon("busy", busy).await.expect("no panic")).await, "late");
        soon("connection", connection).await.expect("no panic");
        soon("drain", drained).await.expect("no panic");
    });
}

/// A connection that nobody uses is closed; one that is in use is not.
#[test]
fn idle_connections_are_closed() {
    let config = DpuConfig { keep_alive_idle_timeout: TimeSpan::millis(400), ..DpuConfig::default() };
    check_with(config, async |node: Node| {
        let (mut client, connection) = connect(&node).await;
        assert_eq!(send(&mut client, request("http://s0/hello", "")).await.status(), 200);
        soon("idle close", connection).await.expect("no panic");
        let (mut client, connection) = connect(&node).await;
        let busy = spawn_local(async move { send(&mut client, request("http://s0/never", "")).await });
        node.until(|node| node.seen_count() == 2).await;
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        assert!(!connection.is_finished());
        node.answer_all_held();
        assert_eq!(soon("busy", busy).await.expect("no panic").status(), 200);
    });
}

/// A client that keeps its window shut, and so never takes its answer, is cut in the end.
#[test]
fn shut_window_does_not_hold_a_connection() {
    let config = DpuConfig { keep_alive_idle_timeout: TimeSpan::millis(400), ..DpuConfig::default() };
    check_with(config, async |node: Node| {
        let mut client = Raw::connect(node.addr).await;
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        bytes.extend([0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0]); // SETTINGS: initial window 0
        bytes.extend([0, 0, 7, 1, 5, 0, 0, 0, 1]); // HEADERS of stream 1, with its end
        bytes.extend([0x82, 0x86, 0x84, 0x41, 2, b's', b'0']);
        client.send(&bytes).await;
        node.until(|node| node.dpu.stats().answered == 1).await;
        client.rest().await;
        node.settled().await;
    });
}

/// Streams opened and reset at once end the connection; no worker hears of most of them.
#[test]
fn rapid_resets_end_the_connection() {
    check(async |node: Node| {
        let mut client = Raw::connect(node.addr).await;
        let mut flood = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
        // Indexed headers: GET, http, /; authority "s0" as a literal. Then RST_STREAM, CANCEL.
        let head = [0x82, 0x86, 0x84, 0x41, 2, b's', b'0'];
        for stream in (1..20_000_u32).step_by(2) {
            flood.extend([0, 0, 7, 1, 5]);
            flood.extend(stream.to_be_bytes());
            flood.extend(head);
            flood.extend([0, 0, 4, 3, 0]);
            flood.extend(stream.to_be_bytes());
            flood.extend(8_u32.to_be_bytes());
        }
        client.try_send(&flood).await;
        client.rest().await;
        node.settled().await;
        assert!(node.seen_count() < 1000, "{} of 10000 reset streams reached a worker", node.seen_count());
        assert_eq!(Raw::connect(node.addr).await.get("/hello").await.status, 200);
    });
}
