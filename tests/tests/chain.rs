//! Work models of muBench, served by its cell.

use cellmesh_tests::{Node, Run};
use serde_json::{Map, Value, json};

/// A service that answers at once, with a body, and calls these groups.
fn service(groups: &[&[&str]]) -> Value {
    let groups: Vec<Value> = groups.iter().map(|services| json!({"services": services})).collect();
    json!({"external_services": groups, "internal_service": {"loader": quick()}})
}

fn quick() -> Value {
    json!({"sleep_stress": {"run": false}, "mean_response_size": 0.01})
}

/// A service that fails whenever it is called: it wants a gigabyte.
fn bomb() -> Value {
    let memory = json!({"run": true, "memory_size": 1_000_000, "memory_io": 1});
    json!({"internal_service": {"loader": {"memory_stress": memory, "sleep_stress": {"run": false}}}})
}

fn model(services: &[(&str, Value)]) -> Value {
    services.iter().map(|(name, entry)| ((*name).to_owned(), entry.clone())).collect::<Map<_, _>>().into()
}

fn start(services: &[(&str, Value)]) -> Node {
    Run::model(&model(services)).start()
}

/// The answer of a service one of whose callees failed.
#[track_caller]
fn check_failed(node: &Node, path: &str) {
    let reply = node.get("s0", path);
    assert_eq!((reply.status, reply.json()), (500, json!({"message": "Error in external services request"})));
}

/// muBench as a callee's caller, with cells of the tests as callees: what they write to the log shows when they ran.
/// `callees`: name and path.
fn mixed(groups: &Value, callees: &[(&str, &str)]) -> Node {
    let entry = json!({"external_services": groups, "internal_service": {"loader": quick()}});
    let names: Vec<&str> = callees.iter().map(|(name, _)| *name).chain(["s0"]).collect();
    let paths: Map<String, Value> =
        callees.iter().map(|(name, path)| ((*name).to_owned(), json!(path))).collect();
    let mut toml = format!(
        r#"
        [[cell]]
        component = "{{cells}}/mubench.wasm"
        services = ["s0"]
        [cell.config]
        "mubench.service" = '{entry}'
        "mubench.services" = '{}'
        "mubench.paths" = '{}'
        "#,
        json!(names),
        Value::from(paths),
    );
    for (name, _) in callees {
        toml += &format!("[[cell]]\ncomponent = \"{{cells}}/unruly.wasm\"\nservices = [\"{name}\"]\n");
    }
    Run::app(&toml).start()
}

/// Which callees ran, in order: each has written one line, when it was called, or when it had slept. `count` of them
/// are waited for: the log comes over another pipe than the answer.
fn ran(node: &Node, count: usize) -> Vec<String> {
    let services = |node: &Node| -> Vec<String> {
        let of_cells = node.log().lines().into_iter().filter(|line| line["stream"] == "stdout");
        of_cells.map(|line| line["service"].as_str().expect("a service").to_owned()).collect()
    };
    node.until("as many lines as callees", |node| services(node).len() >= count);
    services(node)
}

/// The example of the README: `s0` calls `s1` and `s2`; all of them answer by themselves too.
#[test]
fn bundled_example_is_served() {
    let text = include_str!("../../examples/chain.json");
    let node = Run::file("chain.json", text).start();
    assert!(node.greeting().starts_with("chain: 3 services on http://"), "{}", node.greeting());
    for service in ["s0", "s1", "s2"] {
        let reply = node.get(service, "/api/v1").ok();
        assert!(!reply.body.is_empty() && reply.body.iter().all(u8::is_ascii_alphabetic), "{service}");
    }
    let answer = node.bridge(&json!({"method": "GET", "path": "/api/v1", "target_service": "s0"}));
    assert_eq!(answer["status"], 200);
}

/// Ten services in a row, and ten of which one calls nine, one after the other or at the same time: all are reached.
#[test]
fn ten_services_are_all_reached() {
    let names: Vec<String> = (0..10).map(|index| format!("s{index}")).collect();
    let callees: Vec<&str> = names[1..].iter().map(String::as_str).collect();
    let alone: Vec<&[&str]> = callees.chunks(1).collect();
    let row = |index: usize| names.get(index + 1).map_or_else(|| service(&[]), |next| service(&[&[next]]));
    let leaf = |first: Value| move |index: usize| if index == 0 { first.clone() } else { service(&[]) };
    let shapes: [Box<dyn Fn(usize) -> Value>; 3] =
        [Box::new(row), Box::new(leaf(service(&[&callees]))), Box::new(leaf(service(&alone)))];
    for (shape, entry) in shapes.iter().enumerate() {
        let mut services: Vec<(&str, Value)> =
            names.iter().map(String::as_str).zip((0..10).map(entry)).collect();
        let node = start(&services);
        assert!(!node.get("s0", "/api/v1").ok().body.is_empty(), "shape {shape}");
        services[9].1 = bomb();
        check_failed(&start(&services), "/api/v1");
    }
}

/// The services of a group run one after the other, whatever the first one does; groups run at the same time.
#[test]
fn groups_run_at_the_same_time_and_their_services_do_not() {
    let callees = [("slow", "/step/slept:1000"), ("after", "/do/log:1"), ("beside", "/do/log:1")];
    let groups = json!([{"services": ["slow", "after"]}, {"services": ["beside"]}]);
    let node = mixed(&groups, &callees);
    assert_eq!(node.get("s0", "/").status, 200);
    assert_eq!(ran(&node, 3), ["beside", "slow", "after"]);
}

/// A callee that fails keeps no other from being called, in its group or in another; the whole is a 500.
#[test]
fn failed_callee_fails_the_whole_and_others_still_run() {
    for failing in ["/do/trap", "/answer?status=404", "/answer?status=201", "/step/error"] {
        let callees = [("fails", failing), ("after", "/do/log:1"), ("beside", "/do/log:1")];
        let groups = json!([{"services": ["fails", "after"]}, {"services": ["beside"]}]);
        let node = mixed(&groups, &callees);
        check_failed(&node, "/");
        let mut ran = ran(&node, 2);
        ran.sort();
        assert_eq!(ran, ["after", "beside"], "{failing}");
    }
}

/// A name may have a suffix that makes it unique: the service without it is called, as often as it is named.
#[test]
fn suffix_only_makes_a_name_unique() {
    let node = mixed(&json!([{"services": ["a", "a__2", "a__x"]}]), &[("a", "/do/log:1")]);
    assert_eq!(node.get("s0", "/").status, 200);
    assert_eq!(ran(&node, 3), ["a", "a", "a"]);
}

/// A service with probability 0 is never called, one with 1 always.
#[test]
fn probabilities_zero_and_one_are_certain() {
    let groups = |p: f64| json!([{"services": ["bomb"], "probabilities": {"bomb": p}}]);
    let caller = |p: f64| json!({"external_services": groups(p), "internal_service": {"loader": quick()}});
    let node = start(&[("s0", caller(0.0)), ("always", caller(1.0)), ("bomb", bomb())]);
    for _ in 0..20 {
        assert_eq!(node.get("s0", "/api/v1").status, 200);
        assert_eq!(node.get("always", "/api/v1").status, 500);
    }
}

/// `seq_len` draws so many of a group's services: sometimes the one that fails, sometimes not; all of them when it is large.
#[test]
fn sequence_length_draws_services() {
    let caller = |seq_len: u32| {
        let group = json!({"services": ["fine", "bomb"], "seq_len": seq_len});
        json!({"external_services": [group], "internal_service": {"loader": quick()}})
    };
    let services = [("s0", caller(1)), ("all", caller(5)), ("fine", service(&[])), ("bomb", bomb())];
    let node = start(&services);
    let statuses: Vec<u16> = (0..60).map(|_| node.get("s0", "/api/v1").status).collect();
    assert!(statuses.contains(&200) && statuses.contains(&500), "{statuses:?}");
    assert_eq!(node.get("all", "/api/v1").status, 500);
}

/// Internal services do their work and make the body: random letters of the mean size, or as many `m`.
#[test]
fn body_is_made_of_letters() {
    let loader = |stress: Value| json!({"internal_service": {"loader": stress}});
    let stress = json!({
        "cpu_stress": {"run": true, "range_complexity": [20, 40], "thread_pool_size": 2, "trials": 2},
        "memory_stress": {"run": true, "memory_size": 100, "memory_io": 1000},
        "disk_stress": {"run": true, "tmp_file_name": "mubtestfile.txt", "disk_write_block_count": 20, "disk_write_block_size": 1024},
        "sleep_stress": {"run": true, "sleep_time": 0.01},
        "mean_response_size": 20,
    });
    let pi =
        json!({"internal_service": {"compute_pi": {"range_complexity": [20, 40], "mean_response_size": 5}}});
    let node = start(&[("s0", loader(stress)), ("pi", pi), ("defaults", json!({}))]);
    let lengths: Vec<usize> = (0..20)
        .map(|_| {
            let body = node.get("s0", "/api/v1").ok().body;
            assert!(body.iter().all(u8::is_ascii_alphabetic));
            body.len()
        })
        .collect();
    // The sum of twenty draws of a mean of 20,000 is over 100,000, but for one time in 10^8.
    assert!(lengths.iter().sum::<usize>() > 100_000, "{lengths:?}");
    let body = node.get("pi", "/api/v1").ok().body;
    assert!(!body.is_empty() && body.iter().all(|byte| *byte == b'm'));
    assert_eq!(node.get("defaults", "/api/v1").status, 200);
}

/// Of several internal services the first in the file counts.
#[test]
fn first_internal_service_counts() {
    let both = r#"{"loader": {"sleep_stress": {"run": false}, "mean_response_size": 1}, "compute_pi": {}}"#;
    let node = Run::file("workmodel.json", &format!(r#"{{"s0": {{"internal_service": {both}}}}}"#)).start();
    let bodies: Vec<u8> = (0..10).flat_map(|_| node.get("s0", "/api/v1").ok().body).collect();
    assert!(bodies.iter().any(|byte| *byte != b'm'), "{:?}", String::from_utf8_lossy(&bodies));
}

/// `bid` chooses another behaviour; a bid that nobody knows chooses the usual one.
#[test]
fn behaviour_is_chosen_by_bid() {
    let mut entry = service(&[]);
    entry["alternative_behaviors"] = json!({
        "calls": {"external_services": [{"services": ["bomb"]}]},
        "counts": {"internal_services": {"compute_pi": {"range_complexity": [5, 5], "mean_response_size": 1}}},
    });
    let node = start(&[("s0", entry), ("bomb", bomb())]);
    assert_eq!(node.get("s0", "/api/v1").status, 200);
    assert_eq!(node.get("s0", "/api/v1?bid=other").status, 200);
    check_failed(&node, "/api/v1?bid=calls");
    let body = node.get("s0", "/api/v1?bid=counts").ok().body;
    assert!(body.iter().all(|byte| *byte == b'm'), "{:?}", String::from_utf8_lossy(&body));
}

/// The query of a GET goes to every callee, and to theirs.
#[test]
fn query_is_passed_on() {
    let mut leaf = service(&[]);
    leaf["alternative_behaviors"] = json!({"b": {"external_services": [{"services": ["bomb"]}]}});
    let node =
        start(&[("s0", service(&[&["s1"]])), ("s1", service(&[&["s2"]])), ("s2", leaf), ("bomb", bomb())]);
    assert_eq!(node.get("s0", "/api/v1?x=1").status, 200);
    check_failed(&node, "/api/v1?x=1&bid=b");
}

/// A trace says who is called, instead of the model: here the model's callee fails and the trace's do not.
#[test]
fn trace_replaces_the_groups() {
    let node =
        start(&[("s0", service(&[&["bomb"]])), ("s1", service(&[])), ("s2", service(&[])), ("bomb", bomb())]);
    let post = |trace: Value| node.post("s0", "/api/v1", trace.to_string());
    for leaf in [json!({}), json!([]), json!([{}])] {
        assert_eq!(post(json!({"s0": [{"s1": leaf, "s2": leaf}, {"s1__2": leaf}]})).status, 200, "{leaf}");
        assert_eq!(post(json!({"s0": leaf})).status, 200, "{leaf}");
    }
    assert_eq!(post(json!({"s0__7": [{"s1": [{"s2": [{"s0": [{}]}]}]}]})).status, 200);
    let failed = post(json!({"s0": [{"s1": [{"s2": [{"s1__9": [{"bomb": [{}]}]}]}]}]}));
    assert_eq!(
        (failed.status, failed.json()),
        (500, json!({"message": "Error in external services request"}))
    );
}

/// A trace's groups run at the same time, the services of each in the order in which they are written.
#[test]
fn trace_keeps_its_order() {
    let callees = [("z", "/step/slept:1000"), ("a", "/do/log:1"), ("m", "/do/log:1")];
    let node = mixed(&json!([]), &callees);
    let trace = r#"{"s0": [{"z": [{}], "a": [{}]}, {"m": [{}]}]}"#;
    assert_eq!(node.post("s0", "/", trace).status, 200);
    assert_eq!(ran(&node, 3), ["m", "z", "a"]);
}

/// Bodies that are no trace, or one for somebody else, are 400.
#[test]
fn bad_traces_are_refused() {
    let node = start(&[("s0", service(&[])), ("s1", service(&[]))]);
    let refused = |trace: &str| {
        let reply = node.post("s0", "/api/v1", trace);
        assert_eq!(reply.status, 400, "{trace}: {}", reply.text());
        reply.json()["message"].as_str().expect("a message").to_owned()
    };
    assert_eq!(refused(r#"{"s0": [{}], "s1": [{}]}"#), "bad trace format");
    let other = refused(r#"{"s1": [{}]}"#);
    assert!(other.contains("s0") && other.contains("s1"), "{other}");
    for trace in ["", "{", "no JSON", "[]", "7", "{}", r#"{"s0": 7}"#] {
        refused(trace);
    }
}

/// A callee of a trace that is no service is an error of its call.
#[test]
fn trace_with_an_unknown_callee_fails() {
    let node = start(&[("s0", service(&[]))]);
    let reply = node.post("s0", "/api/v1", json!({"s0": [{"nobody": [{}]}]}).to_string());
    assert_eq!(reply.status, 500);
}

/// Services may have their own paths, and are called there.
#[test]
fn services_are_called_on_their_paths() {
    let node = mixed(&json!([{"services": ["a"]}]), &[("a", "/do/log:1")]);
    assert_eq!(node.get("s0", "/any/path").status, 200);
    assert_eq!(ran(&node, 1), ["a"]);
}

/// Tracing headers come back with the response of a chain.
#[test]
fn tracing_headers_come_back() {
    let node = start(&[("s0", service(&[&["s1"]])), ("s1", service(&[]))]);
    let mut wire = node.connect();
    wire.send("GET /api/v1 HTTP/1.1\r\nhost: s0\r\nx-request-id: r-7\r\nx-b3-traceid: t-7\r\n\r\n");
    let reply = wire.reply().ok();
    assert_eq!((reply.all("x-request-id"), reply.all("x-b3-traceid")), (vec!["r-7"], vec!["t-7"]));
}

/// Services that are served as REST although the model says gRPC are named once at the start.
#[test]
fn grpc_is_served_as_rest_and_said() {
    let mut entry = service(&[&["s1"]]);
    entry["request_method"] = json!("grpc");
    let node = start(&[("s0", entry), ("s1", service(&[]))]);
    assert!(node.greeting().contains("grpc") || node.greeting().contains("gRPC"), "{}", node.greeting());
    assert_eq!(node.get("s0", "/api/v1").status, 200);
}

/// A manifest that names a work model has its services, and settings of its own for them.
#[test]
fn work_model_has_the_settings_of_a_manifest() {
    let model = model(&[("s0", service(&[&["s1"]])), ("s1", service(&[]))]);
    let manifest = "workmodel = \"model.json\"\n[dpu]\ntarget_bytes_max = \"256B\"\n";
    let node = Run::file("app.toml", manifest).with_file("model.json", model.to_string()).start();
    assert_eq!(node.get("s0", "/api/v1").status, 200);
    assert_eq!(node.get("s0", &format!("/api/v1?{}", "x".repeat(256))).status, 414);
}
