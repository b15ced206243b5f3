//! The rules of a plan, by name and with their messages. Against the reference checker: [`random`].

mod certain;
mod monsters;
mod random;
pub(crate) mod reference;

use crate::testing::{Sketch, builder, egress, internal, order, pipe, requests};
use crate::{
    BodySource, EgressRequest, FunctionCall, Input, Limits, Plan, PlanError, Prepared, RequestRule, Span,
    StepName, Work,
};

fn three() -> Sketch {
    order("o", [internal("a"), egress("b")])
}

/// What is wrong with a plan after `change`.
fn refused(graph: &Sketch, change: impl FnOnce(&mut Plan)) -> String {
    let mut plan = graph.plan();
    change(&mut plan);
    plan.validate(&Limits::default()).unwrap_err().to_string()
}

/// A graph as a cell would make it passes, whatever the order in which its steps are stored.
#[test]
fn order_of_storage_does_not_matter() {
    let graph = order("o", [pipe("p", [internal("a"), egress("b")]), builder("c").sees("a").sees("p")]);
    for stored in [["o", "p", "a", "b", "c"], ["c", "b", "a", "p", "o"], ["b", "o", "c", "a", "p"]] {
        let plan = graph.plan_stored_as(&stored);
        assert_eq!(plan.clone().validate(&Limits::default()).unwrap().plan(), &plan);
    }
}

/// A graph without steps has no root.
#[test]
fn empty_graph_is_refused() {
    let error = Plan::default().validate(&Limits::default()).unwrap_err();
    assert_eq!(error.to_string(), "graph: root = 0: must be one of its 0 steps, counted from 0");
}

/// Every count is bounded, at the limit exactly.
#[test]
fn counts_are_bounded() {
    let graph = order("o", [internal("a"), internal("b").sees("a"), requests("c", 3)]);
    let fits = Limits {
        nodes_max: 4,
        depth_max: 2,
        requests_max: 3,
        requests_per_step_max: 3,
        inputs_max: 1,
        id_bytes_max: 1,
        method_bytes_max: 3,
        url_bytes_max: 10,
        arena_bytes_max: u32::try_from(graph.plan().arena.len()).unwrap(),
    };
    graph.plan().validate(&fits).unwrap();
    let cases = [
        (Limits { nodes_max: 3, ..fits }, "graph: 4 steps: must be at most 3"),
        (Limits { depth_max: 1, ..fits }, r#"step "a": level 2: steps must be nested at most 1 levels deep"#),
        (Limits { requests_max: 2, ..fits }, "graph: 3 requests: must be at most 2"),
        (
            Limits { requests_per_step_max: 2, ..fits },
            r#"step "c": 3 requests: one step must have at most 2"#,
        ),
        (Limits { inputs_max: 0, ..fits }, "graph: 1 inputs: must be at most 0"),
        (Limits { id_bytes_max: 0, ..fits }, "step #0: id of 1 bytes: must have 1 to 0"),
        (
            Limits { method_bytes_max: 2, ..fits },
            r#"step "c": request 0: method of 3 bytes: must have 1 to 2"#,
        ),
        (Limits { url_bytes_max: 9, ..fits }, r#"step "c": request 0: url of 10 bytes: must have 1 to 9"#),
    ];
    for (limits, why) in cases {
        assert_eq!(graph.plan().validate(&limits).unwrap_err().to_string(), why);
    }
    let arena = Limits { arena_bytes_max: fits.arena_bytes_max - 1, ..fits };
    assert!(matches!(
        graph.plan().validate(&arena),
        Err(PlanError::TooMany { what: "bytes in the arena", .. })
    ));
}

/// The defaults are those that `wit/cell.wit` promises.
#[test]
fn default_limits_are_those_of_the_contract() {
    let limits = Limits::default();
    let found =
        (limits.nodes_max, limits.depth_max, limits.requests_max, limits.id_bytes_max, limits.url_bytes_max);
    assert_eq!(found, (4096, 64, 4096, 128, 8192));
}

/// Steps that share lists are counted as if they did not: a short plan cannot stand for a huge graph.
#[test]
fn shared_lists_count_for_each_step() {
    let limits = Limits { requests_max: 5, inputs_max: 5, ..Limits::default() };
    let graph = order("o", [requests("a", 3), requests("b", 3)]);
    let mut plan = graph.plan();
    plan.requests.truncate(3);
    plan.nodes[2].work = plan.nodes[1].work;
    assert_eq!(plan.validate(&limits).unwrap_err().to_string(), "graph: 6 requests: must be at most 5");
    let reader = |id| internal(id).sees("a").sees("a").sees("a");
    let mut plan = order("o", [internal("a"), reader("b"), reader("c")]).plan();
    plan.inputs.truncate(3);
    plan.nodes[3].inputs = plan.nodes[2].inputs;
    assert_eq!(plan.validate(&limits).unwrap_err().to_string(), "graph: 6 inputs: must be at most 5");
}

/// Every span lies inside its list; its end is not computed in 32 bits.
#[test]
fn spans_lie_inside_their_lists() {
    let span = Span { start: u32::MAX, len: u32::MAX };
    let check = |change: fn(&mut Plan, Span), step: &str, field: &str, list: &str, len: usize| {
        let place = "4294967295 .. 4294967295 + 4294967295";
        let why = format!("step {step}: {field} = {place}: must lie inside {list} ({len} entries)");
        assert_eq!(refused(&three(), |plan| change(plan, span)), why);
    };
    let arena = three().plan().arena.len();
    let work = |change| check(change, r#""a""#, "args", "the arena", arena);
    check(|plan, span| plan.nodes[1].id = span, "#1", "id", "the arena", arena);
    check(|plan, span| plan.nodes[1].inputs = span, r#""a""#, "inputs", "the graph's inputs", 0);
    check(
        |plan, span| plan.nodes[0].work = Work::Pipe(span),
        r#""o""#,
        "children",
        "the graph's children",
        2,
    );
    check(
        |plan, span| plan.nodes[2].work = Work::Requests(span),
        r#""b""#,
        "requests",
        "the graph's requests",
        1,
    );
    work(|plan, args| plan.nodes[1].work = Work::Internal(FunctionCall { function: 0, args }));
    work(|plan, args| plan.nodes[1].work = Work::Builder(FunctionCall { function: 0, args }));
    let inside = Span::default();
    let prepared = |headers, body, args| {
        let otherwise = FunctionCall { function: 0, args };
        Work::Prepared(Prepared { status: 200, headers, body, otherwise })
    };
    for (field, work) in [
        ("prepared headers", prepared(span, inside, inside)),
        ("prepared body", prepared(inside, span, inside)),
        ("args", prepared(inside, inside, span)),
    ] {
        let found = refused(&three(), |plan| plan.nodes[1].work = work);
        assert!(found.starts_with(&format!(r#"step "a": {field} = 4294967295"#)), "{found}");
    }
}

/// An empty span outside its list is outside all the same.
#[test]
fn empty_span_outside_is_refused() {
    let found = refused(&three(), |plan| plan.nodes[0].work = Work::Order(Span { start: 3, len: 0 }));
    assert_eq!(found, r#"step "o": children = 3 .. 3 + 0: must lie inside the graph's children (2 entries)"#);
}

/// Ids have 1 to 128 bytes.
#[test]
fn ids_have_a_length() {
    order("o", [internal(&"x".repeat(128))]).valid();
    let found = order("o", [internal(&"x".repeat(129))]).refused();
    assert_eq!(found, "step #1: id of 129 bytes: must have 1 to 128");
    assert_eq!(order("o", [internal("")]).refused(), "step #1: id of 0 bytes: must have 1 to 128");
}

/// Ids are text: any, also such that needs escapes in a message, but not any bytes.
#[test]
fn ids_are_utf8() {
    for id in ["ä", "\u{1F600}", "a\u{0301}", "\u{202E}", "a\0b", "\u{FEFF}", "\u{10FFFF}", " "] {
        order("o", [internal(id)]).valid();
    }
    for bytes in [&b"\xff"[..], b"\xc3", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xc0\x80"] {
        let found = refused(&three(), |plan| {
            plan.nodes[1].id = Span { start: 0, len: u32::try_from(bytes.len()).unwrap() };
            plan.nodes[0].id = Span { start: 5, len: 1 };
            plan.arena = [bytes, &[b'o'; 200]].concat().into();
        });
        assert_eq!(found, "step #1: id must be UTF-8");
    }
}

/// A span that cuts a character in two is no text.
#[test]
fn id_that_cuts_a_character_is_refused() {
    let found = refused(&order("o", [internal("ä")]), |plan| plan.nodes[1].id.len = 1);
    assert_eq!(found, "step #1: id must be UTF-8");
}

/// Ids are unique, bytes for bytes, in small graphs and in large ones.
#[test]
fn ids_are_unique() {
    let found = refused(&three(), |plan| plan.nodes[2].id = plan.nodes[1].id);
    assert_eq!(found, r#"step "a": steps #1 and #2 have this id: ids must be unique in a graph"#);
    let many = |count| order("o", (0..count).map(|i| internal(&format!("a{i}"))).collect::<Vec<_>>());
    for count in [10, 23, 24, 25, 200] {
        many(count).valid();
        let found = refused(&many(count), |plan| plan.nodes[count].id = plan.nodes[2].id);
        assert_eq!(
            found,
            format!("step \"a1\": steps #2 and #{count} have this id: ids must be unique in a graph")
        );
    }
    let alike = ["call#1 of a", "call#1 of b", "b", "b\0", "#1 of a", "a#1 of a", "a"];
    order("o", alike.map(internal)).valid();
    order("o", [internal("\u{e9}"), internal("e\u{301}"), internal("E")]).valid();
}

/// Root, children and `respond-with` exist.
#[test]
fn named_steps_exist() {
    let must = "must be one of the graph's 3 steps, counted from 0";
    assert_eq!(
        refused(&three(), |plan| plan.root = 3),
        "graph: root = 3: must be one of its 3 steps, counted from 0"
    );
    assert_eq!(refused(&three(), |plan| plan.children[1] = 3), format!("step \"o\": child 3: {must}"));
    let named = refused(&three(), |plan| plan.respond_with = Some(3));
    assert_eq!(named, "graph: respond-with = 3: must be one of its 3 steps, counted from 0");
    let input = order("o", [internal("a"), internal("b").sees("nobody")]).refused();
    assert_eq!(input, format!("step \"b\": input of step {}: {must}", u32::MAX));
}

/// Steps form a tree: the root is no child, no step has two parents or none, nothing goes round in a circle.
#[test]
fn steps_form_a_tree() {
    let rooted = refused(&three(), |plan| plan.children[1] = 0);
    assert_eq!(rooted, r#"step "o" is the root, but also a child of step "o": the root must not be a child"#);
    let twice = refused(&three(), |plan| plan.children[1] = 1);
    assert_eq!(
        twice,
        r#"step "a" is a child of step "o" and of step "o": a step must be the child of exactly one"#
    );
    let shared = order("o", [order("p", [internal("a")]), pipe("q", [internal("b")])]);
    let found = refused(&shared, |plan| plan.nodes[3].work = plan.nodes[1].work);
    assert_eq!(
        found,
        r#"step "a" is a child of step "p" and of step "q": a step must be the child of exactly one"#
    );
    let lost = refused(&three(), |plan| plan.nodes[0].work = Work::Order(Span { start: 0, len: 1 }));
    assert_eq!(lost, r#"step "b" is no step's child: every step but the root must be a child"#);
}

/// A circle beside the tree is named, not followed.
#[test]
fn circle_beside_the_tree_is_refused() {
    let graph = order("o", [order("p", [order("q", [internal("a")])])]);
    let found = refused(&graph, |plan| {
        // o has no children; p has q, q has p; a stays below q.
        plan.children = vec![2, 1, 3];
        plan.nodes[0].work = Work::Order(Span::default());
        plan.nodes[1].work = Work::Order(Span { start: 0, len: 1 });
        plan.nodes[2].work = Work::Order(Span { start: 1, len: 2 });
    });
    assert_eq!(found, r#"step "p" is part of a cycle, or under one: steps must form a tree under the root"#);
}

/// Depth counts levels, the root being the first.
#[test]
fn depth_is_bounded() {
    let nested = |levels: usize| {
        (1..levels).fold(internal("leaf"), |graph, level| order(&format!("o{level}"), [graph]))
    };
    nested(64).valid();
    assert_eq!(nested(65).refused(), r#"step "leaf": level 65: steps must be nested at most 64 levels deep"#);
}

/// Groups have no inputs of their own.
#[test]
fn groups_have_no_inputs() {
    let found = order("o", [internal("a"), pipe("p", [internal("b")]).sees("a")]).refused();
    assert_eq!(
        found,
        r#"step "p" has 1 inputs: an order or a pipe must have none, only the steps inside it"#
    );
}

fn uncertain(step: &str, named: &str, why: &str) -> String {
    format!(
        "step {step:?}: input of step {named:?}, which {why}: an input must be of a step that is certain to have ended before"
    )
}

/// An input is of a step that has ended for certain when this one starts; both names are in the message.
#[test]
fn inputs_are_of_earlier_steps() {
    order(
        "o",
        [
            pipe("p", [internal("a"), order("q", [internal("b"), internal("c").sees("b")])]),
            internal("d").sees("b").sees("p"),
        ],
    )
    .valid();
    let itself = order("o", [internal("a").sees("a")]).refused();
    assert_eq!(itself, uncertain("a", "a", "is the step itself"));
    let around = order("o", [order("p", [internal("a").sees("p")])]).refused();
    assert_eq!(around, uncertain("a", "p", "encloses it"));
    let beside = pipe("p", [internal("a"), order("o", [internal("b").sees("a")])]).refused();
    assert_eq!(beside, uncertain("b", "a", "runs at the same time"));
    let behind = order("o", [internal("a").sees("c"), pipe("p", [internal("b"), internal("c")])]).refused();
    assert_eq!(behind, uncertain("a", "c", "starts later"));
}

/// A step behind the first one that may fail in a tolerant `order` may never run: nobody outside can see it.
#[test]
fn inputs_are_of_steps_that_ran() {
    let why = |order: &str, tolerant: &str| {
        let hides = "is tolerant, so that what comes next runs all the same";
        uncertain(
            "c",
            "b",
            &format!("may never run: step {order:?} may end before it, and step {tolerant:?} {hides}"),
        )
    };
    let try_both = |group: Sketch, named: &str| order("root", [group, internal("c").sees(named)]);
    let both = || order("o", [internal("a"), internal("b")]);
    try_both(both(), "b").valid();
    try_both(both().tolerant(), "a").valid();
    try_both(both().tolerant(), "o").valid();
    assert_eq!(try_both(both().tolerant(), "b").refused(), why("o", "o"));
    assert_eq!(try_both(pipe("p", [both()]).tolerant(), "b").refused(), why("o", "p"));
    try_both(order("o", [internal("a").tolerant(), internal("b")]).tolerant(), "b").valid();
    try_both(order("o", [requests("a", 0), internal("b")]).tolerant(), "b").valid();
    try_both(order("o", [pipe("a", [internal("x").tolerant()]), internal("b")]).tolerant(), "b").valid();
    order("root", [order("o", [internal("a"), internal("b"), internal("c").sees("b")]).tolerant()]).valid();
}

/// What a graph responds with has a result whenever the root is not in error.
#[test]
fn respond_with_is_certain_to_have_a_result() {
    let respond = |graph: &Sketch, named| {
        Plan { respond_with: Some(named), ..graph.plan() }.validate(&Limits::default())
    };
    let graph = order("root", [order("o", [internal("a"), internal("b")]).tolerant(), internal("c")]);
    for named in [0, 1, 2, 4] {
        respond(&graph, named).unwrap();
    }
    let hides = "may never run: step \"o\" may end before it, and step \"o\" is tolerant, so that what comes next runs all the same";
    assert_eq!(
        respond(&graph, 3).unwrap_err().to_string(),
        format!("graph: respond-with names step \"b\", which {hides}: it must be certain to have a result")
    );
    respond(&three().tolerant(), 2).unwrap_err();
    respond(&three(), 2).unwrap();
}

/// A method and a URL are there; all parts of a request lie in the arena.
#[test]
fn requests_are_whole() {
    let outside = Span { start: 1, len: u32::MAX };
    let request = |change: fn(&mut EgressRequest, Span)| {
        let mut plan = three().plan();
        change(&mut plan.requests[0], outside);
        plan.validate(&Limits::default()).unwrap_err()
    };
    let len = three().plan().arena.len();
    let because = |rule| PlanError::Request { step: StepName::Id("b".into()), index: 0, rule };
    let bad_span = |field| because(RequestRule::SpanOutside { field, span: outside, len });
    assert_eq!(request(|request, span| request.method = span), bad_span("method"));
    assert_eq!(request(|request, span| request.url = span), bad_span("url"));
    assert_eq!(request(|request, span| request.headers = span), bad_span("headers"));
    assert_eq!(request(|request, span| request.body = BodySource::Bytes(span)), bad_span("body"));
    let empty = |field, max| because(RequestRule::Length { field, found: 0, max });
    assert_eq!(request(|request, _| request.method.len = 0), empty("method", 64));
    assert_eq!(request(|request, _| request.url.len = 0), empty("url", 8192));
}

/// A body of an input is of one that the step has, with its body.
#[test]
fn body_inputs_come_with_their_body() {
    let graph = order("o", [internal("a"), requests("b", 3).sees("a").sees_status_of("a")]);
    graph.valid();
    let body = |input| refused(&graph, |plan| plan.requests[2].body = BodySource::OfInput(input));
    let why = "which comes without its body: that input must be with-body";
    assert_eq!(body(1), format!("step \"b\": request 2: body of input 1, {why}"));
    let why = "must be one of the step's 2 inputs, counted from 0";
    assert_eq!(body(2), format!("step \"b\": request 2: body of input 2: {why}"));
    let mut plan = graph.plan();
    plan.inputs[0] = Input { step: 1, with_body: true };
    plan.requests[2].body = BodySource::OfInput(0);
    plan.validate(&Limits::default()).unwrap();
}
