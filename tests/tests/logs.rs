//! How the log is written: text for people, JSON lines for programs.

use cellmesh_tests::Run;
use serde_json::Value;

/// All that is written to standard error where a cell logs a line, with this in `CELLMESH_LOG_FORMAT`.
fn written(format: Option<&str>) -> String {
    let run = Run::app("[[cell]]\ncomponent = \"{cells}/unruly.wasm\"\nservices = [\"unruly\"]\n");
    let run = match format {
        Some(format) => run.env("CELLMESH_LOG_FORMAT", format),
        None => run,
    };
    let node = run.start();
    let _ = node.get("unruly", "/do/log:1").ok();
    node.stop().stderr
}

/// Each line as JSON.
fn lines(written: &str) -> Vec<Value> {
    let line = |line: &str| serde_json::from_str(line).unwrap_or_else(|why| panic!("{why}: {line}"));
    written.lines().map(line).collect()
}

/// A log that goes to a program is JSON, also where it is asked for; a word that is no format is said, and changes nothing.
#[test]
fn programs_read_json() {
    for (format, complains) in [(None, false), (Some("json"), false), (Some("xml"), true)] {
        let lines = lines(&written(format));
        let of_cell = lines.iter().find(|line| line["message"] == "line 0").expect("the cell's line");
        assert!(of_cell["request_id"].is_string() && of_cell["service"] == "unruly", "{of_cell}");
        let said = "CELLMESH_LOG_FORMAT = \"xml\": must be text or json; logging json";
        assert_eq!(lines.iter().any(|line| line["message"] == said), complains, "{format:?}: {lines:?}");
    }
}

/// Text is written where it is asked for, with the same in it, and without colours where there is no terminal.
#[test]
fn text_is_written_to_files_too() {
    let written = written(Some("text"));
    let of_cell = written.lines().find(|line| line.contains("line 0")).expect("the cell's line");
    assert!(of_cell.contains("INFO") && of_cell.contains("request_id="), "{of_cell}");
    assert!(written.lines().all(|line| serde_json::from_str::<Value>(line).is_err()), "{written}");
    assert!(!written.contains('\u{1b}'), "{written:?}");
}
