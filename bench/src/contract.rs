//! What a call of a cell costs in three shapes of the contract, host-side checks included.
//!
//! - A ([`typed`]): records with strings, headers as a list of pairs of name and value.
//! - B ([`bytes`]): one byte encoding in and out.
//! - D ([`flat`]): fixed-size records that point into one arena, as in `wit/cell.wit`. (C, a host call per
//!   node, had lost before.)
//!
//! All three start from the same parsed request, and the host looks at every text of the answer once:
//! an answer that was not checked is not an answer yet. [`Seen`] proves that all saw the same.

use std::fmt::Write;

use anyhow::{Result, ensure};
use clap::Args;

use crate::machine;
use crate::turns::{Rounds, Series, median_ratio, quantile, take_turns};

mod bytes;
mod flat;
mod rules;
mod typed;

/// How often to measure.
#[derive(Args)]
pub(crate) struct Options {
    /// Rounds in which each shape has one turn.
    #[arg(long, default_value_t = 4_000)]
    rounds: usize,
    /// Calls in one turn; few enough that most turns end before a busy machine interrupts them.
    #[arg(long, default_value_t = 50)]
    calls_per_turn: u32,
}

/// A request as an HTTP server has parsed it.
struct Request<'a> {
    method: &'a str,
    target: &'a str,
    headers: &'a [(&'a str, &'a [u8])],
    body: &'a [u8],
}

/// What the host met in an answer that keeps all rules; the same in each shape.
#[derive(Debug, Default, PartialEq, Eq)]
struct Seen {
    /// 0 for a graph.
    status: u16,
    nodes: usize,
    headers: usize,
    /// Of all names, values, methods, addresses, ids and bodies.
    bytes: usize,
}

/// A cell behind one shape of the contract.
trait Shape {
    /// The least that a call costs.
    fn nothing(&mut self) -> Result<()>;
    fn handle(&mut self, request: &Request<'_>) -> Result<Seen>;
}

const NAMES: [&str; 3] = ["A typed", "B bytes", "D flat"];
/// The one that the others are compared with.
const FLAT: usize = 2;

const HEADERS: [(&str, &[u8]); 8] = [
    ("host", b"s0.apps.example.org:5005"),
    ("user-agent", b"curl/8.14.1 (x86_64-linux)"),
    ("accept", b"application/json, text/plain"),
    ("accept-encoding", b"gzip, deflate, br"),
    ("content-type", b"application/json"),
    ("x-forwarded-for", b"192.0.2.17, 198.51.100.4"),
    ("traceparent", b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
    ("x-request-id", b"7f9c24e8-3b12-4fef-91e0-56f2d7c0a1b3"),
];

const HELLO: Request<'_> =
    Request { method: "GET", target: "/hello?name=mesh", headers: &HEADERS, body: b"" };
const CHAIN: Request<'_> =
    Request { method: "POST", target: "/chain?id=7", headers: &HEADERS, body: &[b'x'; 100] };

/// Measures and reports as Markdown.
pub(crate) fn run(options: &Options) -> Result<String> {
    let engine = crate::guest::engine()?;
    let mut typed = typed::Typed::load(&engine)?;
    let mut bytes = bytes::Bytes::load(&engine)?;
    let mut flat = flat::Flat::load(&engine)?;
    let mut shapes: [&mut dyn Shape; 3] = [&mut typed, &mut bytes, &mut flat];
    let rounds = Rounds { rounds: options.rounds, calls_per_turn: options.calls_per_turn };

    let mut report = header(rounds);
    let nothing = measure(rounds, &mut shapes, |shape| shape.nothing())?;
    add_row(&mut report, "empty call", &nothing);
    for (name, request) in [
        ("hello: 8 headers in, response with 2", &HELLO),
        ("chain: 8 headers in, graph with 2 egress steps, 4 headers and 100 B each", &CHAIN),
    ] {
        check_alike(&mut shapes, request)?;
        let series = measure(rounds, &mut shapes, |shape| shape.handle(request).map(drop))?;
        add_row(&mut report, name, &series);
    }
    Ok(report)
}

/// Shapes that do not say the same cannot be compared.
fn check_alike(shapes: &mut [&mut dyn Shape], request: &Request<'_>) -> Result<()> {
    let seen: Vec<Seen> = shapes.iter_mut().map(|shape| shape.handle(request)).collect::<Result<_>>()?;
    ensure!(seen.iter().all(|one| *one == seen[0]), "the shapes answer differently: {seen:?}");
    Ok(())
}

fn measure(
    rounds: Rounds,
    shapes: &mut [&mut dyn Shape],
    call: impl Fn(&mut dyn Shape) -> Result<()>,
) -> Result<Vec<Series>> {
    let call = &call;
    let mut turns: Vec<_> = shapes.iter_mut().map(|shape| move || call(&mut **shape)).collect();
    let mut turns: Vec<&mut dyn FnMut() -> Result<()>> =
        turns.iter_mut().map(|turn| turn as &mut dyn FnMut() -> Result<()>).collect();
    take_turns(rounds, &mut turns)
}

fn header(rounds: Rounds) -> String {
    format!(
        "# Three shapes of the contract with cells\n\n\
         `cargo xtask bench contract` on {}.\n\
         One warm instance each, wasmtime 48, concurrency off, epochs on, pooling; medians of {} rounds of \
         {} calls in which the shapes take turns; in brackets the 10th and 90th percentile of the \
         rounds.\n\n\
         | us per call | {} | A / D | B / D |\n|---|---|---|---|---|---|\n",
        machine::describe(),
        rounds.rounds,
        rounds.calls_per_turn,
        NAMES.join(" | "),
    )
}

fn add_row(report: &mut String, name: &str, series: &[Series]) {
    let cells: Vec<String> = series.iter().map(|series| microseconds(series)).collect();
    let ratio = |index: usize| median_ratio(&series[index], &series[FLAT]);
    writeln!(report, "| {name} | {} | {:.2} | {:.2} |", cells.join(" | "), ratio(0), ratio(1))
        .expect("writing to a string does not fail");
}

fn microseconds(series: &[f64]) -> String {
    let [low, middle, high] = [0.1, 0.5, 0.9].map(|q| quantile(series, q) / 1_000.0);
    format!("{middle:.2} ({low:.2} to {high:.2})")
}
