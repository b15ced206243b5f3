//! A graph as an outline: children below their groups, `*` before what the answer waited for, `!` before what failed.

use std::fmt::Write;

use super::{Drawn, Row, clean};

pub(super) fn write(drawn: &Drawn) -> String {
    let mut out = format!("{}\n", drawn.title);
    for row in drawn.rows() {
        line(&mut out, drawn, &row);
    }
    if drawn.left_out() > 0 {
        let _ = writeln!(out, "and {} more steps", drawn.left_out());
    }
    if let Some(step) = &drawn.plan.respond_with {
        let _ = writeln!(out, "responds with {}", clean(step));
    }
    out.push_str("* what the answer waited for   ! failed\n");
    out
}

fn line(out: &mut String, drawn: &Drawn, Row { step, depth, .. }: &Row<'_>) {
    let known = drawn.known(step);
    let mark = match (&known.error, known.is_critical) {
        (Some(_), _) => '!',
        (None, true) => '*',
        (None, false) => ' ',
    };
    let indent = "  ".repeat(*depth);
    let _ = write!(out, "{mark} {indent}{}: {}", clean(&step.id), Drawn::label(step));
    if step.tolerant {
        out.push_str(", tolerant");
    }
    if !step.inputs.is_empty() {
        let inputs: Vec<String> = step.inputs.iter().map(|input| clean(input)).collect();
        let _ = write!(out, ", given {}", inputs.join(", "));
    }
    let words = known.words();
    if !words.is_empty() {
        let _ = write!(out, "  [{words}]");
    }
    out.push('\n');
}
