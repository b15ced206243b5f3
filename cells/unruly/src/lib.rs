//! A test cell that misbehaves on request: what it does is in the path.
//!
//! | path | what comes |
//! |---|---|
//! | `/do/<deed>` | the [deed](deeds::commit) in the handler |
//! | `/step/<deed>`, `/builder/<deed>` | the deed in an internal step, or in a request builder; both named `guilty` |
//! | `/steps?deed=..&deed=..` | these deeds in internal steps that run at the same time |
//! | `/order?url=..&url=..`, `/pipe?url=..&url=..` | calls with the method and body of the request |
//! | the same with `&tolerant` | a line for each call: status and body, or status and error |
//! | the same with `&prepared=..`, tolerant or not | that text with status 201 and a header, prepared; these lines if a call has not plainly 200 |
//! | `/again?deed=..&times=..` | the deed in a step, then a line for each time that its result is an input of the next |
//! | `/self` | a call of itself, without end |
//! | `/bad-graph/<kind>` | a [graph that breaks a rule](bad_graph) |
//! | `/echo`, `/echo-bytes` | the body, passed on by name, or copied through the cell |
//! | `/reflect` | what the cell sees of the request, as JSON |
//! | `/answer?status=..&header=name:value` | that response |
//! | `/config?key=..` | what the config says, or 404 |
//! | `/sicken` | `ok`; from then on this instance answers everything with 500 |
//! | `/count` | how many requests this instance was given before |
//! | anything else | `ok` |

mod deeds;

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use cellmesh_guest::prelude::*;
use serde::Serialize;

/// Requests that this instance was given. A new instance starts at 0.
static SEEN: AtomicU32 = AtomicU32::new(0);
/// Whether this instance was sickened.
static SICK: AtomicBool = AtomicBool::new(false);

#[cellmesh_guest::cell]
mod unruly {
    use super::*;

    #[handler]
    fn handle(request: Request, ctx: &mut Context) -> Option<Response> {
        let seen = SEEN.fetch_add(1, Ordering::Relaxed);
        if SICK.load(Ordering::Relaxed) {
            return Some(Response::error(500, "sick, as asked"));
        }
        let mut words = request.path().split('/').skip(1);
        let (verb, what) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        match verb {
            "do" => return Some(deeds::commit(what).unwrap_or_else(|error| Response::error(500, error))),
            "step" => put(ctx, Step::internal(guilty_step).args(Args(what)).id("guilty")),
            "builder" => put(ctx, Step::built(guilty_builder).args(Args(what)).id("guilty")),
            "steps" => ctx.parallel(|ctx| {
                for deed in parameters(&request, "deed") {
                    ctx.run_internal(guilty_step, Args(deed), []);
                }
            }),
            "order" => {
                let calls = calls(&request, ctx);
                gather_if_asked(&request, ctx, calls);
            }
            "pipe" => {
                let calls = ctx.parallel(|ctx| calls(&request, ctx));
                gather_if_asked(&request, ctx, calls);
            }
            "again" => {
                let deed = request.query_param("deed").unwrap_or("nothing".into());
                let times = request.query_param("times").and_then(|times| times.parse().ok()).unwrap_or(1);
                let result = ctx.run_internal(guilty_step, Args(deed), []);
                ctx.run_internal(gather, (), std::iter::repeat_n(result, times));
            }
            "self" => put(ctx, Step::call(Call::get(format!("http://{}/self", config::service())))),
            "bad-graph" => bad_graph(what, ctx),
            _ => return Some(answer(verb, &request, seen)),
        }
        None
    }

    #[step]
    fn guilty_step(Args(deed): Args<String>) -> Result<Response, String> {
        deeds::commit(&deed)
    }

    #[builder]
    fn guilty_builder(Args(deed): Args<String>) -> Result<Vec<Call>, String> {
        deeds::commit(&deed).map(|_| Vec::new())
    }

    #[step]
    fn gather(results: Inputs) -> String {
        let line = |result: StepResult| {
            let said = if result.is_failed() { result.error().as_bytes() } else { result.body() };
            format!("{} {}\n", result.status(), String::from_utf8_lossy(said))
        };
        results.into_iter().map(line).collect()
    }

    fn gather_if_asked(request: &Request, ctx: &mut Context, calls: Vec<StepRef>) {
        let gather = Step::internal(gather).inputs(calls);
        if let Some(text) = request.query_param("prepared") {
            let ready = Response::text(text.into_owned()).with_status(201).header("x-prepared", "yes");
            put(ctx, gather.prepared(ready));
        } else if request.query_param("tolerant").is_some() {
            put(ctx, gather);
        }
    }

    /// No mark: graphs cannot name it.
    fn unruly_by_name() {}

    /// Graphs that have to be refused.
    fn bad_graph(kind: &str, ctx: &mut Context) {
        let ok = || Step::internal(guilty_step).args(Args("nothing"));
        let this = config::service();
        match kind {
            "same-id-twice" => [ok().id("twin"), ok().id("twin")].into_iter().for_each(|step| put(ctx, step)),
            "empty-id" => put(ctx, ok().id("")),
            "too-many-steps" => (0..5000).for_each(|_| put(ctx, ok())),
            "too-many-calls" => {
                put(ctx, Step::call_each((0..2000).map(|_| Call::get(format!("http://{this}/")))))
            }
            "input-at-the-same-time" => ctx.parallel(|ctx| {
                let other = ctx.step(ok().id("other"));
                ctx.step(Step::internal(gather).inputs([other]).id("eager"));
            }),
            "bad-method" => put(ctx, Step::call(Call::new("GE T", format!("http://{this}/"))).id("caller")),
            "bad-url" => put(ctx, Step::call(Call::get(format!("http://user@{this}/"))).id("caller")),
            _ => put(ctx, Step::internal(unruly_by_name)),
        }
    }
}

/// All values of a parameter.
fn parameters(request: &Request, name: &str) -> impl Iterator<Item = String> {
    let all = form_urlencoded::parse(request.query().as_bytes());
    all.filter(move |(key, _)| key == name).map(|(_, value)| value.into_owned())
}

fn put(ctx: &mut Context, step: Step) {
    ctx.step(step);
}

/// Calls of all `url`s, with the method and the body of the request.
fn calls(request: &Request, ctx: &mut Context) -> Vec<StepRef> {
    let tolerant = request.query_param("tolerant").is_some();
    let call = |url| {
        let call = Call::new(request.method().to_owned(), url).body(Body::of_request());
        if tolerant { Step::call(call).tolerant() } else { Step::call(call) }
    };
    parameters(request, "url").map(|url| ctx.step(call(url))).collect()
}

fn answer(verb: &str, request: &Request, seen: u32) -> Response {
    match verb {
        "echo" => Response::bytes(Body::of_request()),
        "echo-bytes" => Response::bytes(request.body().to_vec()),
        "reflect" => reflect(request),
        "answer" => with_headers(request),
        "config" => {
            let value = request.query_param("key").and_then(|key| config::get(&key));
            value.map_or_else(|| Response::new(404), Response::text)
        }
        "sicken" => {
            SICK.store(true, Ordering::Relaxed);
            Response::text("ok\n")
        }
        "count" => Response::text(seen.to_string()),
        _ => Response::text("ok\n"),
    }
}

/// What a cell sees of a request.
#[derive(Serialize)]
struct Reflection<'a> {
    service: String,
    method: &'a str,
    target: &'a str,
    headers: Vec<(&'a str, String)>,
    body: String,
}

fn reflect(request: &Request) -> Response {
    let text = |value| String::from_utf8_lossy(value).into_owned();
    let headers: Vec<_> = request.headers().iter().map(|(name, value)| (name, text(value))).collect();
    let (method, target) = (request.method(), request.target());
    let body = text(request.body());
    Response::json(&Reflection { service: config::service(), method, target, headers, body })
}

fn with_headers(request: &Request) -> Response {
    let status = request.query_param("status").and_then(|status| status.parse().ok());
    let mut response = Response::text("as asked\n").with_status(status.unwrap_or(200));
    for header in parameters(request, "header") {
        let (name, value) = header.split_once(':').unwrap_or((&header, ""));
        response = response.add_header(name, value);
    }
    response
}

#[cfg(test)]
mod tests {
    use cellmesh_guest::testing::{outline, run};

    use super::*;

    fn asked(path: &str) -> String {
        outline::<unruly::ThisCell>(Request::get(path))
    }

    /// Deeds are committed in the handler, or named in the graph.
    #[test]
    fn deed_is_done_where_the_path_says() {
        assert_eq!(asked("/do/big:3"), "200 xxx");
        assert_eq!(asked("/do/error"), r#"500 {"error":"an error, as asked"}"#);
        assert_eq!(asked("/step/trap"), "guilty: step guilty_step() \"trap\"\n");
        assert_eq!(asked("/builder/loop"), "guilty: builder guilty_builder() \"loop\"\n");
        assert_eq!(run::<unruly::ThisCell>(0, br#""error""#, &[]).error(), "an error, as asked");
    }

    /// Calls keep the order in which they are asked for, and their results come together.
    #[test]
    fn calls_become_a_graph() {
        let expected = "\
order#4: order
  pipe#2: pipe
    call#0, tolerant: GET http://a/ (body of the request)
    call#1, tolerant: GET http://b/ (body of the request)
  gather#3: step gather(call#0, call#1)
";
        let path = "/pipe?url=http://a/&url=http://b/&tolerant";
        assert_eq!(asked(path), expected);
        let prepared = expected.replace("call#1)\n", "call#1) unless prepared 201 ready\n");
        assert_eq!(asked(&format!("{path}&prepared=ready")), prepared);
    }

    /// Headers are given as asked.
    #[test]
    fn response_has_the_headers_asked_for() {
        let response = with_headers(&Request::get("/answer?status=201&header=x:1&header=x:2"));
        let values: Vec<_> = response.headers().iter().filter(|(name, _)| *name == "x").collect();
        assert_eq!((response.status(), values), (201, vec![("x", &b"1"[..]), ("x", &b"2"[..])]));
    }
}
