//! Requests to a service with a work model, and the graphs that become of them.

use cellmesh_guest::prelude::*;
use cellmesh_guest::testing::{Input, outline, run, set_config, set_service};

use crate::service::ThisCell;

/// What service `s0` with this entry makes of a request.
fn answer(entry: &str, request: Request) -> String {
    set_service("s0");
    set_config("mubench.service", entry);
    set_config("mubench.services", r#"["s0", "s1", "s2", "s3"]"#);
    set_config("mubench.paths", r#"{"s3": "/three"}"#);
    outline::<ThisCell>(request)
}

/// No work to do.
const IDLE: &str = r#"{"loader": {"sleep_stress": {"run": false}, "mean_response_size": 0}}"#;

fn calling(external: &str) -> String {
    format!(r#"{{"internal_service": {IDLE}, "external_services": {external}}}"#)
}

/// A service with nothing to do answers without a graph.
#[test]
fn idle_service_answers_at_once() {
    let answer = answer(&calling("[]"), Request::get("/api/v1"));
    assert!(answer.len() == 5 && answer.starts_with("200 "), "one letter: {answer}");
}

/// Groups at the same time, callees of a group one after the other, then the body.
#[test]
fn groups_are_parallel_and_callees_serial() {
    let entry = calling(r#"[{"services": ["s1", "s2__1"]}, {"services": ["s3"]}]"#);
    let expected = "\
order#6: order
  pipe#4: pipe
    order#2: order
      call#0, tolerant: GET http://s1/api/v1?x=1&bid=2
      call#1, tolerant: GET http://s2/api/v1?x=1&bid=2
    call#3, tolerant: GET http://s3/three?x=1&bid=2
  finish#5: step finish(call#0 without body, call#1 without body, call#3 without body) \"2\" unless prepared 200
";
    assert_eq!(without_letter(&answer(&entry, Request::get("/?x=1&bid=2"))), expected);
}

/// The answer without the one random letter of the body that is prepared, which is the last.
fn without_letter(answer: &str) -> String {
    let line = answer.trim_end_matches(|letter: char| letter.is_ascii_alphabetic() || letter == '\n');
    assert_eq!(answer.len() - line.len(), 2, "a letter: {answer}");
    format!("{}\n", line.trim_end())
}

/// A large body is made when it is needed.
#[test]
fn large_body_is_not_prepared() {
    let body = r#"{"loader": {"sleep_stress": {"run": false}, "mean_response_size": 65}}"#;
    let entry = format!(r#"{{"internal_service": {body}, "external_services": [{{"services": ["s1"]}}]}}"#);
    let answer = answer(&entry, Request::get("/"));
    assert!(answer.ends_with("finish#1: step finish(call#0 without body) null\n"), "{answer}");
}

/// The work comes first, in its order; copies of the CPU work at the same time.
#[test]
fn work_comes_before_calls() {
    let entry = r#"{"external_services": [{"services": ["s1"]}], "internal_service": {"loader": {
        "cpu_stress": {"run": true, "thread_pool_size": 2}, "memory_stress": {"run": true},
        "disk_stress": {"run": true}, "sleep_stress": {"run": true}}}}"#;
    let answer = answer(entry, Request::get("/"));
    let steps: Vec<_> =
        answer.lines().map(|line| line.split([':', '#', '{']).next().unwrap_or_default()).collect();
    let expected = [
        "order",
        "  pipe",
        "    stress_cpu",
        "    stress_cpu",
        "  stress_memory",
        "  stress_disk",
        "  stress_sleep",
        "  call",
        "  finish",
    ];
    assert_eq!(steps, expected);
}

/// `seq_len` draws without replacement: each of the callees is called sometimes, none twice, never more
/// than wanted.
#[test]
fn seq_len_draws_callees() {
    let entry = calling(r#"[{"seq_len": 2, "services": ["s1", "s2", "s3"]}]"#);
    let mut called = std::collections::BTreeMap::new();
    for _ in 0..200 {
        let answer = answer(&entry, Request::get("/"));
        let urls: Vec<_> = answer
            .lines()
            .filter_map(|line| line.split_once("GET "))
            .map(|(_, url)| url.to_owned())
            .collect();
        assert!(urls.len() == 2 && urls[0] != urls[1], "{urls:?}");
        for url in urls {
            *called.entry(url).or_insert(0) += 1;
        }
    }
    assert!(called.len() == 3 && called.values().all(|times| (90..180).contains(times)), "{called:?}");
}

/// Probability 0 is never, 1 is always, and between them it is sometimes.
#[test]
fn probabilities_decide() {
    let entry = calling(r#"[{"services": ["s1", "s2", "s3"], "probabilities": {"s1": 0, "s2": 0.5}}]"#);
    let answers: Vec<_> = (0..200).map(|_| answer(&entry, Request::get("/"))).collect();
    let with = |url: &str| answers.iter().filter(|answer| answer.contains(url)).count();
    assert_eq!((with("//s1/"), with("//s3/")), (0, 200));
    assert!((50..150).contains(&with("//s2/")), "{}", with("//s2/"));
}

/// A trace replaces the groups; callees get what is below them, as it was written, and the query.
#[test]
fn trace_says_who_is_called() {
    let entry = calling(r#"[{"services": ["s1"]}]"#);
    let trace = r#" {"s0__7": [ {"s2__1": [{"s1": {}} ], "s1": []}, {}, {"s3":[{}]} ]} "#;
    let expected = "\
order#5: order
  pipe#3: pipe
    order#1: order
      call#0, tolerant: POST http://s2/api/v1?x=1 {\"s2__1\":[{\"s1\": {}} ]}
";
    let answer = answer(&entry, Request::post("/?x=1", trace));
    let expected =
        expected.replace("order#5", "order#6").replace("pipe#3", "pipe#4").replace("order#1", "order#2");
    let rest = "      call#1, tolerant: POST http://s1/api/v1?x=1 {\"s1\":[]}
    call#3, tolerant: POST http://s3/three?x=1 {\"s3\":[{}]}
  finish#5: step finish(call#0 without body, call#1 without body, call#3 without body) null unless prepared 200
";
    assert_eq!(without_letter(&answer), expected + rest);
}

/// All three ways to write a leaf call nobody.
#[test]
fn leaves_call_nobody() {
    let entry = calling(r#"[{"services": ["s1"]}]"#);
    for leaf in [r#"{"s0": [{}]}"#, r#"{"s0": []}"#, r#"{"s0": {}}"#] {
        assert!(answer(&entry, Request::post("/", leaf)).starts_with("200 "), "{leaf}");
    }
}

/// What is no trace, or not for this service, is a 400 that says so.
#[test]
fn bad_traces_are_refused() {
    let check = |trace: &str, expected: &str| {
        let answer = answer(&calling("[]"), Request::post("/", trace));
        assert!(
            answer.starts_with("400 {\"message\":\"bad trace format") && answer.contains(expected),
            "{answer}"
        );
    };
    check(r#"{"s0": [], "s1": []}"#, "bad trace format\"}");
    check("{}", "bad trace format\"}");
    check(r#"{"s1__2": []}"#, "this is service s0, the trace is for s1__2");
    for unreadable in [
        "",
        "no json",
        "[]",
        r#"{"s0": 1}"#,
        r#"{"s0": [1]}"#,
        r#"{"s0": [{"s1": []}"#,
        r#"{"s0": {"s1": []}}"#,
    ] {
        check(unreadable, "bad trace format: ");
    }
}

/// Other methods are neither.
#[test]
fn other_methods_are_refused() {
    assert!(
        answer(&calling("[]"), Request::new("DELETE", "/", &[], b""))
            .starts_with("405 {\"message\":\"method DELETE")
    );
}

/// A bad entry is the answer to every request.
#[test]
fn bad_work_model_is_said() {
    let answer = answer(r#"{"internal_service": {"nothing": {}}}"#, Request::get("/"));
    assert!(answer.starts_with("500 {\"error\":\"work model of service `s0`: internal_service"), "{answer}");
    let missing = outline_without_config();
    assert!(missing.starts_with("500 {\"error\":\"config `mubench.service` is missing"), "{missing}");
}

/// In a thread of its own: config and what was read from it belong to the thread.
fn outline_without_config() -> String {
    std::thread::spawn(|| outline::<ThisCell>(Request::get("/"))).join().expect("the handler does not panic")
}

/// Anything but 200 is an error of the whole, a redirect and an empty answer too.
#[test]
fn failed_calls_fail_the_whole() {
    // What it reads, it has read for the answer.
    answer(&calling("[]"), Request::get("/"));
    let finish = |inputs: &[Input<'_>]| {
        let result = run::<ThisCell>(4, b"null", inputs);
        (result.status(), result.is_failed(), result.read_text().map(str::to_owned).unwrap_or_default())
    };
    let ok = Input::ok(b"").without_body();
    let message = r#"{"message":"Error in external services request"}"#.to_owned();
    let (status, failed, body) = finish(&[ok, ok]);
    assert_eq!((status, failed, body.len()), (200, false, 1));
    for bad in [Input::failed(404, "x"), Input::failed(200, "x"), ok.with_status(204), ok.with_status(302)] {
        assert_eq!(finish(&[ok, bad.without_body(), ok]), (500, false, message.clone()));
    }
}

/// The body is that of the behaviour that was asked for, which the last step is told by name.
#[test]
fn body_is_that_of_the_behaviour() {
    let entry = r#"{"internal_service": {"compute_pi": {"mean_bandwidth": 0}}, "alternative_behaviors": {
        "b1": {"internal_services": {"colosseum": {}}}}}"#;
    answer(entry, Request::get("/"));
    let body = |bid: &[u8]| run::<ThisCell>(4, bid, &[]).read_text().map(str::to_owned);
    assert_eq!(body(b"null"), Ok("m".to_owned()));
    assert!(body(br#""b1""#).is_ok_and(|body| body.len() > 1));
}

/// Arguments reach the work as they were in the model; work that fails says why.
#[test]
fn steps_do_their_work() {
    let cpu = run::<ThisCell>(
        0,
        br#"{"run": true, "range_complexity": [1, 3], "thread_pool_size": 1, "trials": 2}"#,
        &[],
    );
    let memory = run::<ThisCell>(1, br#"{"run": true, "memory_size": 3, "memory_io": 4}"#, &[]);
    let sleep = run::<ThisCell>(3, br#"{"run": true, "sleep_time": 0}"#, &[]);
    assert!([cpu, memory, sleep].iter().all(StepResult::is_ok));
    let disk = run::<ThisCell>(2, br#"{"run": true}"#, &[]);
    assert!(disk.error().contains("/scratch") || disk.is_ok(), "{disk:?}");
}
