//! What a client may send over HTTP/1.1, byte by byte, and what RFC 9110 and RFC 9112 ask for in each case.
//!
//! - A [`case::Case`] is the bytes, the status, and whether the connection goes on. The tables are in the other files,
//!   by the part of a request that they are about.
//! - Behind the bytes of every case comes one more request. Where the connection goes on it gets its own answer; where
//!   it closes it is never taken for a request: neither does it get an answer, nor does the cell see it.
//! - Where two answers are right the tables have the one that we give. Where ours is not what the RFC asks for, it is
//!   in `KNOWN_DIFFERENCES`, with the reason.

mod case;
mod chunks;
mod fields;
mod fronts;
mod hosts;
mod known_differences;
mod lengths;
mod options;
mod request_line;
mod targets;

use std::panic::{AssertUnwindSafe, catch_unwind};

use case::{Case, Cut};
use cellmesh_tests::{Node, Run};

/// A table that is left out by mistake shows.
const CASES_LEAST: usize = 200;

fn cases() -> Vec<Case> {
    let tables = [
        request_line::cases(),
        targets::cases(),
        hosts::cases(),
        fields::cases(),
        lengths::cases(),
        chunks::cases(),
        options::cases(),
        known_differences::cases(),
    ];
    tables.into_iter().flatten().collect()
}

/// One instance of one cell, so that its count of requests is that of all, and short bodies.
fn node() -> Node {
    let toml = r#"
        [[cell]]
        component = "{cells}/unruly.wasm"
        services = ["s1"]
        instances_max = 1
        [dpu]
        body_bytes_max = "1KiB"
    "#;
    Run::app(toml).lanes(1).start()
}

/// Runs all cases, each on a connection of its own, and names those that fail.
fn check(cut: Cut) {
    let (node, cases) = (node(), cases());
    assert!(cases.len() >= CASES_LEAST, "only {} cases", cases.len());
    let fails = |case: &&Case| catch_unwind(AssertUnwindSafe(|| case.check(&node, cut))).is_err();
    let failed: Vec<&str> = cases.iter().filter(fails).map(Case::name).collect();
    assert!(failed.is_empty(), "{} of {} cases fail: {failed:#?}", failed.len(), cases.len());
}

/// Every case, sent at once with the request behind it.
#[test]
fn requests_are_answered_as_the_rfc_asks() {
    check(Cut::Nowhere);
}

/// The same, in two packets: where a packet ends means nothing.
#[test]
fn requests_in_two_packets_are_answered_alike() {
    check(Cut::InTheMiddle);
}

/// The same, in as many packets as a short request has bytes.
#[test]
fn requests_in_single_bytes_are_answered_alike() {
    check(Cut::Everywhere);
}

/// A case is found by its name.
#[test]
fn names_of_cases_differ() {
    let cases = cases();
    let names: std::collections::HashSet<&str> = cases.iter().map(Case::name).collect();
    assert_eq!(names.len(), cases.len());
}
