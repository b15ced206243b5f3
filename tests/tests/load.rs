//! `cellmesh load`: what it sends, what it counts, and that it leaves nobody out who had to wait.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cellmesh_tests::{Run, program};
use serde_json::Value;

/// Runs it to its end; its figures.
fn load(url: &str, args: &[&str]) -> Value {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("figures.json");
    let output = Command::new(program()).arg("load").arg(url).args(args).arg("--json").arg(&file).output();
    let output = output.expect("cellmesh can be started");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let figures = std::fs::read_to_string(&file).expect("figures");
    serde_json::from_str(&figures).unwrap_or_else(|error| panic!("{error}: {figures}"))
}

/// A server that answers every request at once, but for a time in which it answers nobody.
fn standing_still(from: Duration, to: Duration) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        let start: Arc<std::sync::OnceLock<Instant>> = Arc::default();
        for stream in listener.incoming() {
            let (stream, start) = (stream.expect("a connection"), Arc::clone(&start));
            std::thread::spawn(move || {
                answer_all(stream, || {
                    let passed = start.get_or_init(Instant::now).elapsed();
                    if (from..to).contains(&passed) {
                        std::thread::sleep(to - passed);
                    }
                })
            });
        }
    });
    address
}

fn answer_all(mut stream: TcpStream, before_each: impl Fn()) {
    let mut buffer = [0; 4096];
    let mut unread = Vec::new();
    while let Ok(count @ 1..) = stream.read(&mut buffer) {
        unread.extend_from_slice(&buffer[..count]);
        while let Some(end) = unread.windows(4).position(|window| window == b"\r\n\r\n") {
            unread.drain(..end + 4);
            before_each();
            if stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi").is_err() {
                return;
            }
        }
    }
}

/// A server that stands still for two of ten seconds: one in a hundred requests waits for nearly all of that. A load that
/// waits with its next request for the last answer would see 64 slow ones and call it a good day.
#[test]
fn those_who_would_have_asked_meanwhile_are_counted() {
    let address = standing_still(Duration::from_secs(3), Duration::from_secs(5));
    let figures = load(&format!("http://{address}/"), &["--rate", "2000", "--duration", "10s"]);
    assert_eq!(
        (&figures["offered"], &figures["answered"]),
        (&Value::from(20_000), &Value::from(20_000)),
        "{figures}"
    );
    let p99 = figures["latency_ms"]["p99"].as_f64().expect("a number");
    assert!(p99 >= 1800.0, "{figures}");
}

/// Every protocol reaches a cell, and every answer is counted.
#[test]
fn every_protocol_is_spoken() {
    let node = Run::app("[[cell]]\ncomponent = \"{cells}/hello.wasm\"\nservices = [\"hello\"]\n").start();
    let url = format!("http://{}/", node.address());
    for protocol in ["http1", "http2", "bridge"] {
        let figures = load(&url, &["--protocol", protocol, "--rate", "200", "--duration", "1s"]);
        assert_eq!(
            (&figures["answered"], &figures["timeouts"]),
            (&Value::from(200), &Value::from(0)),
            "{figures}"
        );
    }
}

/// Errors and timeouts are no answers, and are told apart.
#[test]
fn failures_are_counted_apart() {
    let app = "[[cell]]\ncomponent = \"{cells}/unruly.wasm\"\nservices = [\"bad\"]\n";
    let node = Run::app(app).start();
    let figures = |target: &str, timeout: &str| {
        let url = format!("http://{}{target}", node.address());
        load(&url, &["--rate", "50", "--duration", "1s", "--timeout", timeout])
    };
    let errors = figures("/do/trap", "30s");
    assert_eq!(
        (&errors["answered"], &errors["errors"]["status"]),
        (&Value::from(0), &Value::from(50)),
        "{errors}"
    );
    let late = figures("/step/sleep:5000", "400ms");
    assert_eq!((&late["answered"], &late["timeouts"]), (&Value::from(0), &Value::from(50)), "{late}");
}

/// What makes no sense is told, with what would.
#[test]
fn mistakes_are_named() {
    let said = |args: &[&str]| {
        let output =
            Command::new(program()).arg("load").args(args).output().expect("cellmesh can be started");
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    assert!(said(&["ftp://127.0.0.1/"]).contains("must be http://host:port/path"));
    assert!(said(&["http://127.0.0.1:1/"]).contains("cannot connect to 127.0.0.1:1"));
    assert!(said(&["http://127.0.0.1:1/", "--rate", "0"]).contains("--rate 0: must be more than 0"));
}
