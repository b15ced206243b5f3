use serde_json::json;

use super::*;

fn told() -> Drawn {
    let told = json!({
        "request": {"id": "0-1", "service": "front", "method": "GET", "target": "/<b>", "status": 500, "duration_seconds": 0.0125},
        "plan": {"root": "all", "respond_with": null, "steps_left_out": 0, "steps": [
            {"id": "all", "kind": "order", "children": ["work", "both"], "inputs": [], "tolerant": false},
            {"id": "work", "kind": "internal", "children": [], "inputs": [], "tolerant": false, "function": 3},
            {"id": "both", "kind": "pipe", "children": ["a", "b\"\u{1b}[31m"], "inputs": [], "tolerant": false},
            {"id": "a", "kind": "egress", "children": [], "inputs": ["work"], "tolerant": true,
             "requests": [{"method": "GET", "url": "http://s1/?a&b"}]},
            {"id": "b\"\u{1b}[31m", "kind": "builder", "children": [], "inputs": [], "tolerant": false, "function": 4},
        ]},
        "spans": [
            {"step": null, "duration_seconds": 0.001, "status": null, "error": null},
            {"step": "work", "duration_seconds": 0.0005, "status": 200, "error": null},
            {"step": "a", "duration_seconds": 1.5, "status": 200, "error": null},
            {"step": "b\"\u{1b}[31m", "duration_seconds": 0.0, "status": 500, "error": "no & no"},
        ],
        "critical_path": ["work", "a"],
        "callees": [],
    });
    Drawn::of(serde_json::from_value(told).unwrap()).unwrap()
}

/// An outline says what waits for what, how long it took, and what failed; nothing in it steers a terminal.
#[test]
fn outline_marks_path_and_failure() {
    let expected = "\
front: GET /<b> -> 500, 12.5 ms
  all: order
*   work: function 3  [500 us, 200]
    both: pipe
*     a: GET http://s1/?a&b, tolerant, given work  [1.50 s, 200]
!     b\"\\u{1b}[31m: builder, function 4  [0 us, 500, no & no]
* what the answer waited for   ! failed
";
    assert_eq!(text::write(&told()), expected);
}

/// What a cell chose is text in a picture, and no markup.
#[test]
fn pictures_quote_what_a_cell_chose() {
    let svg = svg::write(&told());
    assert!(
        svg.contains("front: GET /&lt;b&gt;") && svg.contains("no &amp; no") && !svg.contains("<b>"),
        "{svg}"
    );
    assert_eq!((svg.matches("class=\"critical\"").count(), svg.matches("class=\"failed\"").count()), (2, 1));
    let mermaid = mermaid::write(&told());
    assert!(mermaid.contains("s4[\"b#34;") && mermaid.contains("s1 -.-> s3"), "{mermaid}");
    assert!(mermaid.contains("class s1 critical") && mermaid.contains("class s4 failed"), "{mermaid}");
}

/// A file that says that a step is its own child does not go round.
#[test]
fn circle_in_a_file_is_drawn_once() {
    let mut drawn = told();
    drawn.plan.steps[2].children = vec!["all".into(), "both".into(), "nobody".into()];
    assert_eq!(drawn.rows().len(), 3);
}
