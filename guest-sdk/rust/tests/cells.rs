//! Cells as authors write them: the macros are expanded here, and what the contract's functions get out of
//! them is checked.

use cellmesh_guest::prelude::*;
use cellmesh_guest::testing::{Input, build, outline, run};

#[cellmesh_guest::cell]
mod shop {
    use serde::{Deserialize, Serialize};

    use super::*;

    #[derive(Debug, Deserialize)]
    pub(super) struct User {
        pub(super) name: String,
    }

    #[derive(Debug, Serialize, Deserialize, PartialEq)]
    pub(super) struct Page {
        pub(super) title: String,
        pub(super) items: usize,
    }

    #[handler]
    fn page(request: Request, ctx: &mut Context) -> Result<(), Response> {
        let id: u32 = request.json()?;
        let (user, cart) = ctx.parallel(|ctx| {
            let user = ctx.call(Call::get(format!("http://users/{id}")));
            let cart = ctx.step(Step::call(Call::get(format!("http://carts/{id}"))).id("cart").tolerant());
            (user, cart)
        });
        let more = ctx.call_built(next_calls, (), [user]);
        ctx.run_internal(render, Args("Shop"), [user, cart, more]);
        Ok(())
    }

    #[builder]
    fn next_calls(Json(user): Json<User>) -> Vec<Call> {
        let calls = user.name.chars().map(|letter| Call::post(format!("http://letters/{letter}")));
        calls.map(|call| call.body(Body::of_input(0))).collect()
    }

    #[step]
    fn render(
        Args(title): Args<String>,
        Json(user): Json<User>,
        cart: StepResult,
        more: Head,
    ) -> Result<Json<Page>, String> {
        if more.status() != 200 {
            return Err(format!("no letters: {}", more.status()));
        }
        Ok(Json(Page { title: format!("{title} of {}", user.name), items: cart.body().len() }))
    }

    #[step]
    fn pass_on(result: StepResult) -> StepResult {
        result
    }

    #[step]
    fn join(texts: Inputs<Option<String>>) -> String {
        let known = texts.0.iter().map(|text| text.as_deref().unwrap_or("-"));
        known.collect::<Vec<_>>().join(" ")
    }

    /// No mark: an ordinary function.
    pub(super) fn unmarked() {}
}

const ADA: Input<'_> = Input::ok(br#"{"name":"Ada"}"#);

/// The whole graph of a handler that uses all of the builder.
#[test]
fn handler_becomes_a_graph() {
    let expected = "\
order#5: order
  pipe#2: pipe
    call#0: GET http://users/7
    cart, tolerant: GET http://carts/7
  next_calls#3: builder next_calls(call#0)
  render#4: step render(call#0, cart, next_calls#3 without body) \"Shop\"
";
    assert_eq!(outline::<shop::ThisCell>(Request::post("/", "7")), expected);
}

/// `?` on a body that is no JSON answers 400; the graph is not sent.
#[test]
fn bad_request_is_answered() {
    let answer = outline::<shop::ThisCell>(Request::post("/", "seven"));
    assert!(answer.starts_with("400 {\"error\":\"the body is not the JSON expected"), "{answer}");
}

/// Numbers are places in the source: the first marked function is 0, handlers and unmarked ones do not count.
#[test]
fn functions_are_numbered_in_source_order() {
    let names: Vec<_> =
        <shop::ThisCell as cellmesh_guest::Cell>::FUNCTIONS.iter().map(|function| function.name()).collect();
    assert_eq!(names, ["next_calls", "render", "pass_on", "join"]);
}

/// Parameters are filled in order, with the types that they have.
#[test]
fn step_sees_args_and_inputs() {
    let inputs = [ADA, Input::ok(b"12345"), Input::ok(b"").without_body()];
    let result = run::<shop::ThisCell>(1, br#""Shop""#, &inputs);
    assert_eq!(result.read_json(), Ok(shop::Page { title: "Shop of Ada".to_owned(), items: 5 }));
    assert_eq!(result.header("content-type"), Some("application/json"));
}

/// Whatever cannot be read fails the step with a text that names the input; nothing traps.
#[test]
fn unreadable_input_fails_the_step() {
    let check = |inputs: &[Input<'_>], args: &[u8], expected: &str| {
        let result = run::<shop::ThisCell>(1, args, inputs);
        assert!(result.is_failed() && result.status() == 500);
        assert!(result.error().contains(expected), "{}", result.error());
    };
    check(
        &[Input::ok(b"{}"), ADA, ADA],
        b"\"\"",
        "result of `input0`: not the JSON expected: missing field `name`",
    );
    check(&[Input::failed(404, "gone"), ADA, ADA], b"\"\"", "step `input0` failed with status 404: gone");
    check(&[ADA], b"\"\"", "an input is missing");
    check(&[ADA, ADA, ADA], b"{", "the arguments are not what the step takes");
}

/// An input that is returned as it is stays outside the cell: its number travels, its bytes do not.
#[test]
fn input_is_passed_on_by_number() {
    let result = run::<shop::ThisCell>(2, b"", &[Input::failed(404, "gone")]);
    assert_eq!((result.status(), result.error(), result.body()), (404, "gone", &b""[..]));
    assert!(format!("{result:?}").contains("OfInput(0)"), "{result:?}");
}

/// `Inputs` takes whatever is left, `Option` lets failed ones be seen.
#[test]
fn rest_of_inputs_is_taken() {
    let inputs = [Input::ok(b"a"), Input::failed(500, "x"), Input::ok(b"b")];
    assert_eq!(run::<shop::ThisCell>(3, b"", &inputs).read_text(), Ok("a - b"));
    assert_eq!(run::<shop::ThisCell>(3, b"", &[]).read_text(), Ok(""));
}

/// A builder's calls, and what it says when it cannot make them.
#[test]
fn builder_makes_calls() {
    let calls = build::<shop::ThisCell>(0, b"", &[ADA]).unwrap();
    assert_eq!(
        calls,
        [
            "POST http://letters/A OfInput(0)",
            "POST http://letters/d OfInput(0)",
            "POST http://letters/a OfInput(0)"
        ]
    );
    let error = build::<shop::ThisCell>(0, b"", &[Input::ok(b"1")]).unwrap_err();
    assert!(error.contains("not the JSON expected"), "{error}");
}

/// A number that is none, or one of the other kind, is a failed result.
#[test]
fn wrong_numbers_are_refused() {
    assert_eq!(run::<shop::ThisCell>(9, b"", &[]).error(), "this cell has no function 9");
    assert_eq!(
        run::<shop::ThisCell>(0, b"", &[]).error(),
        "function 0 of this cell is a builder, not a step"
    );
    assert_eq!(
        build::<shop::ThisCell>(1, b"", &[]),
        Err("function 1 of this cell is a step, not a builder".to_owned())
    );
}

/// Handlers for the cases below: a cell each, because a cell has one.
macro_rules! handlers {
    ($($name:ident($($parameter:ident: $type:ty),*) -> $returns:ty $body:block)*) => {$(
        mod $name {
            use super::*;

            #[cellmesh_guest::cell]
            mod inner {
                use super::*;

                #[handler]
                fn handle($($parameter: $type),*) -> $returns $body

                #[step]
                #[allow(dead_code, reason = "not every case uses it")]
                fn twice(Args(value): Args<u32>) -> Json<u32> {
                    Json(value * 2)
                }

                #[step]
                #[allow(dead_code, reason = "not every case uses it")]
                fn at_least_one(_first: Head, _rest: Inputs<Head>) {}

                #[builder]
                #[allow(dead_code, reason = "not every case uses it")]
                fn calls() -> Option<Call> {
                    None
                }
            }

            pub(super) fn answer() -> String {
                outline::<inner::ThisCell>(Request::get("/"))
            }
        }
    )*};
}

handlers! {
    nothing() -> () {}
    text() -> &'static str { "text" }
    error() -> Result<Response, String> { Err("no \"luck\"".to_owned()) }
    json() -> Json<[u8; 2]> { Json([1, 2]) }
    early(ctx: &mut Context) -> Result<(), Response> {
        ctx.call(Call::get("http://a/"));
        Err(Response::new(429))
    }
    undecided(ctx: &mut Context) -> Option<Response> {
        ctx.call(Call::get("http://a/"));
        None
    }
    unmarked(ctx: &mut Context) -> () {
        ctx.run_internal(super::super::shop::unmarked, (), []);
    }
    wrong_inputs(ctx: &mut Context) -> () {
        let call = ctx.call(Call::get("http://a/"));
        ctx.run_internal(twice, Args(1), [call]);
    }
    too_few_inputs(ctx: &mut Context) -> () { ctx.run_internal(at_least_one, (), []); }
    no_rest(ctx: &mut Context) -> () {
        let call = ctx.call(Call::get("http://a/"));
        ctx.run_internal(at_least_one, (), [call]);
    }
    no_args(ctx: &mut Context) -> () { ctx.run_internal(twice, (), []); }
    too_many_args(ctx: &mut Context) -> () { ctx.call_built(calls, Args(1), []); }
    builder_as_step(ctx: &mut Context) -> () { ctx.run_internal(calls, (), []); }
    step_as_builder(ctx: &mut Context) -> () { ctx.call_built(twice, Args(1), []); }
    response_and_steps(ctx: &mut Context) -> Response {
        ctx.call(Call::get("http://a/"));
        Response::text("never mind")
    }
    graph_and_steps(ctx: &mut Context) -> Graph {
        ctx.call(Call::get("http://a/"));
        order([]).into()
    }
    prepared(ctx: &mut Context) -> () {
        let call = ctx.call(Call::get("http://a/"));
        let seen = ctx.step(Step::internal(at_least_one).inputs([call]).prepared("done"));
        ctx.step(Step::internal(twice).args(Args(4)).prepared(Response::new(204)).id("last"));
        ctx.respond_with(seen);
    }
    prepared_builder(ctx: &mut Context) -> () { ctx.step(Step::built(calls).prepared("x")); }
    prepared_call(ctx: &mut Context) -> () { ctx.step(Step::call(Call::get("http://a/")).prepared("x")); }
    prepared_elsewhere(ctx: &mut Context) -> () {
        ctx.step(Step::internal(twice).args(Args(1)).prepared(Response::new(200).body(Body::of_request())));
    }
    prepared_badly(ctx: &mut Context) -> () {
        ctx.step(Step::internal(twice).args(Args(1)).prepared(Response::text("x").header("x", "a\nb")));
    }
    reserved_id(ctx: &mut Context) -> () { ctx.step(Step::call(Call::get("http://a/")).id("call#0")); }
    bad_header(ctx: &mut Context) -> () { ctx.call(Call::get("http://a/").header("x", "a\nb")); }
}

/// A prepared step has its response, its function and all that this is given.
#[test]
fn responses_can_be_prepared() {
    let expected = "\
order#3: order
  call#0: GET http://a/
  at_least_one#1: step at_least_one(call#0 without body) unless prepared 200 done
  last: step twice() 4 unless prepared 204
responds with at_least_one#1
";
    assert_eq!(prepared::answer(), expected);
}

/// What handlers can return.
#[test]
fn return_values_are_decisions() {
    assert_eq!(nothing::answer(), "200 ");
    assert_eq!(text::answer(), "200 text");
    assert_eq!(json::answer(), "200 [1,2]");
    assert_eq!(error::answer(), r#"500 {"error":"no \"luck\""}"#);
    assert_eq!(early::answer(), "429 ");
    assert_eq!(undecided::answer(), "call#0: GET http://a/\n");
    assert!(no_rest::answer().contains("at_least_one(call#0 without body)"), "no further inputs are enough");
}

/// Mistakes of a cell's author are a 500 that says what to change.
#[test]
fn mistakes_are_said() {
    let check = |answer: String, expected: &str| {
        assert!(answer.starts_with("500 {\"error\":") && answer.contains(expected), "{answer}");
    };
    check(unmarked::answer(), "shop::unmarked` is no function that a graph can name: mark it with #[step]");
    check(wrong_inputs::answer(), "step `twice` takes 0 inputs and was given 1");
    check(too_few_inputs::answer(), "step `at_least_one` takes at least 1 inputs and was given 0");
    check(no_args::answer(), "step `twice` takes arguments and was given none");
    check(too_many_args::answer(), "builder `calls` takes no arguments and was given some");
    check(builder_as_step::answer(), "`calls` is a builder, not a step");
    check(step_as_builder::answer(), "`twice` is a step, not a builder");
    check(response_and_steps::answer(), "returned a response, but also put 1 steps into its context");
    check(graph_and_steps::answer(), "returned a graph, but also put 1 steps into its context: use one");
    check(prepared_builder::answer(), "`calls` is a builder: only a step can have a prepared response");
    check(prepared_elsewhere::answer(), "step `twice`: a prepared response has its body itself");
    check(prepared_call::answer(), "only a step that runs a function can have one");
    check(prepared_badly::answer(), "step `twice`: header \\\"x\\\"");
    check(reserved_id::answer(), "`#` is kept");
    check(bad_header::answer(), "call of http://a/: header \\\"x\\\"");
}

/// A cell that answers with the graph that its test has put here.
mod hand_made {
    use std::cell::RefCell;

    use super::*;

    thread_local! {
        static GRAPH: RefCell<Option<Graph>> = const { RefCell::new(None) };
    }

    #[cellmesh_guest::handler]
    fn handle(_request: Request) -> Graph {
        GRAPH.take().expect("one request for each graph")
    }

    pub(super) fn outline_of(graph: Graph) -> String {
        GRAPH.set(Some(graph));
        outline::<ThisCell>(Request::get("/"))
    }
}

/// A hand-made graph keeps its shape, empty groups too, and finds inputs and its response by id.
#[test]
fn hand_made_graph_is_written_as_it_is() {
    let a = Step::call(Call::get("http://a/")).id("a");
    let b = Step::call_each([
        Call::post("http://b/1").body("x"),
        Call::post("http://b/2").body(Body::of_step("a")),
    ]);
    let graph = Graph::new(order([a, pipe([b.id("b").tolerant(), pipe([])])])).respond_with("b");
    let expected = "\
order#4: order
  a: GET http://a/
  pipe#3: pipe
    b, tolerant: POST http://b/1 x, then POST http://b/2 (body of a)
    pipe#2: pipe
responds with b
";
    assert_eq!(hand_made::outline_of(graph), expected);
}

/// A call's body is counted among the inputs of its own step, whatever inputs earlier steps have.
#[test]
fn bodies_are_counted_from_their_own_step() {
    let get = |id: &'static str| Step::call(Call::get("http://x/")).id(id);
    let post = |of: &'static str| Call::post("http://y/").body(Body::of_step(of));
    let graph = order([get("a"), get("b"), Step::call(post("a")), Step::call_each([post("b"), post("a")])]);
    let expected = "\
order#4: order
  a: GET http://x/
  b: GET http://x/
  call#2: POST http://y/ (body of a)
  call#3: POST http://y/ (body of b), then POST http://y/ (body of a)
";
    assert_eq!(hand_made::outline_of(graph.into()), expected);
}

/// Inputs and responses that name nothing are refused before the runtime sees them.
#[test]
fn unknown_names_are_refused() {
    let call = |body: &'static str| Step::call(Call::post("http://b/").body(Body::of_step(body))).id("b");
    let too_late = order([call("a"), Step::call(Call::get("http://a/")).id("a")]);
    assert_eq!(
        hand_made::outline_of(too_late.into()),
        r#"500 {"error":"no step with the id `a` comes before the one that names it"}"#,
    );
    assert_eq!(
        hand_made::outline_of(Graph::new(order([])).respond_with("a")),
        r#"500 {"error":"respond_with names `a`, and no step has that id"}"#,
    );
}
