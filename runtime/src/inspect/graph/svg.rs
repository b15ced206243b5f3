//! A graph as a picture: a row for each step, children to the right below their groups.
//!
//! - Plain SVG without scripts and fonts of its own; dark and light by the viewer's preference.
//! - What is marked is marked by form too: a thick border on the critical path, a cross before what failed.

use std::fmt::Write;

use super::{Drawn, Row, clean};

const ROW: usize = 60;
const INDENT: usize = 28;
const BOX_WIDTH: usize = 640;
const BOX_HEIGHT: usize = 48;
const TOP: usize = 48;
/// Steps further to the right than this stand in one column.
const DEPTH_MAX: usize = 24;

const STYLE: &str = "text{font:13px system-ui,sans-serif;fill:#111}\
    rect{fill:#f4f6f8;stroke:#67727e}path{fill:none;stroke:#67727e}\
    .critical rect{stroke-width:3;stroke:#0b5cad}.failed rect{stroke-width:3;stroke:#b3261e}text.quiet{fill:#4a545e}\
    @media(prefers-color-scheme:dark){text{fill:#eee}rect{fill:#20262c;stroke:#8b96a1}path{stroke:#8b96a1}\
    .critical rect{stroke:#6cb2ff}.failed rect{stroke:#ff8a80}text.quiet{fill:#b6c0ca}}";

pub(super) fn write(drawn: &Drawn) -> String {
    let rows = drawn.rows();
    let mut body = String::new();
    for (place, row) in rows.iter().enumerate() {
        step_box(&mut body, drawn, place, row);
    }
    let mut bottom = TOP + rows.len() * ROW + 20;
    if drawn.left_out() > 0 {
        let _ = writeln!(body, "<text x=\"16\" y=\"{bottom}\">and {} more steps</text>", drawn.left_out());
        bottom += 24;
    }
    let depth = rows.iter().map(|row| row.depth).max().unwrap_or_default().min(DEPTH_MAX);
    let (width, height) = (32 + depth * INDENT + BOX_WIDTH, bottom + 16);
    let title = escaped(&drawn.title);
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" role=\"img\">\n\
         <title>{title}</title>\n<style>{STYLE}</style>\n<text x=\"16\" y=\"28\" font-weight=\"600\">{title}</text>\n\
         {body}<text x=\"16\" y=\"{bottom}\" class=\"quiet\">thick: what the answer waited for; \u{2715}: failed</text>\n\
         </svg>\n",
    )
}

fn step_box(out: &mut String, drawn: &Drawn, place: usize, Row { step, depth, parent }: &Row<'_>) {
    let known = drawn.known(step);
    let (x, y) = (16 + (*depth).min(DEPTH_MAX) * INDENT, TOP + place * ROW);
    if let Some(parent) = parent {
        let (from, to) = (TOP + parent * ROW + BOX_HEIGHT, y + BOX_HEIGHT / 2);
        let _ = writeln!(out, "<path d=\"M{} {from}V{to}H{x}\"/>", x.saturating_sub(INDENT / 2));
    }
    let class = match (known.error.is_some(), known.is_critical) {
        (true, _) => "failed",
        (false, true) => "critical",
        (false, false) => "step",
    };
    let cross = if known.error.is_some() { "\u{2715} " } else { "" };
    let (id, label) = (escaped(&clean(&step.id)), escaped(&Drawn::label(step)));
    let (left, first, second, words) = (x + 10, y + 20, y + 38, escaped(&known.words()));
    let _ = writeln!(
        out,
        "<g class=\"{class}\"><rect x=\"{x}\" y=\"{y}\" width=\"{BOX_WIDTH}\" height=\"{BOX_HEIGHT}\" rx=\"5\"/>\
         <text x=\"{left}\" y=\"{first}\">{cross}{id}: {label}</text>\
         <text x=\"{left}\" y=\"{second}\" class=\"quiet\">{words}</text></g>",
    );
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
