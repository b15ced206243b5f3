//! The rules of a graph, by name. Against the oracle: [`random`].

pub(crate) mod oracle;
mod random;
mod run;

use bytes::Bytes;
use run::Run;

use super::*;
use crate::testing::{Sketch, builder, bytes, egress, internal, order, pipe, prepared, requests};
use crate::{BodySource, EgressRequest, Limits, Span};

fn body_of(response: &Response) -> &[u8] {
    &response.result.body
}

/// Children of an `order` run one after the other, in list order.
#[test]
fn order_runs_one_after_the_other() {
    let mut run = Run::of(&order("o", [internal("a"), egress("b"), internal("c")]));
    for step in ["a", "b", "c"] {
        assert_eq!(run.started(), [step]);
        run.ok(step);
    }
    assert_eq!(body_of(&run.response()), b"c");
}

/// The first error ends an `order` and is its error.
#[test]
fn order_stops_at_first_error() {
    let mut run =
        Run::of(&order("o", [internal("a"), internal("b"), order("later", [internal("c"), internal("d")])]));
    run.started();
    run.ok("a");
    run.started();
    run.fails("b");
    let response = run.response();
    assert_eq!(response.result, StepResult::failure(500, "b failed"));
    assert_eq!(response.failed_step(), Some(run.index("b")));
    assert_eq!(run.late("c").to_string(), r#"step "c": got a step result, but it never runs"#);
}

/// Children of a `pipe` all start at once, in list order, nested ones in their place.
#[test]
fn pipe_starts_all_in_list_order() {
    let nested = order("o", [pipe("q", [internal("b"), internal("c")]), internal("later")]);
    let mut run = Run::of(&pipe("p", [internal("a"), nested, egress("d")]));
    assert_eq!(run.started(), ["a", "b", "c", "d"]);
}

/// An error of one child does not keep the others of a `pipe` from going on, with all that they have to do.
#[test]
fn pipe_lets_the_others_finish() {
    let mut run = Run::of(&order(
        "root",
        [pipe("p", [internal("a"), order("o", [internal("b"), internal("c")])]), internal("d")],
    ));
    run.started();
    run.fails("a");
    run.ok("b");
    assert_eq!(run.started(), ["c"]);
    run.ok("c");
    assert_eq!(run.response().failed_step(), Some(run.index("a")));
}

/// The error of a `pipe` is that of its first failed child in the graph, not in time.
#[test]
fn pipe_error_is_the_first_in_the_graph() {
    let mut run = Run::of(&pipe("p", [internal("a"), internal("b"), internal("c")]));
    run.started();
    for step in ["c", "b"] {
        run.fails(step);
    }
    run.ok("a");
    assert_eq!(run.response().failed_step(), Some(run.index("b")));
}

/// The value of a `pipe` is that of its last child in the graph, even if that ended first.
#[test]
fn pipe_value_is_the_last_child_in_the_graph() {
    let mut run = Run::of(&pipe("p", [internal("a"), internal("b"), internal("c")]));
    run.started();
    for step in ["c", "a", "b"] {
        run.ok(step);
    }
    assert_eq!(body_of(&run.response()), b"c");
}

/// A tolerant step's error is its result: the `order` goes on, the `pipe` is fine.
#[test]
fn tolerated_error_does_not_count() {
    let mut run =
        Run::of(&order("o", [pipe("p", [egress("a").tolerant(), internal("b")]), internal("c").sees("a")]));
    run.started();
    run.answers("a", 503);
    run.ok("b");
    assert_eq!(run.started(), ["c"]);
    let input = run.engine.input(run.index("c"), 0).unwrap();
    assert_eq!((input.id, input.result.status, input.failed), ("a", 503, true));
    assert_eq!(input.error().unwrap(), "answered with status 503");
}

/// A tolerant group hides its error; what it did not start stays undone.
#[test]
fn tolerant_order_stops_but_hides_its_error() {
    let group = order("try", [internal("a"), internal("b")]).tolerant();
    let mut run = Run::of(&order("o", [group, internal("c").sees("try")]));
    run.started();
    run.fails("a");
    assert_eq!(run.started(), ["c"]);
    let input = run.engine.input(run.index("c"), 0).unwrap();
    assert_eq!((input.id, input.error().as_deref(), input.failed), ("try", Some("a failed"), true));
}

/// A tolerated error can be the value, and so the response: it is what it is, but not the graph's error.
#[test]
fn tolerated_error_can_be_the_response() {
    let mut run = Run::of(&order("o", [internal("a"), internal("b").tolerant()]));
    run.started();
    run.ok("a");
    run.started();
    run.fails("b");
    let response = run.response();
    assert_eq!(response.result, StepResult::failure(500, "b failed"));
    assert_eq!(
        (response.in_error, response.step, response.failed_step()),
        (false, Some(run.index("b")), None)
    );
}

/// Empty groups are done at once with an empty 200, however they are nested.
#[test]
fn empty_groups_are_an_empty_200() {
    let empties =
        [order("o", []), pipe("p", []), pipe("q", [order("r", []), pipe("s", [])]), requests("t", 0)];
    for empty in empties.clone() {
        let response = Run::of(&empty).response();
        assert_eq!((response.result, response.in_error), (StepResult::skipped(), false));
    }
    assert_eq!(Run::of(&order("all", empties)).response().result, StepResult::skipped());
}

/// Requests of one step go one after the other; the last answer is the result.
#[test]
fn requests_go_one_after_the_other() {
    let mut run = Run::of(&requests("a", 3));
    for number in 0..3 {
        assert_eq!(run.sent(), format!("http://a/{number}"));
        run.answers("a", 200 + number);
    }
    assert_eq!(run.response().result.status, 202);
}

/// The first answer that is not ok ends the step, and passes through as the response.
#[test]
fn first_bad_answer_ends_the_step() {
    let mut run = Run::of(&requests("a", 3));
    run.started();
    run.answers("a", 399);
    run.started();
    run.answers("a", 404);
    let response = run.response();
    assert_eq!(response.result, StepResult::answer(404, Bytes::new(), bytes("a")));
    assert_eq!(response.failed_step(), Some(run.index("a")));
}

/// A status is not an error of an internal step; an error text is.
#[test]
fn internal_status_500_is_a_result() {
    let mut run = Run::of(&order("o", [internal("a"), internal("b")]));
    run.started();
    let on_purpose = StepResult::answer(500, Bytes::new(), Bytes::new());
    run.engine.on_result(run.index("a"), on_purpose).unwrap();
    assert_eq!(run.started(), ["b"]);
}

/// A trap, a limit or a deadline ends any kind of step with its own status.
#[test]
fn failure_ends_any_kind_of_step() {
    for step in [internal("a"), builder("a"), egress("a")] {
        let mut run = Run::of(&step);
        run.started();
        run.engine.on_failure(run.index("a"), 504, "deadline").unwrap();
        let response = run.response();
        assert_eq!((response.in_error, response.result), (true, StepResult::failure(504, "deadline")));
    }
}

/// A builder without requests skips its step.
#[test]
fn builder_without_requests_skips() {
    let mut run = Run::of(&order("o", [builder("a"), internal("b").sees("a")]));
    run.started();
    run.engine.on_built(run.index("a"), Ok(BuiltRequests::default())).unwrap();
    assert_eq!(run.started(), ["b"]);
    assert_eq!(run.engine.input(run.index("b"), 0).unwrap().result, &StepResult::skipped());
}

/// A builder that fails is an error with status 500 and its text.
#[test]
fn builder_that_fails_is_an_error() {
    let mut run = Run::of(&builder("a"));
    run.started();
    run.engine.on_built(run.index("a"), Err("no such user".into())).unwrap();
    assert_eq!(run.response().result, StepResult::failure(500, "no such user"));
}

/// A request with `url` as method, URL and headers.
fn request(url: Span, body: BodySource) -> EgressRequest {
    EgressRequest { method: url, url, headers: url, body }
}

/// Built requests point into their own arena, and their bodies can be the step's inputs.
#[test]
fn built_requests_are_sent() {
    let mut run = Run::of(&order("o", [internal("a"), builder("b").sees("a")]));
    run.started();
    run.ok("a");
    run.started();
    let word = Span { start: 1, len: 2 };
    let sources = [BodySource::OfInput(0), BodySource::OfRequest, BodySource::Bytes(word)];
    let built =
        BuiltRequests { requests: sources.map(|body| request(word, body)).into(), arena: bytes("_ok_") };
    run.engine.on_built(run.index("b"), Ok(built)).unwrap();
    for body in [OutgoingBody::Bytes(bytes("a")), OutgoingBody::OfRequest, OutgoingBody::Bytes(bytes("ok"))] {
        let [method, url, headers] = [(); 3].map(|()| bytes("ok"));
        let request = OutgoingRequest { method, url, headers, body };
        assert_eq!(run.engine.next_action(), Some(Action::Send { step: run.index("b"), request }));
        run.answers("b", 200);
    }
    assert_eq!(body_of(&run.response()), b"b");
}

/// Built requests are held to the rules of a plan's own; the error says which one.
#[test]
fn built_requests_are_checked() {
    let word = Span { start: 0, len: 2 };
    let outside = Span { start: 1, len: 2 };
    let cases = [
        (outside, BodySource::OfRequest, "method = 1 .. 1 + 2: must lie inside the arena (2 bytes)"),
        (Span::default(), BodySource::OfRequest, "method of 0 bytes: must have 1 to 64"),
        (word, BodySource::OfInput(2), "body of input 2: must be one of the step's 2 inputs, counted from 0"),
        (
            word,
            BodySource::OfInput(1),
            "body of input 1, which comes without its body: that input must be with-body",
        ),
    ];
    for (span, body, why) in cases {
        let mut run = Run::of(&order("o", [internal("a"), builder("b").sees("a").sees_status_of("a")]));
        run.started();
        run.ok("a");
        run.started();
        let built = BuiltRequests {
            requests: vec![request(word, BodySource::OfRequest), request(span, body)],
            arena: bytes("ok"),
        };
        run.engine.on_built(run.index("b"), Ok(built)).unwrap();
        assert_eq!(run.response().result, StepResult::failure(500, format!("step \"b\": request 1: {why}")));
    }
}

/// Requests of all steps together are bounded, whoever made them.
#[test]
fn built_requests_count_for_the_graph() {
    let limits = Limits { requests_max: 5, ..Limits::default() };
    let graph = order("o", [requests("a", 2), builder("b"), builder("c")]);
    let mut run = Run { engine: Engine::start(graph.plan().validate(&limits).unwrap()) };
    run.started();
    for _ in 0..2 {
        run.answers("a", 200);
        run.started();
    }
    let built = |count| {
        Ok(BuiltRequests {
            requests: vec![request(Span { start: 0, len: 1 }, BodySource::OfRequest); count],
            arena: bytes("x"),
        })
    };
    run.engine.on_built(run.index("b"), built(1)).unwrap();
    run.started();
    run.answers("b", 200);
    run.started();
    run.engine.on_built(run.index("c"), built(3)).unwrap();
    assert_eq!(run.response().result, StepResult::failure(500, "graph: 6 requests: must be at most 5"));
}

fn responding_with(graph: &Sketch, index: u32) -> Run {
    let plan = crate::Plan { respond_with: Some(index), ..graph.plan() };
    Run { engine: Engine::start(plan.validate(&Limits::default()).unwrap()) }
}

/// A graph can respond with another step than its last one.
#[test]
fn respond_with_names_the_response() {
    let mut run = responding_with(&order("o", [internal("a"), internal("b")]), 1);
    for step in ["a", "b"] {
        run.started();
        run.ok(step);
    }
    let response = run.response();
    assert_eq!((body_of(&response), response.step), (&b"a"[..], Some(run.index("a"))));
}

/// An error of the root is the response, whatever else the graph names.
#[test]
fn error_wins_over_respond_with() {
    let mut run = responding_with(&order("o", [internal("a"), internal("b")]), 1);
    run.started();
    run.ok("a");
    run.started();
    run.fails("b");
    assert_eq!(run.response().failed_step(), Some(run.index("b")));
}

/// A step sees the results that it named, in that order, while it is busy and at no other time.
#[test]
fn inputs_come_in_the_order_they_were_named() {
    let reader = internal("c").sees("b").sees_status_of("a").sees("b");
    let mut run = Run::of(&order("o", [pipe("p", [internal("a"), internal("b")]), reader]));
    run.started();
    run.ok("b");
    run.ok("a");
    let seen = |run: &Run| {
        run.engine.inputs(run.index("c")).map(|i| format!("{} {}", i.id, i.with_body)).collect::<Vec<_>>()
    };
    assert!(seen(&run).is_empty());
    run.started();
    assert_eq!(seen(&run), ["b true", "a false", "b true"]);
    run.ok("c");
    assert!(seen(&run).is_empty());
}

/// A group can be an input: its value is seen under its own id.
#[test]
fn group_can_be_an_input() {
    let mut run = Run::of(&order("o", [pipe("p", [internal("a"), internal("b")]), internal("c").sees("p")]));
    run.started();
    run.ok("a");
    run.ok("b");
    run.started();
    let input = run.engine.input(run.index("c"), 0).unwrap();
    assert_eq!((input.id, &input.result.body[..], input.failed), ("p", &b"b"[..], false));
}

/// An action says what to run with which arguments.
#[test]
fn actions_carry_the_arguments() {
    let mut run = Run::of(&pipe("p", [internal("a"), builder("b")]));
    let (a, b) = (run.index("a"), run.index("b"));
    assert_eq!(
        run.engine.next_action(),
        Some(Action::RunStep { step: a, function: 1, args: bytes("args of a") })
    );
    assert_eq!(
        run.engine.next_action(),
        Some(Action::BuildRequests { step: b, function: 2, args: bytes("args of b") })
    );
    let kinds = [0, 1, 2].map(|step| run.engine.kind(StepIndex(step)));
    assert_eq!(kinds, [StepKind::Pipe, StepKind::Internal, StepKind::Egress]);
}

/// A prepared result stands if all inputs are plain, also if there are none: nothing is run.
#[test]
fn prepared_result_stands() {
    let step = |id| prepared(id).sees_status_of("a").sees("b");
    let mut run = Run::of(&order("o", [pipe("p", [egress("a"), egress("b")]), step("c")]));
    run.started();
    run.ok("a");
    run.ok("b");
    let result = StepResult::answer(202, bytes("x-prepared: 1\n"), bytes("prepared c"));
    let c = run.index("c");
    assert_eq!(run.engine.next_action(), Some(Action::Prepared { step: c, result: result.clone() }));
    run.engine.on_result(c, result.clone()).unwrap();
    assert_eq!(run.response().result, result);
    let alone = Run::of(&prepared("a")).engine.next_action();
    assert!(matches!(alone, Some(Action::Prepared { .. })), "{alone:?}");
}

/// It does not where an input is an error that was tolerated, or an answer that is none and not 200: then the function is run.
#[test]
fn prepared_result_gives_way() {
    for status in [201, 302, 404, 500] {
        let graph = order("o", [egress("a").tolerant(), prepared("b").sees_status_of("a")]);
        let mut run = Run::of(&graph);
        run.started();
        run.answers("a", status);
        let b = run.index("b");
        let expected = Action::RunStep { step: b, function: 2, args: bytes("args of b") };
        assert_eq!(run.engine.next_action(), Some(expected), "{status}");
        assert_eq!(run.engine.kind(b), StepKind::Internal);
        run.ok("b");
        assert_eq!(body_of(&run.response()), b"b");
    }
}

/// A failure whose status is 200 is a failure.
#[test]
fn prepared_result_gives_way_to_a_failure() {
    let graph = order("o", [internal("a").tolerant(), prepared("b").sees_status_of("a")]);
    let mut run = Run::of(&graph);
    run.started();
    run.engine.on_result(run.index("a"), StepResult::failure(200, "no")).unwrap();
    let action = run.engine.next_action();
    assert!(matches!(action, Some(Action::RunStep { .. })), "{action:?}");
}

/// The response is given exactly once.
#[test]
fn done_comes_once() {
    let mut run = Run::of(&internal("a"));
    run.started();
    assert!(!run.engine.is_done());
    run.ok("a");
    assert!(!run.engine.is_done());
    run.response();
    assert_eq!((run.engine.next_action(), run.engine.is_done()), (None, true));
}

/// A result that is early, wrong, late, twice or for nobody is refused, and changes nothing.
#[test]
fn unexpected_results_change_nothing() {
    let mut run = Run::of(&order("o", [internal("a"), egress("b"), internal("c")]));
    let refuse_all = |run: &mut Run, steps: &[&str]| {
        let before = format!("{:?}", run.engine);
        for step in steps {
            run.late(step);
        }
        run.engine.on_result(StepIndex(4), StepResult::skipped()).unwrap_err();
        run.engine.on_answer(StepIndex(u32::MAX), StepResult::skipped()).unwrap_err();
        assert_eq!(format!("{:?}", run.engine), before);
    };
    refuse_all(&mut run, &["o", "a", "b", "c"]);
    run.started();
    let wrong = run.engine.on_answer(run.index("a"), StepResult::skipped()).unwrap_err();
    assert_eq!(wrong.to_string(), r#"step "a": got an answer, but it waits for a step result"#);
    run.engine.on_built(run.index("a"), Err("".into())).unwrap_err();
    run.ok("a");
    refuse_all(&mut run, &["o", "a", "b", "c"]);
    run.started();
    run.answers("b", 500);
    refuse_all(&mut run, &["o", "a", "b", "c"]);
    run.response();
    refuse_all(&mut run, &["o", "a", "b", "c"]);
}

/// Results are freed as soon as nobody can want them.
#[test]
fn results_are_freed() {
    let last = order("q", [internal("d").sees("a"), internal("e")]);
    let mut run = Run::of(&order("o", [pipe("p", [internal("a"), internal("b"), internal("c")]), last]));
    run.started();
    run.ok("b");
    assert_eq!(run.held(), [""; 0]);
    run.ok("c");
    run.ok("a");
    assert_eq!(run.held(), ["a"]);
    run.started();
    run.ok("d");
    assert_eq!(run.held(), [""; 0]);
}
