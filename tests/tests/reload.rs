//! Config that changes while a node serves: what is right is taken over with the next request, what is wrong never, and
//! nobody notices. `CELLMESH_RELOADS`: pairs of a right and a wrong file in the long test, 100 unless it says so.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use cellmesh_tests::upstream::nobody;
use cellmesh_tests::{H2, Node, Placement, Run, SetOnDrop, Usage, placement, sample};
use rustix::process::Signal;

/// Clients of each protocol.
const CLIENTS: usize = 2;
/// Pairs of files until memory has its size.
const WARM: usize = 10;

/// What the tests change.
#[derive(Clone, Copy)]
struct App {
    admin: SocketAddr,
    watch: bool,
    entry: &'static str,
    body_bytes_max: &'static str,
    /// Something of any table.
    more: &'static str,
}

impl App {
    fn new(watch: bool) -> Self {
        Self { admin: nobody(), watch, entry: "hello", body_bytes_max: "1KiB", more: "" }
    }

    /// The limit is 64 KiB at the start: a process goes no higher than there.
    fn start(self) -> Node {
        Run::app(&App { body_bytes_max: "64KiB", ..self }.text()).start()
    }

    fn text(self) -> String {
        let Self { admin, watch, entry, body_bytes_max, more } = self;
        format!(
            r#"
            entry = "{entry}"
            [admin]
            listen = "{admin}"
            [runtime]
            watch = {watch}
            [[cell]]
            component = "{{cells}}/hello.wasm"
            services = ["hello"]
            [[cell]]
            component = "{{cells}}/unruly.wasm"
            services = ["unruly"]
            [dpu]
            body_bytes_max = "{body_bytes_max}"
            {more}
            "#
        )
    }
}

/// Whether a body of 2 KiB is taken, over a new connection.
fn takes_2_kib(node: &Node) -> bool {
    match node.post("unruly", "/echo", [b'x'; 2048]).status {
        200 => true,
        413 => false,
        other => panic!("status {other}"),
    }
}

/// Who answers a request that names no service.
fn entry(node: &Node) -> &'static str {
    let mut wire = node.connect();
    if wire.get("10.0.0.1", "/echo").ok().text().starts_with("hello") { "hello" } else { "unruly" }
}

fn logged(node: &Node, message: &str) -> usize {
    node.log().messages_of("message", message).len()
}

/// Sends SIGHUP and waits until the file is read: until there is one more of this message.
fn hang_up(node: &Node, message: &str) {
    let before = logged(node, message);
    node.signal(Signal::HUP);
    node.until(message, |node| logged(node, message) > before);
}

const APPLIED: &str = "config applied";
const REFUSED: &str = "config refused, the old one stays";

/// A right file holds from the next request on, a wrong one is told as at a start, and both are counted.
#[test]
fn files_are_read_again_on_sighup() {
    let app = App::new(false);
    let node = app.start();
    assert!(takes_2_kib(&node));
    assert_eq!(entry(&node), "hello");
    assert_eq!(sample(app.admin, "config_last_reload_success"), 1);

    node.replace_app(&App { entry: "unruly", ..app }.text());
    hang_up(&node, APPLIED);
    assert!(!takes_2_kib(&node));
    assert_eq!(entry(&node), "unruly");
    let line = node.log().wait_for("the keys", |line| line["message"] == APPLIED);
    assert_eq!(line["changed"], "dpu.body_bytes_max, entry");

    let bad = App { body_bytes_max: "2MiB", more: "requests_max = 0\nrequest_max = 7", ..app };
    node.replace_app(&bad.text());
    hang_up(&node, REFUSED);
    let told = Run::app(&bad.text()).check().stderr;
    assert_eq!(told.lines().count(), 2, "{told}");
    for problem in told.lines() {
        let (_, problem) = problem.split_once("app.toml").expect("the file");
        assert!(node.log().text().contains(problem), "{problem} is not in the log");
    }
    assert!(!takes_2_kib(&node));
    assert_eq!(entry(&node), "unruly");
    assert_eq!(sample(app.admin, "config_reloads_total{outcome=\"applied\"}"), 1);
    assert_eq!(sample(app.admin, "config_reloads_total{outcome=\"refused\"}"), 1);
    assert_eq!(sample(app.admin, "config_last_reload_success"), 0);
}

/// A SIGHUP that comes while a process starts neither ends it nor is forgotten.
#[test]
fn sighup_during_the_start_is_heeded() {
    let app = App::new(false);
    let run = Run::app(&app.text());
    let node = run.start_hung_up(&App { entry: "unruly", ..app }.text());
    node.until("the new entry", |node| entry(node) == "unruly");
    assert_eq!(logged(&node, REFUSED), 0);
}

/// What cannot change while a process runs is named, and the rest of the file holds all the same.
#[test]
fn keys_that_need_a_restart_are_named() {
    let app = App::new(false);
    let node = app.start();
    let text = App { entry: "unruly", body_bytes_max: "1MiB", ..app }.text();
    node.replace_app(&format!("listen = \"127.0.0.1:1\"\n{}", text.replace("watch = false", "lanes = 7")));
    hang_up(&node, APPLIED);
    assert_eq!(entry(&node), "unruly");
    let line = node.log().wait_for("the keys", |line| line["message"] == "these hold after a restart");
    assert_eq!(line["keys"], "listen, runtime.lanes, runtime.watch, dpu.body_bytes_max");
    assert!(takes_2_kib(&node));
    assert_eq!(node.post("unruly", "/echo", vec![b'x'; 65 << 10]).status, 413, "more than at the start");
}

/// A file that changes is read by itself, replaced or written over, and a wrong one is survived.
#[test]
fn changed_files_are_noticed() {
    let app = App::new(true);
    let node = app.start();
    assert_eq!(entry(&node), "hello");
    node.replace_app(&App { entry: "unruly", ..app }.text());
    node.until("the new entry", |node| entry(node) == "unruly");
    node.write_app("entry =");
    node.until("the wrong file", |node| logged(node, REFUSED) > 0);
    assert_eq!(entry(&node), "unruly");
    node.write_app(&app.text());
    node.until("the old entry", |node| entry(node) == "hello");
}

/// What watches the file writes no line for each change of its folder, whatever is logged: with the log there, each line would lead
/// to the next.
#[test]
fn watching_is_not_logged_in_trace() {
    let app = App::new(true);
    let node = Run::app(&app.text()).env("RUST_LOG", "trace,notify::inotify=trace").start();
    node.replace_app(&App { entry: "unruly", ..app }.text());
    node.until("the new entry", |node| entry(node) == "unruly");
    let lines = node.log().lines();
    assert!(lines.iter().any(|line| line["level"] == "TRACE"), "all is logged");
    let of_watcher =
        |line: &&serde_json::Value| line["target"].as_str().is_some_and(|at| at.starts_with("notify"));
    assert_eq!(lines.iter().find(of_watcher), None);
}

/// Cells may call what the file says now; those in workers when these are started again, which is told.
#[test]
fn egress_of_cells_changes() {
    let app = App::new(false);
    let node = app.start();
    let call = |node: &Node| node.get("unruly", "/order?url=http://off.example:9/").status;
    assert_eq!(call(&node), 503, "no service of that name");
    let address = nobody();
    let hosts = format!("egress = {{ hosts = {{ \"off.example\" = \"{address}\" }} }}");
    let text = app.text().replace(
        "services = [\"unruly\"]",
        "services = [\"unruly\"]\negress = { allow = [\"off.example\"] }",
    );
    node.replace_app(&(text + &hosts));
    hang_up(&node, APPLIED);
    if placement() == Placement::CoHosted {
        assert_eq!(call(&node), 502, "allowed, and nobody listens there");
    } else {
        let line = node.log().wait_for("the keys", |line| line["message"] == "these hold after a restart");
        assert_eq!(line["keys"], "cell[1].egress.allow (workers)");
    }
}

/// Asks again and again, over connections that it keeps, until it is told to stop; every answer is the right one.
fn client(node: &Node, number: usize, stop: &AtomicBool, answered: &AtomicU64) {
    let body = vec![b'a' + u8::try_from(number).expect("few clients"); 512];
    let (mut wire, h2) = (node.connect(), H2::connect(node.address()));
    while !stop.load(Ordering::Relaxed) {
        let (echo, hello) = if number.is_multiple_of(2) {
            (wire.post("unruly", "/echo", &body), wire.get("hello", "/"))
        } else {
            (h2.post("unruly", "/echo", body.clone()), h2.get("hello", "/"))
        };
        assert_eq!((echo.status, echo.body == body), (200, true), "{echo:?}");
        assert!(hello.ok().text().starts_with("hello"));
        answered.fetch_add(2, Ordering::Relaxed);
    }
}

/// One right file and one wrong one.
fn pair(node: &Node, app: App, number: usize) {
    let odd = !number.is_multiple_of(2);
    let (name, size) = if odd { ("unruly", "1KiB") } else { ("hello", "64KiB") };
    let right = App { entry: name, body_bytes_max: size, ..app };
    node.replace_app(&right.text());
    hang_up(node, APPLIED);
    assert_eq!((entry(node), takes_2_kib(node)), (name, !odd), "file {number} holds");
    let (name, size) = if odd { ("hello", "64KiB") } else { ("unruly", "1KiB") };
    node.replace_app(&App { entry: name, body_bytes_max: size, more: "requests_max = 0", ..app }.text());
    hang_up(node, REFUSED);
    assert_eq!((entry(node) == name, takes_2_kib(node)), (false, !odd), "wrong file {number} does not");
}

/// Right and wrong files in turns under load: each right one holds for the next request, no wrong one ever, no request
/// fails, and nothing grows.
#[test]
fn no_request_fails_while_config_changes() {
    let app = App::new(false);
    let node = app.start();
    let pairs = std::env::var("CELLMESH_RELOADS").map_or(100, |pairs| pairs.parse().expect("a number"));
    let (stop, answered) = (AtomicBool::new(false), AtomicU64::new(0));
    let (warm, last) = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..2 * CLIENTS)
            .map(|number| {
                scope.spawn({
                    let (node, stop, answered) = (&node, &stop, &answered);
                    move || client(node, number, stop, answered)
                })
            })
            .collect();
        let _stopped = SetOnDrop(&stop);
        (1..=WARM).for_each(|number| pair(&node, app, number));
        let warm = node.usage();
        for number in WARM + 1..=WARM + pairs {
            pair(&node, app, number);
            assert!(clients.iter().all(|client| !client.is_finished()), "a client has failed");
        }
        (warm, node.usage())
    });
    check_usage(&warm, &last);
    let count = |outcome: &str| sample(app.admin, &format!("config_reloads_total{{outcome=\"{outcome}\"}}"));
    let all = u64::try_from(WARM + pairs).expect("a count");
    assert_eq!((count("applied"), count("refused")), (all, all));
    println!(
        "{all} right and {all} wrong files, {} requests: {warm:?}, then {last:?}",
        answered.into_inner()
    );
}

/// Connections of the test itself come and go.
fn check_usage(warm: &Usage, last: &Usage) {
    assert!(last.descriptors <= warm.descriptors + 4, "{warm:?}, then {last:?}");
    assert_eq!(last.threads, warm.threads);
    let grown = last.anonymous_bytes.saturating_sub(warm.anonymous_bytes);
    assert!(grown < 16 << 20, "{grown} bytes more: {warm:?}, then {last:?}");
}
