//! What became of single requests: kept, told on the admin port, and sent to a collector.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use cellmesh_tests::upstream::{Upstream, nobody};
use cellmesh_tests::{Node, Placement, Run, Wire, placement, sample, until};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::{Span, status};
use serde_json::Value;

const TRACE_ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// Two services, and the admin port of the process that hosts them.
fn start(trace: &str) -> (Node, SocketAddr) {
    let (node, [of_clients, of_cells]) = start_with_both(trace);
    (node, if placement() == Placement::Split { of_cells } else { of_clients })
}

/// The same with two admin ports: of the process with clients, and of a worker, if it is another.
fn start_with_both(trace: &str) -> (Node, [SocketAddr; 2]) {
    let [first, second] = [nobody(), nobody()];
    let app = format!(
        r#"
        [admin]
        listen = "{first}"
        [trace]
        {trace}
        [[cell]]
        component = "{{cells}}/unruly.wasm"
        services = ["front", "back"]
        handler_timeout = "60s"
        "#
    );
    let node = Run::app(&app).lanes(1).worker_admins(&[second]).start();
    (node, [first, second])
}

fn json(admin: SocketAddr, path: &str) -> Value {
    let mut wire = Wire::connect(admin);
    wire.send(format!("GET {path} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n"));
    let reply = wire.reply();
    assert!(reply.status == 200 || reply.status == 404, "{path}: {}", reply.text());
    reply.json()
}

/// Those that are kept, newest first.
fn kept(admin: SocketAddr) -> Vec<Value> {
    json(admin, "/v1/requests")["requests"].as_array().expect("a list").clone()
}

/// The newest of a service, with all its parts.
fn newest(admin: SocketAddr, service: &str) -> Value {
    let kept = kept(admin);
    let found = kept.iter().find(|request| request["service"] == service);
    let id = found.unwrap_or_else(|| panic!("{service} in {kept:?}"))["id"].as_str().expect("an id");
    json(admin, &format!("/v1/requests/{id}"))
}

/// The parts of a request, by their steps.
fn part<'r>(request: &'r Value, step: &str) -> &'r Value {
    let spans = request["spans"].as_array().expect("a list");
    let named = |span: &&Value| span["step"] == step;
    spans.iter().find(named).unwrap_or_else(|| panic!("{step} in {spans:?}"))
}

fn get(node: &Node, service: &str, target: &str, headers: &str) -> cellmesh_tests::Reply {
    let mut wire = node.connect();
    wire.send(format!(
        "GET {target} HTTP/1.1\r\nhost: x\r\nx-cellmesh-service: {service}\r\n{headers}connection: close\r\n\r\n"
    ));
    wire.reply()
}

/// A request is told with its graph, with when each step ran, and with what its steps called.
#[test]
fn request_is_told_step_by_step() {
    let (node, admin) = start("");
    let _ = node.get("front", "/pipe?url=http://back/a&url=http://back/b&tolerant").ok();
    until("the request is kept", || kept(admin).len() == 3);
    let told = newest(admin, "front");
    let request = &told["request"];
    assert_eq!((&request["why"], &request["status"]), (&"sampled".into(), &200.into()));
    assert_eq!(request["target"], "/pipe?url=http://back/a&url=http://back/b&tolerant");
    assert_eq!(
        (&told["plan"]["root"], &told["plan"]["steps"][2]["kind"]),
        (&"order#4".into(), &"pipe".into())
    );
    assert_eq!(told["plan"]["steps"][0]["requests"][0]["url"], "http://back/a");
    let callees = told["callees"].as_array().expect("a list");
    let targets: Vec<&Value> = callees.iter().map(|callee| &callee["request"]["target"]).collect();
    assert_eq!(targets.len(), 2);
    assert!(targets.contains(&&"/a".into()) && targets.contains(&&"/b".into()), "{targets:?}");
    for callee in callees {
        assert_eq!(callee["request"]["caller"], request["id"]);
        assert_eq!(callee["request"]["trace_id"], request["trace_id"]);
        assert_eq!((&callee["plan"], &callee["spans"][0]["kind"]), (&Value::Null, &"handler".into()));
    }
    let (call, gather) = (part(&told, "call#0"), part(&told, "gather#3"));
    assert_eq!((&call["target"], &call["status"]), (&"back".into(), &200.into()));
    let time = |part: &Value, name: &str| part[name].as_f64().expect("a number");
    assert!(time(gather, "start_seconds") >= time(call, "start_seconds") + time(call, "duration_seconds"));
    assert!(time(gather, "run_seconds") > 0.0);
    // What all guest calls did together, and both calls to others, which overlap.
    let spans = told["spans"].as_array().expect("a list");
    for name in ["queue_seconds", "run_seconds"] {
        let sum: f64 = spans.iter().filter_map(|span| span[name].as_f64()).sum();
        assert!((time(request, name) - sum).abs() < 1e-7, "{name} of {told}");
    }
    let ends = spans.iter().filter(|span| span["kind"] == "egress");
    let ends = ends.map(|span| time(span, "start_seconds") + time(span, "duration_seconds"));
    let called = ends.fold(0.0, f64::max) - time(call, "start_seconds");
    assert!(time(request, "egress_seconds") <= called + 1e-7, "{told}");
    assert!(time(request, "egress_seconds") >= time(call, "duration_seconds"), "{told}");
    let path = told["critical_path"].as_array().expect("a list");
    assert_eq!(
        (path.len(), &path[1]),
        (2, &"gather#3".into()),
        "one of the calls, then what waited for both"
    );
}

/// A step whose response was prepared is told as one that took no time, and the plan says that it could have run.
#[test]
fn prepared_step_is_told() {
    let (node, admin) = start("");
    let reply = node.get("front", "/order?url=http://back/&prepared=ready");
    assert_eq!((reply.status, reply.text()), (201, "ready"));
    until("the request is kept", || kept(admin).len() == 2);
    let told = newest(admin, "front");
    assert_eq!(told["plan"]["steps"][1]["kind"], "prepared");
    let gather = part(&told, "gather#1");
    assert_eq!((&gather["kind"], &gather["status"]), (&"prepared".into(), &201.into()));
    assert_eq!((&gather["duration_seconds"], &gather["run_seconds"]), (&0.0.into(), &Value::Null));
    assert_eq!(told["critical_path"], serde_json::json!(["call#0", "gather#1"]));
}

/// A call that is refused before it is sent is a step that ran and failed: it is told, it is why the request failed, and it is counted.
#[test]
fn calls_that_are_not_sent_are_told() {
    let (node, admin) = start("");
    let refused = node.get("front", "/order?url=http://nosuch/");
    assert_eq!((refused.status, refused.header("x-cellmesh-error")), (503, Some("egress")));
    until("the request is kept", || kept(admin).len() == 1);
    let told = newest(admin, "front");
    let call = part(&told, "call#0");
    assert_eq!((&call["target"], &call["status"]), (&"elsewhere".into(), &503.into()));
    assert!(call["error"].as_str().is_some_and(|why| why.contains("\"nosuch\"")), "{told}");
    assert_eq!(told["request"]["error"], call["error"]);
    assert_eq!(told["critical_path"], serde_json::json!(["call#0"]));
    let labels = "{service=\"front\",target=\"elsewhere\",step=\"call\"}";
    for name in ["step_egress_seconds_count", "step_egress_errors_total"] {
        assert_eq!(sample(admin, &format!("{name}{labels}")), 1, "{name}");
    }
}

/// What failed is kept whatever its share, and says which step it was; so is what nobody waited for to its end.
#[test]
fn errors_are_kept() {
    let (node, admin) = start("sample_per_second_min = 0");
    let _ = node.get("front", "/").ok();
    assert_eq!(node.get("front", "/step/error").status, 500);
    assert_eq!(node.get("front", "/do/trap").status, 500);
    assert_eq!(node.get("front", "/bad-graph/empty-id").status, 500);
    assert_eq!(node.get("front", "/answer?status=404").status, 404);
    until("what failed is kept", || kept(admin).len() == 3);
    let why: Vec<Value> = kept(admin).iter().map(|request| request["why"].clone()).collect();
    assert_eq!(why, ["error", "error", "error"], "neither what went well nor a client's mistake");
    let said: Vec<String> = kept(admin).iter().map(|request| request["error"].to_string()).collect();
    assert!(
        said[0].contains("bad graph") && said[1].contains("trap") && said[2].contains("as asked"),
        "{said:?}"
    );
    let id = kept(admin)[2]["id"].as_str().expect("an id").to_owned();
    let told = json(admin, &format!("/v1/requests/{id}"));
    assert!(part(&told, "guilty")["error"].as_str().is_some_and(|why| why.contains("as asked")), "{told}");
    let impatient = node.start_get("front", "/do/sleep:60000");
    node.until_begun(1);
    drop(impatient);
    until("what was given up is kept", || kept(admin).len() == 4);
    assert_eq!(kept(admin)[0]["status"], Value::Null);
}

/// Calls that are the same but for when they were made lead each to its own callee, also where nobody gave them ids.
#[test]
fn same_calls_lead_to_different_callees() {
    let (node, admin) = start("sample_per_second_min = 0");
    let failing = "http://back/answer?status=503";
    assert_eq!(node.get("front", &format!("/pipe?url={failing}&url={failing}&url={failing}")).status, 503);
    until("all are kept", || kept(admin).len() == 4);
    let told = newest(admin, "front");
    let callees: Vec<&Value> =
        told["spans"].as_array().expect("a list").iter().map(|span| &span["callee"]).collect();
    let callees: std::collections::BTreeSet<&str> = callees.into_iter().filter_map(Value::as_str).collect();
    assert_eq!((callees.len(), told["callees"].as_array().expect("a list").len()), (3, 3), "{told}");
    let callers: Vec<Value> = kept(admin).iter().map(|request| request["caller"].clone()).collect();
    assert_eq!(callers.iter().filter(|caller| **caller == told["request"]["id"]).count(), 3, "{callers:?}");
}

/// A request that nobody gave a trace has the one in the log that it is kept by, and so have its callees.
#[test]
fn log_has_the_trace_that_was_begun_here() {
    let (node, admin) = start("sample = 1.0");
    let _ = node.get("front", "/pipe?url=http://back/do/log:1&tolerant").ok();
    assert_eq!(node.get("front", "/do/trap").status, 500);
    until("all are kept", || kept(admin).len() == 3);
    let trace_of = |target: &str| {
        let kept = kept(admin);
        let found = kept.iter().find(|request| request["target"] == target);
        found.unwrap_or_else(|| panic!("{target} in {kept:?}"))["trace_id"].clone()
    };
    let of_callee = node.log().wait_for("the callee's line", |line| line["message"] == "line 0");
    let of_failed = node.log().wait_for("our own line", |line| line["message"] == "guest call failed");
    assert_eq!(of_callee["trace_id"], trace_of("/pipe?url=http://back/do/log:1&tolerant"));
    assert_eq!(of_failed["trace_id"], trace_of("/do/trap"));
    assert_ne!(of_callee["trace_id"], of_failed["trace_id"]);
}

/// Slow ones are kept whatever their share.
#[test]
fn slow_requests_are_kept() {
    let (node, admin) = start("sample_per_second_min = 0\nslow = \"50ms\"");
    let _ = node.get("front", "/").ok();
    let _ = node.get("front", "/step/sleep:100").ok();
    until("the slow one is kept", || !kept(admin).is_empty());
    let kept = kept(admin);
    assert_eq!((kept.len(), &kept[0]["why"]), (1, &"slow".into()));
}

/// No more are kept than config says, and none that came first; an id that is not kept any more says so.
#[test]
fn what_is_kept_is_bounded() {
    let (node, admin) = start("sample = 1.0\nkept_max = 3");
    for number in 0..5 {
        let _ = node.get("front", &format!("/?{number}")).ok();
    }
    until("the last is kept", || kept(admin).first().is_some_and(|request| request["target"] == "/?4"));
    let targets: Vec<Value> = kept(admin).iter().map(|request| request["target"].clone()).collect();
    assert_eq!(targets, ["/?4", "/?3", "/?2"]);
    for id in ["0-1", "7-1", "what", ""] {
        let told = json(admin, &format!("/v1/requests/{id}"));
        assert!(
            told["error"].as_str().is_some_and(|why| why.contains("/v1/requests lists those")),
            "{id}: {told}"
        );
    }
}

/// A caller's trace goes on: who samples is believed, who does not is too, and callees see our span as their parent.
#[test]
fn trace_of_the_caller_is_carried_on() {
    let (node, admin) = start("");
    let sampled = format!("traceparent: 00-{TRACE_ID}-00f067aa0ba902b7-01\r\ntracestate: a=b\r\n");
    let seen = get(&node, "front", "/order?url=http://back/reflect", &sampled).ok().json();
    let header = |name: &str| {
        let headers = seen["headers"].as_array().expect("a list");
        let found = headers.iter().find(|header| header[0] == name).map(|header| header[1].as_str());
        found.flatten().unwrap_or_else(|| panic!("{name} in {seen}")).to_owned()
    };
    let ours = header("traceparent");
    assert!(ours.starts_with(&format!("00-{TRACE_ID}-")) && ours.ends_with("-01"), "{ours}");
    assert!(!ours.contains("00f067aa0ba902b7"), "the callee's parent is our step");
    assert_eq!(header("tracestate"), "a=b");
    until("both are kept", || kept(admin).len() == 2);
    assert!(kept(admin).iter().all(|request| request["trace_id"] == TRACE_ID));
    let declined = format!("traceparent: 00-{TRACE_ID}-00f067aa0ba902b7-00\r\n");
    let _ = get(&node, "front", "/order?url=http://back/reflect", &declined).ok();
    let _ = get(&node, "front", "/", "traceparent: nonsense\r\n").ok();
    until("the last is kept", || kept(admin)[0]["target"] == "/");
    assert_eq!(kept(admin).len(), 3, "one whose caller does not want it is not");
    assert_ne!(kept(admin)[0]["trace_id"], TRACE_ID);
}

/// A collector that takes OTLP over HTTP, as its own types read it.
#[derive(Clone, Default)]
struct Collected {
    spans: Arc<Mutex<Vec<(String, Span)>>>,
    /// Attributes of all resources.
    resources: Arc<Mutex<Vec<(String, String)>>>,
}

impl Collected {
    /// Takes one message.
    fn take(&self, body: &[u8]) {
        let message: ExportTraceServiceRequest = serde_json::from_slice(body).expect("OTLP in JSON");
        for resource in message.resource_spans {
            let attributes = resource.resource.expect("a resource").attributes.into_iter();
            let attributes: Vec<(String, String)> = attributes
                .map(|known| match known.value.and_then(|value| value.value) {
                    Some(any_value::Value::StringValue(value)) => (known.key, value),
                    other => panic!("{}: {other:?}", known.key),
                })
                .collect();
            let (_, name) = attributes.iter().find(|(key, _)| key == "service.name").expect("a name");
            let spans = resource.scope_spans.into_iter().flat_map(|scope| scope.spans);
            let spans = spans.map(|span| (name.clone(), span));
            self.spans.lock().expect("no panic under it").extend(spans);
            self.resources.lock().expect("no panic under it").extend(attributes);
        }
    }

    fn all(&self) -> Vec<(String, Span)> {
        self.spans.lock().expect("no panic under it").clone()
    }

    fn has(&self, key: &str, value: &str) -> bool {
        let resources = self.resources.lock().expect("no panic under it");
        resources.iter().any(|(known, found)| known == key && (found == value || value.is_empty()))
    }

    fn named(&self, service: &str, name: &str) -> Option<Span> {
        let all = self.all();
        all.into_iter().find(|(of, span)| of == service && span.name == name).map(|(_, span)| span)
    }
}

/// An attribute that is a number with a fraction.
fn attribute(span: &Span, key: &str) -> Option<f64> {
    let found = span.attributes.iter().find(|known| known.key == key)?;
    match found.value.as_ref()?.value {
        Some(any_value::Value::DoubleValue(value)) => Some(value),
        _ => None,
    }
}

/// Of a request whose graph only calls others: its functions are the handler alone, and it calls while its graph does.
fn time_is_summed(request: &Span, graph: &Span, handler: &Span) {
    let of = |span, part: &str| attribute(span, &format!("cellmesh.{part}_seconds"));
    for part in ["queue", "run"] {
        assert_eq!((of(request, part), of(graph, part)), (of(handler, part), Some(0.0)), "{part}");
    }
    assert!(of(request, "run") > Some(0.0) && of(request, "egress") > Some(0.0));
    assert_eq!(of(request, "egress"), of(graph, "egress"));
}

/// Spans are of the resource that the environment names; a name for all of them has that of their service beside it.
#[test]
fn environment_names_the_resource() {
    let collected = Collected::default();
    let taken = collected.clone();
    let collector = Upstream::start(move |_: &str, body: &[u8], stream: &mut std::net::TcpStream| {
        taken.take(body);
        write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{{}}").is_ok()
    });
    let app = "[[cell]]\ncomponent = \"{cells}/hello.wasm\"\nservices = [\"hello\"]\n";
    let node = Run::app(app)
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", &format!("http://{}", collector.address()))
        .env("OTEL_RESOURCE_ATTRIBUTES", "k8s.pod.name=cellmesh-0,team=a%20b")
        .env("OTEL_SERVICE_NAME", "shop")
        .env("OTEL_TRACES_SAMPLER", "always_on")
        .start();
    assert_eq!(node.get("hello", "/").status, 200);
    until("a span", || collected.named("shop", "GET hello").is_some());
    for (key, value) in [
        ("k8s.pod.name", "cellmesh-0"),
        ("team", "a b"),
        ("cellmesh.service", "hello"),
        ("service.version", env!("CARGO_PKG_VERSION")),
        ("service.instance.id", ""),
    ] {
        until(key, || collected.has(key, value));
    }
}

/// What is kept goes to a collector: a span for each request and each of its parts, put together by their ids.
#[test]
fn spans_are_sent_to_a_collector() {
    let collected = Collected::default();
    let taken = collected.clone();
    let failures = Mutex::new(2_u32);
    let collector = Upstream::start(move |head: &str, body: &[u8], stream: &mut std::net::TcpStream| {
        assert!(head.starts_with("POST /v1/traces HTTP/1.1"), "{head}");
        let mut failures = failures.lock().expect("no panic under it");
        // The first tries find it too busy.
        let status = if *failures > 0 { "503 Service Unavailable" } else { "200 OK" };
        if *failures == 0 {
            taken.take(body);
        }
        *failures = (*failures).saturating_sub(1);
        write!(stream, "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{{}}")
            .is_ok()
    });
    let (node, admin) = start(&format!("endpoint = \"http://{}\"", collector.address()));
    assert_eq!(node.get("front", "/order?url=http://back/&url=http://back/answer?status=503").status, 503);
    until("all spans", || collected.named("front", "GET front").is_some());
    let [front, first, second] = ["GET front", "call#0 to back", "call#1 to back"].map(|name| {
        collected.named("front", name).unwrap_or_else(|| panic!("{name} in {:?}", collected.all()))
    });
    assert_eq!((front.kind(), first.kind()), (SpanKind::Server, SpanKind::Client));
    until("the network side's span", || collected.named("cellmesh-dpu", "GET front").is_some());
    let ingress = collected.named("cellmesh-dpu", "GET front").expect("just seen");
    assert_eq!((ingress.kind(), &front.parent_span_id), (SpanKind::Server, &ingress.span_id));
    assert!(ingress.parent_span_id.is_empty(), "its client traces nothing");
    let ours: Vec<Span> = collected.all().into_iter().map(|(_, span)| span).collect();
    assert!(ours.iter().all(|span| span.trace_id == front.trace_id && span.trace_id.len() == 16));
    let graph = collected.named("front", "graph").expect("it had a graph");
    let handler = collected.named("front", "handler").expect("it had a handler");
    assert!([&graph, &handler].iter().all(|part| part.parent_span_id == front.span_id));
    assert!([&first, &second].iter().all(|call| call.parent_span_id == graph.span_id));
    assert!(handler.end_time_unix_nano <= graph.start_time_unix_nano);
    assert!(graph.start_time_unix_nano <= first.start_time_unix_nano);
    let callees: Vec<Span> = collected
        .all()
        .into_iter()
        .filter(|(of, span)| of == "back" && span.name == "GET back")
        .map(|(_, span)| span)
        .collect();
    assert_eq!(callees.len(), 2);
    assert!(callees.iter().any(|callee| callee.parent_span_id == first.span_id));
    assert!(callees.iter().any(|callee| callee.parent_span_id == second.span_id));
    let code = |span: &Span| span.status.as_ref().map(|status| status.code());
    assert_eq!((code(&first), code(&second)), (None, Some(status::StatusCode::Error)));
    time_is_summed(&front, &graph, &handler);
    assert!(front.start_time_unix_nano <= first.start_time_unix_nano);
    assert!(second.end_time_unix_nano <= front.end_time_unix_nano);
    // What the network side has had of it is sent by the process that has clients.
    let by_hosting = if placement() == Placement::CoHosted { 4 } else { 3 };
    until("it is counted", || sample(admin, "traced_requests_total{outcome=\"sent\"}") == by_hosting);
    drop(node);
}

/// What the network side has of a request lies between the client's span and the cell's; nobody hears of one whose client
/// wants it so, and of one that has an error everybody does, cell or not.
#[test]
fn network_side_is_between_client_and_cell() {
    let collected = Collected::default();
    let taken = collected.clone();
    let collector = Upstream::start(move |_: &str, body: &[u8], stream: &mut std::net::TcpStream| {
        taken.take(body);
        write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").is_ok()
    });
    let trace = format!("slow = \"1h\"\nendpoint = \"http://{}\"", collector.address());
    let (node, _) = start(&format!("{trace}\n[service.back]\nin_flight_max = 1"));
    let from = |flags: &str| format!("traceparent: 00-{TRACE_ID}-00f067aa0ba902b7-{flags}\r\n");
    let _ = get(&node, "front", "/declined", &from("00")).ok();
    let held = node.start_get("back", "/do/sleep:60000");
    node.until_begun(1);
    assert_eq!(node.get("back", "/refused").status, 503);
    let _ = get(&node, "front", "/wanted", &from("01")).ok();
    let path_is = |span: &Span, path: &str| {
        let found = span.attributes.iter().find(|known| known.key == "url.path");
        let value = found.and_then(|known| known.value.as_ref()?.value.as_ref());
        matches!(value, Some(any_value::Value::StringValue(value)) if value == path)
    };
    let of = |service: &str, path: &str| {
        let all = collected.all();
        all.into_iter().find(|(of, span)| of == service && path_is(span, path)).map(|(_, span)| span)
    };
    until("both spans of the one that is wanted", || {
        of("cellmesh-dpu", "/wanted").is_some() && of("front", "/wanted").is_some()
    });
    let [ingress, cell] = ["cellmesh-dpu", "front"].map(|of_whom| of(of_whom, "/wanted").expect("just seen"));
    let hex = |id: &[u8]| id.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    assert_eq!(
        (hex(&ingress.trace_id), hex(&ingress.parent_span_id)),
        (TRACE_ID.into(), "00f067aa0ba902b7".into())
    );
    assert_eq!((&cell.trace_id, &cell.parent_span_id), (&ingress.trace_id, &ingress.span_id));
    until("the span of the one that was refused", || of("cellmesh-dpu", "/refused").is_some());
    let refused = of("cellmesh-dpu", "/refused").expect("just seen");
    assert_eq!(refused.status.map(|status| status.code()), Some(status::StatusCode::Error));
    assert!(collected.all().iter().all(|(_, span)| !path_is(span, "/declined")));
    drop(held);
}

/// Requests that are shed are not those that are sampled each second: one that is served beside a flood of them is. Of the flood
/// so many records are made; the others are counted, and cost none.
#[test]
fn floods_of_shed_requests_hide_nothing() {
    let collected = Collected::default();
    let taken = collected.clone();
    let collector = Upstream::start(move |_: &str, body: &[u8], stream: &mut std::net::TcpStream| {
        taken.take(body);
        write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").is_ok()
    });
    let trace =
        format!("sample_per_second_min = 1\nslow = \"1h\"\nendpoint = \"http://{}\"", collector.address());
    let (node, [admin, _]) = start_with_both(&format!("{trace}\n[service.back]\nin_flight_max = 1"));
    let held = node.start_get("back", "/do/sleep:60000");
    node.until_begun(1);
    let mut flood = Wire::connect(node.address());
    for _ in 0..300 {
        flood.send("GET /shed HTTP/1.1\r\nhost: back\r\n\r\n".repeat(10));
        (0..10).for_each(|_| assert_eq!(flood.reply().status, 503));
    }
    let _ = node.get("front", "/served").ok();
    until("the one that was served", || collected.named("front", "GET front").is_some());
    // Every request of the flood either has a record or is counted.
    let left_out = || sample(admin, "trace_records_left_out_total");
    let shed = || {
        collected.all().iter().filter(|(of, span)| of == "cellmesh-dpu" && span.name == "GET back").count()
    };
    until("the whole flood", || shed() as u64 + left_out() == 3000);
    drop(held);
}

/// What was kept is sent before the process ends; a collector that refuses is said once, and holds up nothing.
#[test]
fn last_spans_are_sent_at_the_end() {
    let collected = Collected::default();
    let taken = collected.clone();
    let collector = Upstream::start(move |_: &str, body: &[u8], stream: &mut std::net::TcpStream| {
        taken.take(body);
        write!(stream, "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").is_ok()
    });
    let (node, _) = start(&format!("endpoint = \"http://{}\"", collector.address()));
    let _ = node.get("front", "/").ok();
    let _ = node.get("back", "/").ok();
    if placement() == Placement::Split {
        node.signal_worker(0, rustix::process::Signal::TERM);
        node.worker_ended(0);
    }
    let ended = node.stop();
    assert!(collected.named("front", "GET front").is_some() && collected.named("back", "GET back").is_some());
    if placement() == Placement::CoHosted {
        assert_eq!(ended.stderr.matches("traces are lost").count(), 1, "{}", ended.stderr);
    }
}

/// What was recorded has the bytes of the request, of its steps and of its answer; what is too much is kept without.
#[test]
fn recording_has_what_a_request_came_to() {
    let (node, admin) = start("record = true\nrecord_bytes_max = \"8KiB\"");
    let _ = node.post("front", "/order?url=http://back/echo&tolerant", "body").ok();
    let _ = node.get("back", "/do/big:9000").ok();
    until("both are kept", || kept(admin).len() == 3);
    let recorded: Vec<bool> =
        kept(admin).iter().filter_map(|request| request["has_recording"].as_bool()).collect();
    assert_eq!(recorded, [false, true, true]);
    let front = newest(admin, "front");
    let id = front["request"]["id"].as_str().expect("an id").to_owned();
    let recording = json(admin, &format!("/v1/requests/{id}/recording"));
    assert_eq!((&recording["service"], &recording["request"]["body"]), (&"front".into(), &"body".into()));
    let steps = recording["course"]["steps"].as_array().expect("a list");
    assert_eq!((&steps[0]["step"], &steps[0]["sent"]["url"]), (&"call#0".into(), &"http://back/echo".into()));
    assert_eq!(
        (&steps[1]["answered"]["status"], &steps[1]["answered"]["body"]),
        (&200.into(), &"body".into())
    );
    assert_eq!(steps[2]["returned"]["body"], "200 body\n");
    assert_eq!(recording["course"]["response"]["body"], "200 body\n");
}
