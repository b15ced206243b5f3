//! Cells that trap, loop, grow, recurse or sleep: each costs its own request, and nothing else.

use std::collections::HashMap;

use cellmesh_tests::{H2, Node, Placement, Reply, Run, Wire, placement};
use http::Method;
use serde_json::Value;

/// `bad` has short limits, so that its faults end soon; `good` has the defaults. One lane and one pool thread: whoever
/// holds either of them holds everybody.
fn node() -> Node {
    node_with("handler_timeout = \"500ms\"\nstep_timeout = \"500ms\"")
}

/// `bad`: lines of its cell.
fn node_with(bad: &str) -> Node {
    let toml = r#"
        [runtime]
        pool_threads = 1
        [[cell]]
        component = "{cells}/unruly.wasm"
        services = ["good"]
        [[cell]]
        component = "{cells}/unruly.wasm"
        services = ["bad"]
        memory_max = "16MiB"
    "#;
    Run::app(&format!("{toml}\n{bad}")).lanes(1).start()
}

/// A deed, its status, the kind in the log, and part of the reason.
const FAULTS: [(&str, u16, &str, &str); 5] = [
    ("trap", 500, "trap", "unreachable"),
    ("stack", 500, "trap", "stack"),
    ("exit", 500, "trap", "exit"),
    ("memory", 500, "memory", "past its memory limit of 16777216 bytes"),
    ("loop", 504, "deadline", "past its time limit"),
];

/// Commits each deed below `path`; checks the answer, the log and that everybody is served afterwards.
fn check_faults(path: &str, step: &str) {
    let node = node();
    for (deed, status, kind, reason) in FAULTS {
        let reply = node.get("bad", &format!("{path}/{deed}"));
        assert_eq!(reply.status, status, "{deed}: {}", reply.text());
        assert!(reply.error().contains(reason), "{deed}: {}", reply.error());
        if step == "guilty" {
            assert_eq!(reply.json()["step"], step, "{deed}");
        }
        let logged = node
            .log()
            .wait_for(deed, |line| line["reason"].as_str().is_some_and(|text| text.contains(reason)));
        let told = ["cell", "step", "kind"].map(|key| logged[key].as_str().unwrap_or_default().to_owned());
        assert_eq!(told, ["bad", step, kind], "{deed}");
        for service in ["bad", "good"] {
            assert_eq!(node.get(service, "/").ok().text(), "ok\n", "after {deed}");
        }
    }
}

/// A handler that fails is answered with the reason, and the log names the cell.
#[test]
fn fault_in_a_handler_costs_its_request() {
    check_faults("/do", "handler");
}

/// An internal step that fails is answered with the reason and the step's name.
#[test]
fn fault_in_a_step_costs_its_request() {
    check_faults("/step", "guilty");
}

/// A request builder that fails is an error of its step.
#[test]
fn fault_in_a_builder_costs_its_request() {
    check_faults("/builder", "guilty");
}

/// An error that a function returns on purpose is a step error too, and no instance is lost.
#[test]
fn returned_error_is_told() {
    let node = node();
    for path in ["/step/error", "/builder/error"] {
        let reply = node.get("bad", path);
        assert_eq!((reply.status, reply.error().as_str()), (500, "an error, as asked"), "{path}");
        assert_eq!(reply.json()["step"], "guilty", "{path}");
    }
    assert_eq!(node.get("bad", "/step/status:503").status, 503);
    assert_eq!(node.get("bad", "/count").ok().text(), "3");
}

/// An instance is used again after requests that went well, never after a fault.
#[test]
fn instance_is_dropped_with_its_fault() {
    let node = node();
    let count = || node.get("bad", "/count").ok().text().to_owned();
    assert_eq!([count(), count(), count()], ["0", "1", "2"]);
    for (deed, ..) in FAULTS {
        assert!(node.get("bad", &format!("/do/{deed}")).status >= 500);
        assert_eq!([count(), count()], ["0", "1"], "after {deed}");
    }
}

/// A cell that wants a new instance for every call sees nothing of the request before.
#[test]
fn fresh_instances_remember_nothing() {
    let node = node_with("instances = \"fresh\"");
    for _ in 0..20 {
        assert_eq!(node.get("bad", "/count").ok().text(), "0");
    }
}

/// Everybody is served while endless loops run in handlers and steps, more of them than lanes and pool threads: by the
/// same service and another one, also steps that need the pool themselves.
#[test]
fn loops_are_in_nobodys_way() {
    let node = node_with("handler_timeout = \"60s\"\nstep_timeout = \"60s\"");
    let loops = ["/do/loop", "/step/loop", "/builder/loop", "/steps?deed=loop&deed=loop"];
    let loops = loops.map(|path| node.start_get("bad", path));
    node.until_begun(loops.len() + 1);
    for service in ["bad", "good"] {
        for path in
            ["/", "/step/nothing", "/step/spin:20", "/order?url=http://good/", "/order?url=http://bad/"]
        {
            assert_eq!(node.get(service, path).status, 200, "{service}{path}");
        }
    }
    assert!(loops.iter().all(Wire::is_silent), "the loops ended too soon");
}

/// A step that computes or sleeps for two seconds does not delay others on its lane.
#[test]
fn long_step_delays_nobody() {
    let node = node_with("");
    for deed in ["spin:2000", "sleep:2000"] {
        let mut long = node.start_get("bad", &format!("/step/{deed}"));
        for path in ["/", "/step/nothing", "/order?url=http://good/"] {
            assert_eq!(node.get("bad", path).status, 200, "{path} beside {deed}");
        }
        assert!(long.is_silent(), "{deed} ended before requests that take no time");
        assert_eq!(long.reply().ok().text(), "done\n");
    }
}

/// Sleeping holds no thread: many more calls sleep than there are threads, and others are served meanwhile.
#[test]
fn sleeping_holds_no_thread() {
    let node = node_with("");
    let mut sleeping: Vec<Wire> = (0..40).map(|_| node.start_get("bad", "/step/sleep:2000")).collect();
    node.until_begun(sleeping.len());
    for path in ["/", "/step/spin:10"] {
        assert_eq!(node.get("bad", path).status, 200);
    }
    assert!(sleeping.iter().all(Wire::is_silent));
    sleeping.iter_mut().for_each(|wire| assert_eq!(wire.reply().ok().text(), "done\n"));
}

/// A request that takes longer than it may is 504 and names the service that was asked; what it waited for is ended too:
/// the callee's one instance is free again long before its own sixty seconds.
#[test]
fn deadline_is_504_and_passed_on_to_callees() {
    let limits = "instances_max = 1\nhandler_timeout = \"60s\"\nstep_timeout = \"60s\"\n[dpu]\nrequest_timeout = \"1s\"";
    let node = node_with(limits);
    for deed in ["sleep:60000", "loop"] {
        for path in [format!("/step/{deed}"), format!("/do/{deed}")] {
            let reply = node.get("good", &format!("/order?url=http://bad{path}"));
            assert_eq!(reply.status, 504, "{path}: {}", reply.text());
            let direct = node.get("bad", &path);
            assert_eq!(direct.status, 504, "{path}: {}", direct.text());
            assert_eq!(node.get("bad", "/").ok().text(), "ok\n", "after {path}");
        }
    }
}

/// A service that calls itself without end is stopped by the hop limit.
#[test]
fn endless_chain_is_508() {
    let node = node();
    let reply = node.get("good", "/self");
    assert_eq!(reply.status, 508, "{}", reply.text());
    assert!(reply.error().contains("hops"), "{}", reply.error());
    assert_eq!(node.get("good", "/").status, 200);
}

/// A call to a service that is not there fails its step at once, with the name; beside it everything runs.
#[test]
fn unknown_callee_is_named() {
    let node = node();
    let reply = node.get("good", "/order?url=http://nobody/x");
    assert_eq!(reply.status, 503);
    assert!(reply.error().contains("nobody"), "{}", reply.error());
    let both = node.get("good", "/pipe?url=http://nobody/&url=http://bad/&tolerant").ok();
    let lines: Vec<&str> = both.text().lines().collect();
    assert!(lines[0].starts_with("503 ") && lines[0].contains("nobody"), "{lines:?}");
    assert_eq!(lines[1], "200 ok");
}

/// A callee's own answer passes through: its status and its body.
#[test]
fn answer_of_a_callee_passes_through() {
    let node = node();
    let reply = node.get("good", "/order?url=http://bad/answer?status=404");
    assert_eq!((reply.status, reply.text()), (404, "as asked\n"));
    let reply = node.get("good", "/order?url=http://bad/do/trap");
    assert!(reply.status == 500 && reply.error().contains("unreachable"), "{}", reply.text());
}

/// A prepared response stands where all callees answer 200: status, headers and body, without a further call of the cell. Where one
/// says anything else, or nothing, the cell is asked.
#[test]
fn prepared_response_stands_unless_a_callee_says_otherwise() {
    let node = node();
    let ask = |callees: &str| node.get("good", &format!("/pipe?{callees}&tolerant&prepared=ready"));
    for callees in ["", "url=http://bad/", "url=http://bad/&url=http://bad/answer?status=200"] {
        let reply = ask(callees);
        assert_eq!((reply.status, reply.text(), reply.header("x-prepared")), (201, "ready", Some("yes")));
    }
    for (path, said) in [
        ("answer?status=201", "201 as asked"),
        ("answer?status=302", "302 as asked"),
        ("answer?status=404", "404 answered with status 404"),
        ("do/trap", "500 "),
    ] {
        let reply = ask(&format!("url=http://bad/&url=http://bad/{path}")).ok();
        let lines: Vec<&str> = reply.text().split_terminator('\n').filter(|line| !line.is_empty()).collect();
        assert!(lines[0] == "200 ok" && lines[1].starts_with(said), "{path}: {lines:?}");
    }
    let lost = ask("url=http://nobody/&url=http://bad/").ok();
    assert!(lost.text().starts_with("503 "), "{}", lost.text());
    // Without tolerance an error ends the graph before it comes to that.
    let reply = node.get("good", "/order?url=http://bad/answer?status=404&prepared=ready");
    assert_eq!((reply.status, reply.text()), (404, "as asked\n"));
}

/// A large result that a step has as its input thousands of times is more than the cell may have: its own request fails, before a
/// byte is copied.
#[test]
fn inputs_are_bounded_by_the_memory_of_the_cell() {
    let node = node();
    let twice = node.get("bad", "/again?deed=big:1000&times=2").ok();
    assert_eq!(twice.text().matches("200 xxx").count(), 2);
    let before = node.usage();
    for _ in 0..3 {
        let reply = node.get("bad", "/again?deed=big:4000000&times=4000");
        assert_eq!(reply.status, 500, "{}", reply.text());
        assert!(reply.error().contains("past its memory limit"), "{}", reply.error());
    }
    let grown = node.usage().anonymous_bytes.saturating_sub(before.anonymous_bytes);
    assert!(grown < 100 << 20, "{grown} bytes more");
    assert_eq!(node.get("good", "/").status, 200);
}

/// In a pipe all calls are made although one fails; in an order those after it are not.
#[test]
fn order_stops_at_an_error_and_pipe_does_not() {
    let node = node();
    let urls = "url=http://bad/do/log:1&url=http://bad/do/trap&url=http://bad/do/log:1";
    assert_eq!(node.get("good", &format!("/order?{urls}")).status, 500);
    assert_eq!(node.get("good", &format!("/pipe?{urls}")).status, 500);
    assert_eq!(node.get("bad", "/do/log:7").status, 200);
    let _ = node.log().wait_for("the last line", |line| line["message"] == "line 6");
    let first_lines = node.log().messages_of("service", "bad");
    assert_eq!(first_lines.iter().filter(|line| *line == "\"line 0\"").count(), 1 + 2 + 1, "{first_lines:?}");
}

/// A graph that breaks a rule is refused before anything runs, with the rule and, where there is one, the step.
#[test]
fn bad_graph_is_refused_with_its_rule() {
    let node = node();
    for (kind, parts) in [
        ("same-id-twice", &["twin", "unique"][..]),
        ("empty-id", &["id of 0 bytes"]),
        ("too-many-steps", &["5001", "at most 4096"]),
        ("too-many-calls", &["2000 requests", "at most 1024"]),
        ("input-at-the-same-time", &["eager", "other", "at the same time"]),
        ("unmarked", &["unruly_by_name", "mark it"]),
    ] {
        let reply = node.get("good", &format!("/bad-graph/{kind}"));
        assert_eq!(reply.status, 500, "{kind}");
        for part in parts {
            assert!(reply.error().contains(part), "{kind}: {}", reply.error());
        }
    }
    for (kind, part) in [("bad-method", "GE T"), ("bad-url", "user@good")] {
        let reply = node.get("good", &format!("/bad-graph/{kind}"));
        assert_eq!((reply.status, &reply.json()["step"]), (500, &"caller".into()), "{kind}");
        assert!(reply.error().contains(part), "{kind}: {}", reply.error());
    }
}

/// A client that goes away ends what it asked for: the only instance is free long before the sixty seconds are over.
#[test]
fn client_that_leaves_frees_what_it_held() {
    let limits = "instances_max = 1\nhandler_timeout = \"60s\"\nstep_timeout = \"60s\"";
    let node = node_with(limits);
    let paths = ["/do/loop", "/do/sleep:60000", "/step/loop", "/step/sleep:60000", "/builder/loop"];
    for path in paths
        .map(|path| format!("{path}?"))
        .into_iter()
        .chain(["/order?url=http://bad/step/sleep:60000".into()])
    {
        let service = if path.starts_with("/order") { "good" } else { "bad" };
        let waiting = node.start_get(service, &path);
        wait_until_busy(&node);
        drop(waiting);
        assert_eq!(node.get("bad", "/").ok().text(), "ok\n", "after {path}");
        let h2 = H2::connect(node.address());
        let waiting = h2.start(Method::GET, service, &path, "");
        wait_until_busy(&node);
        waiting.reset();
        assert_eq!(h2.get("bad", "/").ok().text(), "ok\n", "after a reset of {path}");
    }
}

/// Requests that wait for the only instance, and whose clients have left, leave their places to others while it is still taken.
#[test]
fn clients_that_leave_the_queue_leave_room_in_it() {
    let node = node_with("instances_max = 1\nhandler_timeout = \"60s\"\nstep_timeout = \"60s\"");
    let _held = node.start_get("bad", "/step/sleep:60000");
    wait_until_busy(&node);
    let mut queue: Vec<Wire> = (0..100).map(|_| node.start_get("bad", "/")).collect();
    node.until("the queue is full", |_| queue.iter().any(|client| !client.is_silent()));
    let refused = queue.iter_mut().find(|client| !client.is_silent()).expect("one that has an answer");
    assert_eq!(refused.reply().status, 503);
    drop(queue);
    wait_until_busy(&node);
}

/// Waits until the one instance of `bad` is taken: a request that would be served at once is not.
fn wait_until_busy(node: &Node) {
    node.until("the instance is busy", |node| {
        let probe = node.start_get("bad", "/");
        let served = node.get("good", "/step/spin:20");
        assert_eq!(served.status, 200);
        probe.is_silent()
    });
}

/// Clients that leave at any moment leak nothing: afterwards as many requests as ever run at the same time.
#[test]
fn clients_that_leave_at_any_moment_leak_nothing() {
    let node = node_with("instances_max = 4\nstep_timeout = \"60s\"");
    let path = "/order?url=http://bad/step/sleep:60000";
    let leave = |round: usize| {
        let mut wire = node.connect();
        match round % 4 {
            0 => wire.send("POST /echo HTTP/1.1\r\nhost: bad\r\ncontent-length: 1000000\r\n\r\nsome"),
            1 => wire.ask("GET", "good", path),
            2 => {
                wire.ask("GET", "good", path);
                assert_eq!(node.get("good", "/").status, 200);
            }
            _ => {
                wire.ask("GET", "good", path);
                wire.end_sending();
            }
        }
    };
    check_nothing_is_left(&node, leave);
}

/// A client that leaves with a second request behind the one that is being answered holds nothing either.
#[test]
fn client_that_leaves_a_pipelined_request_behind_is_noticed() {
    let limits = "instances_max = 1\nstep_timeout = \"600s\"\n[dpu]\nrequest_timeout = \"600s\"";
    let node = node_with(limits);
    let mut wire = node.connect();
    wire.ask("GET", "bad", "/step/sleep:600000");
    wire.ask("GET", "bad", "/");
    wait_until_busy(&node);
    drop(wire);
    node.until("the instance is free", |node| node.get("bad", "/").status == 200);
}

/// `leave` is done a hundred times; then all four instances of `bad` are free, and no connection is open.
#[track_caller]
fn check_nothing_is_left(node: &Node, leave: impl Fn(usize)) {
    use_all_four(node);
    // The first instance of a cell opens its memory image, which stays open.
    assert_eq!(node.get("good", "/").status, 200);
    let before = node.usage();
    (0..100).for_each(leave);
    use_all_four(node);
    node.until("as many descriptors as before", |node| node.usage().descriptors <= before.descriptors);
}

/// Shows that four requests run at the same time, which are as many as may.
#[track_caller]
fn use_all_four(node: &Node) {
    let mut four: Vec<Wire> = (0..4).map(|_| node.start_get("bad", "/step/sleep:300")).collect();
    four.iter_mut().for_each(|wire| assert_eq!(wire.reply().status, 200));
}

/// A process that has no descriptors left waits with new clients, serves those that it has, and goes on when some come free.
#[test]
fn running_out_of_descriptors_is_waited_out() {
    const CLIENTS: usize = 150;
    let node = Run::app("[[cell]]\ncomponent = \"{cells}/unruly.wasm\"\nservices = [\"good\"]")
        .descriptors_max(128)
        .start();
    let mut kept = node.connect();
    assert_eq!(kept.get("good", "/").status, 200);
    let crowd: Vec<Wire> = (0..CLIENTS).map(|_| node.connect()).collect();
    let _ = node.log().wait_for("no descriptor is left", cannot_accept);
    for _ in 0..20 {
        assert_eq!(kept.get("good", "/").status, 200);
    }
    let mut late = node.start_get("good", "/");
    drop(crowd);
    assert_eq!(late.reply().status, 200);
    // It pauses longer and longer between its tries: no more of them than there is time for.
    let tries = node.log().lines().iter().filter(|line| cannot_accept(line)).count();
    assert!(tries < CLIENTS, "{tries} tries");
}

fn cannot_accept(line: &Value) -> bool {
    line["message"].as_str().is_some_and(|text| text.starts_with("cannot accept"))
}

/// A request for which no instance can be made, for want of a descriptor, may be sent again: it is shed, and served later.
#[test]
fn request_without_an_instance_is_shed() {
    let node = Run::app("[[cell]]\ncomponent = \"{cells}/unruly.wasm\"\nservices = [\"good\"]")
        .lanes(1)
        .descriptors_max(128)
        .start();
    let mut kept = node.connect();
    let crowd: Vec<Wire> = (0..150).map(|_| node.connect()).collect();
    let _ = node.log().wait_for("no descriptor is left", cannot_accept);
    let reply = kept.get("good", "/");
    let told = ["x-cellmesh-error", "retry-after"].map(|name| reply.header(name));
    // From a worker in a process of its own clients take no descriptors.
    let expected = match placement() {
        Placement::CoHosted => (503, [Some("cell-instance"), Some("1")]),
        Placement::Split => (200, [None, None]),
    };
    assert_eq!((reply.status, told), expected, "{}", reply.text());
    drop(crowd);
    node.until("an instance", |node| node.get("good", "/").status == 200);
}

/// What is answered by the mesh names the request, as its client calls it or by an id that was made here.
#[test]
fn answers_of_the_mesh_name_the_request() {
    let node = Run::app("[[cell]]\ncomponent = \"{cells}/unruly.wasm\"\nservices = [\"good\"]").start();
    for (head, error) in [
        ("GET /do/status:99 HTTP/1.1\r\nhost: good\r\n", "cell-contract"),
        ("GET /do/trap HTTP/1.1\r\nhost: good\r\n", "cell-trap"),
        ("GET / HTTP/1.1\r\nhost: shop.example\r\nx-cellmesh-service: nix\r\n", "unknown-service"),
        ("GET / HTTP/1.1\r\nhost: \r\nupgrade: websocket\r\n", "not-implemented"),
    ] {
        let mut ids = Vec::new();
        for own in ["", "x-request-id: r-7\r\n"] {
            let mut wire = node.connect();
            wire.send(format!("{head}{own}\r\n"));
            let reply = wire.reply();
            assert_eq!(reply.header("x-cellmesh-error"), Some(error), "{}", reply.text());
            ids.push(reply.all("x-request-id").into_iter().map(str::to_owned).collect::<Vec<_>>());
        }
        assert!(ids[0].len() == 1 && ids[0][0].len() == 36, "{error}: {ids:?}");
        assert_eq!(ids[1], ["r-7"], "{error}");
    }
}

/// A line in the log names the request that it is about, and its trace: one that a cell has written, and one of ours.
#[test]
fn log_names_the_request_and_its_trace() {
    let node = Run::app("[[cell]]\ncomponent = \"{cells}/unruly.wasm\"\nservices = [\"good\"]").start();
    for (id, trace_id) in [("first", "1".repeat(32)), ("second", "2".repeat(32))] {
        let ask = |target: &str, status: u16| {
            let mut wire = node.connect();
            wire.send(format!(
                "GET {target} HTTP/1.1\r\nhost: good\r\nx-request-id: {id}\r\n\
                 traceparent: 00-{trace_id}-00f067aa0ba902b7-00\r\n\r\n"
            ));
            assert_eq!(wire.reply().status, status, "{target}");
        };
        for (target, status, message) in [
            ("/do/log:1", 200, "line 0"),
            ("/do/trap", 500, "guest call failed"),
            ("/bad-graph/empty-id", 500, "graph refused"),
        ] {
            ask(target, status);
            let is_it = |line: &Value| line["message"] == message && line["request_id"] == id;
            let line = node.log().wait_for("a line with the request's id", is_it);
            assert_eq!(line["trace_id"], *trace_id, "{line}");
        }
    }
}

/// Calls that find all instances busy wait for their turn; more than may wait are refused.
#[test]
fn calls_wait_for_an_instance_up_to_a_bound() {
    let node = node_with("instances_max = 1\nstep_timeout = \"10s\"");
    let running = node.start_get("bad", "/step/sleep:2000");
    wait_until_busy(&node);
    let mut asked: Vec<Wire> = (0..100).map(|_| node.start_get("bad", "/")).collect();
    let mut count = HashMap::new();
    let replies: Vec<Reply> = asked.iter_mut().map(Wire::reply).collect();
    for reply in &replies {
        *count.entry(reply.status).or_insert(0) += 1;
    }
    assert!(count[&200] >= 60 && count[&503] >= 30 && count.len() == 2, "{count:?}");
    let refused = replies.iter().find(|reply| reply.status == 503).expect("some were refused");
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert!(refused.error().contains("busy"), "{}", refused.error());
    drop(running);
}

/// A cell that floods the log is cut to a hundred lines a second, and what was dropped is counted.
#[test]
fn log_flood_is_cut() {
    let node = node_with("handler_timeout = \"20s\"");
    assert_eq!(node.get("bad", "/do/log:5000").status, 200);
    assert_eq!(node.get("good", "/do/log:1").status, 200);
    // The count comes with the next line that may be written.
    let is_count = |line: &serde_json::Value| line["message"] == "log lines dropped";
    node.until("the count of dropped lines", |node| {
        assert_eq!(node.get("bad", "/do/log:1").status, 200);
        node.log().lines().iter().any(is_count)
    });
    let dropped = node.log().wait_for("the count", is_count);
    assert!(dropped["dropped"].as_u64().is_some_and(|count| count > 1000), "{dropped}");
    assert_eq!(dropped["service"], "bad");
    assert!(node.log().messages_of("service", "bad").len() < 2000);
    assert_eq!(node.log().messages_of("service", "good"), ["\"line 0\""]);
}

/// Endless loops in handlers, steps and builders, mixed with good requests on the same connections: each is cut at its
/// limit and answered, none costs another request anything. A thousand in each place (C-1).
#[test]
fn loops_in_a_row_are_cut_one_by_one() {
    const LOOPS: usize = 1000;
    const CLIENTS: usize = 4;
    let node = node_with("handler_timeout = \"10ms\"\nstep_timeout = \"10ms\"");
    assert_eq!(node.get("bad", "/do/loop").status, 504);
    let before = node.usage();
    std::thread::scope(|clients| {
        for place in ["/do", "/step", "/builder"] {
            for _ in 0..CLIENTS {
                let node = &node;
                clients.spawn(move || loop_and_work(node, &format!("{place}/loop"), LOOPS / CLIENTS));
            }
        }
    });
    node.until("as many descriptors as before", |node| node.usage().descriptors <= before.descriptors);
    let grown = node.usage().anonymous_bytes.saturating_sub(before.anonymous_bytes);
    assert!(grown < 64 << 20, "{grown} bytes more");
}

/// So many loops, each with a good request of another service behind it.
fn loop_and_work(node: &Node, path: &str, loops: usize) {
    let mut wire = node.connect();
    for _ in 0..loops {
        let reply = wire.get("bad", path);
        assert_eq!(reply.status, 504, "{}", reply.text());
        assert!(reply.error().contains("past its time limit"), "{}", reply.error());
        assert_eq!(wire.get("good", "/step/nothing").status, 200);
    }
}

/// Many faults at once, in all places, leave the node as it was.
#[test]
fn storm_of_faults_passes() {
    let node = node();
    let mut before = node.usage();
    for round in 0..10 {
        let places = ["/do", "/step", "/builder"];
        let paths = places.iter().flat_map(|place| FAULTS.map(|(deed, ..)| format!("{place}/{deed}")));
        let mut storm: Vec<Wire> = paths.map(|path| node.start_get("bad", &path)).collect();
        assert_eq!(node.get("good", "/step/nothing").status, 200);
        storm.iter_mut().for_each(|wire| assert!(wire.reply().status >= 500));
        if round == 0 {
            // With everything that is opened once.
            before = node.usage();
        }
    }
    assert_eq!(node.get("bad", "/").status, 200);
    node.until("as many descriptors as before", |node| node.usage().descriptors <= before.descriptors);
    let grown = node.usage().anonymous_bytes.saturating_sub(before.anonymous_bytes);
    assert!(grown < 64 << 20, "{grown} bytes more");
}
