//! `cellmesh load`: what it sends, what it counts, and that it leaves nobody out who had to wait.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use cellmesh_tests::{Run, program};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

/// What a load has said and written by its end.
struct Ended {
    output: Output,
    figures: Value,
    hdr_log: String,
}

impl Ended {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.output.stdout).into_owned()
    }

    fn error(&self) -> String {
        String::from_utf8_lossy(&self.output.stderr).into_owned()
    }
}

/// Runs it to its end, or tells it with `signal` to end once the server is asked.
fn ended(url: &str, args: &[&str], signal: Option<(Signal, &Receiver<()>)>) -> Ended {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let [json, hdr_log] = ["figures.json", "latencies.hlog"].map(|name| folder.path().join(name));
    let mut load = Command::new(program());
    load.arg("load").arg(url).args(args).arg("--json").arg(&json).arg("--hdr-log").arg(&hdr_log);
    let load = load.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("cellmesh can be started");
    if let Some((signal, asked)) = signal {
        asked.recv().expect("a server");
        kill_process(Pid::from_child(&load), signal).expect("a load that runs");
    }
    let output = load.wait_with_output().expect("a load that ends");
    let figures = std::fs::read_to_string(&json).unwrap_or_default();
    let figures = serde_json::from_str(&figures).unwrap_or_default();
    Ended { output, figures, hdr_log: std::fs::read_to_string(&hdr_log).unwrap_or_default() }
}

/// Runs it to its good end; its figures.
fn load(url: &str, args: &[&str]) -> Value {
    let ended = ended(url, args, None);
    assert!(ended.output.status.success(), "{}", ended.error());
    ended.figures
}

/// A server that answers each request with what `answer` says of its index, and tells of it.
fn answering(answer: fn(u64) -> &'static str) -> (String, Receiver<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}/", listener.local_addr().expect("bound"));
    let (tell, asked) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let count: Arc<AtomicU64> = Arc::default();
        for stream in listener.incoming() {
            let (stream, tell, count) = (stream.expect("a connection"), tell.clone(), Arc::clone(&count));
            std::thread::spawn(move || {
                answer_all(stream, || {
                    // Only some tests want to know.
                    let _ = tell.send(());
                    answer(count.fetch_add(1, Ordering::Relaxed))
                })
            });
        }
    });
    (url, asked)
}

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi";

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
                    OK
                })
            });
        }
    });
    address
}

fn answer_all(mut stream: TcpStream, each: impl Fn() -> &'static str) {
    let mut buffer = [0; 4096];
    let mut unread = Vec::new();
    while let Ok(count @ 1..) = stream.read(&mut buffer) {
        unread.extend_from_slice(&buffer[..count]);
        while let Some(end) = unread.windows(4).position(|window| window == b"\r\n\r\n") {
            unread.drain(..end + 4);
            if stream.write_all(each().as_bytes()).is_err() {
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

/// The service that a header names is asked, in every protocol.
#[test]
fn services_are_named_in_every_protocol() {
    let app = "entry = \"bad\"\n[[cell]]\ncomponent = \"{cells}/unruly.wasm\"\nservices = [\"bad\"]\n\
               [[cell]]\ncomponent = \"{cells}/hello.wasm\"\nservices = [\"hello\"]\n";
    let node = Run::app(app).start();
    let url = format!("http://{}/do/trap", node.address());
    for protocol in ["http1", "http2", "bridge"] {
        for header in ["host: hello", "x-cellmesh-service: hello"] {
            let figures = load(&url, &["--protocol", protocol, "-H", header, "-r", "50", "-d", "200ms"]);
            assert_eq!(figures["statuses"], json!({"200": 10}), "{protocol}, {header}: {figures}");
        }
    }
}

/// Errors and timeouts are no answers, and are told apart; and where nothing else came, that is no success.
#[test]
fn failures_are_counted_apart() {
    let app = "[[cell]]\ncomponent = \"{cells}/unruly.wasm\"\nservices = [\"bad\"]\n";
    let node = Run::app(app).start();
    let failed = |target: &str, timeout: &str| {
        let url = format!("http://{}{target}", node.address());
        let ended = ended(&url, &["--rate", "50", "--duration", "1s", "--timeout", timeout], None);
        assert_eq!(ended.output.status.code(), Some(1), "{}", ended.error());
        assert_eq!(ended.figures["latency_ms"]["p50"], Value::Null, "{}", ended.figures);
        assert!(ended.text().contains("     p50            - ms"), "{}", ended.text());
        assert!(ended.hdr_log.contains("#[StartTime: "), "{}", ended.hdr_log);
        ended
    };
    let errors = failed("/do/trap", "30s");
    assert_eq!(errors.figures["errors"], json!({"status": 50, "connection": 0}), "{}", errors.figures);
    assert_eq!(errors.figures["statuses"], json!({"500": 50}), "{}", errors.figures);
    let said = "nothing was answered: 50 due, errors 50 (status 500: 50; connection 0), timeouts 0";
    assert!(errors.error().contains(said), "{}", errors.error());
    let late = failed("/step/sleep:5000", "400ms");
    assert_eq!(
        (&late.figures["answered"], &late.figures["timeouts"]),
        (&json!(0), &json!(50)),
        "{}",
        late.figures
    );
}

/// What comes back is counted by its status; of what is no HTTP at all, the first cause is kept.
#[test]
fn causes_are_kept() {
    let (url, _asked) = answering(|index| match index % 4 {
        0 => "HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n",
        1 => "garbage\r\n\r\n",
        _ => OK,
    });
    let figures = load(&url, &["--rate", "200", "--duration", "200ms"]);
    assert_eq!(figures["statuses"], json!({"200": 20, "503": 10}), "{figures}");
    assert_eq!(figures["errors"], json!({"status": 10, "connection": 10}), "{figures}");
    let first = figures["first_connection_error"].as_str().expect("a text");
    assert!(first.contains("invalid HTTP"), "{figures}");
}

/// Threads share what is to be sent, also when they are more than the requests.
#[test]
fn threads_share_the_requests() {
    let (url, _asked) = answering(|_| OK);
    let figures = load(&url, &["--rate", "5", "--duration", "1s", "--threads", "8"]);
    assert_eq!((&figures["offered"], &figures["answered"]), (&json!(5), &json!(5)), "{figures}");
}

/// A load that is told to end says what there is until then, and that it is not all.
#[test]
fn signals_cut_short() {
    for (signal, status, name) in [(Signal::INT, 130, "SIGINT"), (Signal::TERM, 143, "SIGTERM")] {
        // Of two requests one is never answered.
        let (url, asked) = answering(|index| if index % 2 == 0 { OK } else { "" });
        let args = ["--rate", "100", "--duration", "1h", "--timeout", "1h"];
        let ended = ended(&url, &args, Some((signal, &asked)));
        assert_eq!(ended.output.status.code(), Some(status), "{}", ended.error());
        assert!(ended.text().contains(&format!("cut short by {name} after ")), "{}", ended.text());
        let figures = &ended.figures;
        assert_eq!(figures["cut_short"], true, "{figures}");
        let count = |name: &str| figures[name].as_u64().expect("a count");
        assert_eq!(count("offered"), count("answered") + count("waiting"), "{figures}");
        assert_eq!((count("timeouts"), count("offered") < 360_000), (0, true), "{figures}");
        assert!(ended.hdr_log.contains("#[StartTime: "), "{}", ended.hdr_log);
    }
}

/// A search that is told to end has its best step, or says that there is none.
#[test]
fn search_is_cut_short() {
    let (url, asked) = answering(|_| OK);
    let args = ["--search", "--rate", "20", "--duration", "1h"];
    let none = ended(&url, &args, Some((Signal::INT, &asked)));
    assert_eq!(none.output.status.code(), Some(130), "{}", none.error());
    assert!(none.error().contains("SIGINT before any step was clean"), "{}", none.error());
    // Two requests in the first step; the third is the next step's.
    let (url, asked) = answering(|_| OK);
    let (tell, third) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        asked.iter().nth(2);
        tell.send(()).expect("a test that waits");
    });
    let args = ["--search", "--rate", "1", "--duration", "2s", "--p99-max", "1h"];
    let best = ended(&url, &args, Some((Signal::INT, &third)));
    assert_eq!(best.output.status.code(), Some(130), "{}", best.error());
    assert_eq!(best.figures["cut_short"], true, "{}", best.figures);
    assert!(best.text().contains("cut short by SIGINT: this is the best step until then"), "{}", best.text());
}

/// A server that takes no more connections after the first step is not clean at any other rate.
#[test]
fn search_outlasts_a_step_that_cannot_begin() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}/", listener.local_addr().expect("bound"));
    std::thread::spawn(move || {
        let (stream, _) = listener.accept().expect("a connection");
        drop(listener);
        answer_all(stream, || OK)
    });
    let args = ["--rate", "10", "--duration", "300ms", "--p99-max", "1h", "--connections", "1"];
    let ended = ended(&url, &[&["--search"], &args[..]].concat(), None);
    assert!(ended.output.status.success(), "{}", ended.error());
    assert_eq!(ended.figures["offered_per_s"], 10.0, "{}", ended.figures);
    assert!(ended.error().contains("\n20/s: cannot begin: cannot connect to "), "{}", ended.error());
}

/// What makes no sense, or cannot be reached or written, is told at once, with what would be right.
#[test]
fn mistakes_are_named() {
    let said = |args: &[&str]| {
        let output =
            Command::new(program()).arg("load").args(args).output().expect("cellmesh can be started");
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    assert!(said(&["ftp://127.0.0.1/"]).contains("must be http://host:port/path"));
    for protocol in ["http1", "http2", "bridge"] {
        let said = said(&["http://127.0.0.1:1/", "--protocol", protocol]);
        assert!(said.contains("cannot connect to 127.0.0.1:1: Connection refused"), "{said}");
    }
    assert!(said(&["http://127.0.0.1:1/", "--rate", "0"]).contains("--rate 0: must be more than 0"));
    for file in ["--json", "--hdr-log"] {
        let said = said(&["http://127.0.0.1:1/", file, "/nowhere/x"]);
        assert!(said.contains("cannot write /nowhere/x: No such file"), "{said}");
    }
}
