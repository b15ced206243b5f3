//! Config that cannot be used: everything that is wrong at once, and nothing is bound.

use std::net::TcpListener;

use cellmesh_tests::{Ended, Run};

/// Runs and checks a file that is refused: exit status 2, nothing on standard output, and each line of standard error
/// names the file and has the parts that are expected, in order.
#[track_caller]
fn check_refused(run: Run, problems: &[&[&str]]) {
    // If it got as far as to listen, it would fail with another status.
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let ended = run.listen(taken.local_addr().expect("bound")).end();
    check_problems(&ended, problems);
}

#[track_caller]
fn check_problems(ended: &Ended, problems: &[&[&str]]) {
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(2), ""), "{}", ended.stderr);
    let lines: Vec<&str> = ended.stderr.lines().collect();
    assert_eq!(lines.len(), problems.len(), "{}", ended.stderr);
    for (line, parts) in lines.iter().zip(problems) {
        for part in *parts {
            assert!(line.contains(part), "no {part:?} in {line:?}");
        }
    }
}

/// Each kind of mistake in an `app.toml`, all in one file, each with its line, key, and what would be right.
#[test]
fn every_problem_is_told_at_once() {
    let toml = r#"name = 7
entry = "nobody"
listen = "localhost"
colour = "red"

[dpu]
body_bytes_max = "2GiB"
request_timeout = 30
requests = 1

[runtime]
lanes = 0
drain_timeout = "soon"

[[cell]]
component = "missing.wasm"
services = ["a", "b c"]
memory_max = "1KiB"
instances = "some"
handler_timout = "1s"

[[cell]]
services = ["a"]
config = { key = 7 }
egress = { allow = ["api.example.com", "http://x/"], deny = [] }
grants = { scratch = "missing", sockets = true }
"#;
    let ended = Run::file("app.toml", toml).end();
    assert_eq!(ended.code, Some(2), "{}", ended.stderr);
    for parts in [
        ["app.toml:1: name", "7 does not fit"],
        ["app.toml:2: entry", "nobody is no service"],
        ["app.toml:3: listen", "localhost"],
        ["app.toml:4: colour", "unknown"],
        ["app.toml:7: dpu.body_bytes_max", "at most \"1GiB\""],
        ["app.toml: dpu.buffered_bytes_max", "at least dpu.body_bytes_max"],
        ["app.toml: dpu.answer_bytes_max", "at least dpu.body_bytes_max"],
        ["app.toml:8: dpu.request_timeout", "30"],
        ["app.toml:9: dpu.requests", "requests_max"],
        ["app.toml:12: runtime.lanes", "from 1 to 256"],
        ["app.toml:13: runtime.drain_timeout", "soon"],
        ["app.toml:16: cell[0].component", "missing.wasm"],
        ["app.toml:17: cell[0].services[1]", "b c"],
        ["app.toml:18: cell[0].memory_max", "1KiB"],
        ["app.toml:19: cell[0].instances", "reuse"],
        ["app.toml:20: cell[0].handler_timout", "handler_timeout"],
        ["cell[1].component", "is missing"],
        ["app.toml:23: cell[1].services[0]", "a is served twice"],
        ["app.toml:24: cell[1].config.key", "7"],
        ["app.toml:25: cell[1].egress.allow[1]", "must be a host, host:port, or *.domain"],
        ["app.toml:25: cell[1].egress.deny", "unknown"],
        ["app.toml:26: cell[1].grants.scratch", "missing"],
        ["app.toml:26: cell[1].grants.sockets", "unknown"],
    ] {
        let found = ended.stderr.lines().any(|line| parts.iter().all(|part| line.contains(part)));
        assert!(found, "no line with {parts:?} in\n{}", ended.stderr);
    }
    assert_eq!(ended.stderr.lines().count(), 23, "{}", ended.stderr);
}

/// What is no TOML is told with its line.
#[test]
fn text_that_is_no_toml_is_refused() {
    check_refused(Run::file("app.toml", "name = \"shop\"\n[[cell]\n"), &[&["app.toml:2"]]);
    check_refused(Run::file("app.toml", ""), &[&["app.toml", "there is no cell", "[[cell]]"]]);
}

/// Two services whose names a host name cannot tell apart are one too many.
#[test]
fn services_that_differ_in_case_alone_are_refused() {
    let toml = "[[cell]]\ncomponent = \"{cells}/hello.wasm\"\nservices = [\"shop\", \"Shop\"]\n";
    let ended = Run::app(toml).end();
    assert_eq!(ended.code, Some(2), "{}", ended.stderr);
    assert!(ended.stderr.contains("app.toml:3") && ended.stderr.contains("Shop"), "{}", ended.stderr);
}

/// A file that is not there.
#[test]
fn missing_file_is_named() {
    let run = Run::app("").arg("--lanes").arg("1");
    let ended = run.instead("nowhere/app.toml").end();
    check_problems(&ended, &[&["nowhere/app.toml", "cannot be read", "app.toml or a workmodel.json"]]);
}

/// Each kind of mistake in a work model, all in one file.
#[test]
fn every_problem_of_a_work_model_is_told_at_once() {
    let model = r#"{
        "s0": {
            "external_services": [
                {"services": ["s1", "nobody", "s1__2"], "probabilities": {"s1": 1.5}},
                {"services": "s1"},
                {"services": ["s1"], "seq_len": -1}
            ],
            "path": "no-slash"
        },
        "s1": {"external_services": {}, "internal_service": {"loader": 7}},
        "s2": {"internal_service": {"loadr": {}}},
        "s3": {"internal_service": {"loader": {"cpu_stress": {"run": true, "range_complexity": [9]}}}},
        "s 4": {},
        "s5": [],
        "s6": {"alternative_behaviors": {"b": {"external_services": [{"services": ["s9"]}]}}}
    }"#;
    let ended = Run::file("workmodel.json", model).end();
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(2), ""), "{}", ended.stderr);
    for parts in [
        ["s0.external_services[0].services[1]", "nobody"],
        ["s0.external_services[0].probabilities.s1", "1.5"],
        ["s0.external_services[1].services", "list"],
        ["s0.external_services[2].seq_len", "-1"],
        ["s0.path", "no-slash"],
        ["s1.external_services", "list"],
        ["s1.internal_service.loader", "object"],
        ["s 4", "letters, digits"],
        ["s5", "object"],
        ["s6.alternative_behaviors.b.external_services[0].services[0]", "s9"],
    ] {
        let found = ended.stderr.lines().any(|line| parts.iter().all(|part| line.contains(part)));
        assert!(found, "no line with {parts:?} in\n{}", ended.stderr);
    }
    assert!(ended.stderr.lines().all(|line| line.contains("workmodel.json")), "{}", ended.stderr);
}

/// A function that the muBench cell does not have is found before anything is served, not at the first request.
#[test]
fn unknown_function_is_refused() {
    let model = r#"{"s0": {"internal_service": {"loadr": {}}}}"#;
    let parts = &["s0.internal_service.loadr", "loader, compute_pi, colosseum"];
    check_problems(&Run::file("workmodel.json", model).check(), &[parts]);
}

/// Two names that a host name cannot tell apart are one too many, in a work model too.
#[test]
fn services_of_a_model_that_differ_in_case_alone_are_refused() {
    let ended = Run::file("workmodel.json", r#"{"s0": {}, "S0": {}}"#).check();
    check_problems(&ended, &[&["workmodel.json: S0", "s0 has the same name"]]);
}

/// What is no JSON, or no work model.
#[test]
fn text_that_is_no_work_model_is_refused() {
    check_refused(Run::file("workmodel.json", "{\n\"s0\": {,\n"), &[&["workmodel.json:2", "is not JSON"]]);
    for text in ["[]", "{}", "7"] {
        check_refused(Run::file("workmodel.json", text), &[&["workmodel.json", "a key for each service"]]);
    }
}

/// The address is taken by somebody else: that is no mistake of the config, and says so.
#[test]
fn taken_address_is_told() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("bound");
    let toml = "[[cell]]\ncomponent = \"{cells}/hello.wasm\"\nservices = [\"hello\"]\n";
    let ended = Run::app(toml).listen(address).end();
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    assert!(ended.stderr.contains(&format!("cannot listen on {address}")), "{}", ended.stderr);
}

/// A component that is something else: what it is, and what would help.
#[test]
fn files_that_are_no_components_are_told() {
    let toml = "[[cell]]\ncomponent = \"cell.wasm\"\nservices = [\"hello\"]\n";
    for (bytes, what) in [
        (
            &b"\0asm\x01\0\0\0"[..],
            "is no WebAssembly component: it is a core module; build it for wasm32-wasip2",
        ),
        (b"text\nand more", "is no WebAssembly component: it does not begin as WebAssembly does"),
    ] {
        let ended = Run::app(toml).with_file("cell.wasm", bytes).end();
        assert_eq!(ended.code, Some(1), "{}", ended.stderr);
        assert!(ended.stderr.contains(what), "no {what:?} in {}", ended.stderr);
    }
}

/// `check` says whether a file can be used, and serves nothing.
#[test]
fn check_serves_nothing() {
    let toml = "name = \"shop\"\n[[cell]]\ncomponent = \"{cells}/hello.wasm\"\nservices = [\"a\", \"b\"]\n\
                [dpu]\nconnections_max = 100\nbody_bytes_max = \"1MiB\"\nbuffered_bytes_max = \"1MiB\"\n\
                answer_bytes_max = \"1MiB\"\n"; // so that any machine will do
    let good = Run::app(toml).check();
    assert_eq!(
        (good.code, good.stdout.as_str()),
        (Some(0), "shop: 2 services, nothing wrong"),
        "{}",
        good.stderr
    );
    let bad = Run::file("app.toml", "lanes = 1").check();
    check_problems(&bad, &[&["app.toml: cell", "there is no cell"], &["app.toml:1: lanes", "unknown"]]);
}

/// A cell is told what its config says, each service of it its own name.
#[test]
fn cell_reads_its_config() {
    let node = Run::app(
        r#"
        [[cell]]
        component = "{cells}/unruly.wasm"
        services = ["a", "b"]
        config = { currency = "EUR", "with.dot" = "" }
        "#,
    )
    .start();
    assert_eq!(node.get("a", "/config?key=currency").ok().text(), "EUR");
    assert_eq!(node.get("b", "/config?key=with.dot").ok().text(), "");
    assert_eq!(node.get("a", "/config?key=other").status, 404);
    assert_eq!(node.get("b", "/reflect").ok().json()["service"], "b");
}

/// The greeting names a path to try, of the entry and of another service. The entry is `s0`, else the first in the file.
#[test]
fn greeting_says_what_to_type() {
    for (model, entry, other) in [
        (r#"{"z": {"path": "/x"}, "s0": {"path": "/y"}}"#, "/y", "/x -H 'x-cellmesh-service: z'"),
        (r#"{"z": {"path": "/x"}, "a": {"path": "/y"}}"#, "/x", "/y -H 'x-cellmesh-service: a'"),
    ] {
        let node = Run::file("two.json", model).start();
        let (greeting, address) = (node.greeting(), node.address());
        assert!(greeting.contains(&format!("try: curl http://{address}{entry}\n")), "{greeting}");
        assert!(greeting.contains(&format!("curl http://{address}{other}\n")), "{greeting}");
        let body = node.get("localhost", entry).ok();
        assert_eq!(body.body.len(), 0);
    }
}
