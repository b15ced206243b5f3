//! A graph as a Mermaid flowchart: solid arrows to children, dotted ones from inputs; thick borders on the critical path.

use std::collections::HashMap;
use std::fmt::Write;

use super::{Drawn, Row, clean};

pub(super) fn write(drawn: &Drawn) -> String {
    let rows = drawn.rows();
    let places: HashMap<&str, usize> =
        rows.iter().enumerate().map(|(place, row)| (&*row.step.id, place)).collect();
    let mut out = format!("%% {}\nflowchart TD\n", drawn.title);
    for (place, Row { step, parent, .. }) in rows.iter().enumerate() {
        let known = drawn.known(step);
        let mut label = format!("{}<br>{}", quoted(&clean(&step.id)), quoted(&Drawn::label(step)));
        let words = known.words();
        if !words.is_empty() {
            let _ = write!(label, "<br>{}", quoted(&words));
        }
        let _ = writeln!(out, "  s{place}[\"{label}\"]");
        if let Some(parent) = parent {
            let _ = writeln!(out, "  s{parent} --> s{place}");
        }
        for input in step.inputs.iter().filter_map(|input| places.get(&**input)) {
            let _ = writeln!(out, "  s{input} -.-> s{place}");
        }
        match (known.error.is_some(), known.is_critical) {
            (true, _) => drop(writeln!(out, "  class s{place} failed")),
            (false, true) => drop(writeln!(out, "  class s{place} critical")),
            (false, false) => {}
        }
    }
    if drawn.left_out() > 0 {
        let _ = writeln!(out, "  more[\"and {} more steps\"]", drawn.left_out());
    }
    out.push_str("  classDef critical stroke-width:4px\n  classDef failed stroke:#c00,stroke-width:4px\n");
    out
}

/// Inside quotes, by Mermaid's own way of writing characters.
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '"' | '#' | '<' | '>' | '&' | ';' => drop(write!(out, "#{};", u32::from(letter))),
            _ => out.push(letter),
        }
    }
    out
}
