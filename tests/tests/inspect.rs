//! Commands that look at a process from outside: `top`, `graph` and `replay`, as a person calls them.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;

use cellmesh_tests::upstream::nobody;
use cellmesh_tests::{Node, Run, Wire, cells_dir, program, sample, until};

const CELLS: &str = r#"
    [trace]
    record = true
    [[cell]]
    component = "{cells}/unruly.wasm"
    services = ["front", "back"]
"#;

fn start() -> (Node, SocketAddr) {
    let admin = nobody();
    (Run::app(&format!("[admin]\nlisten = \"{admin}\"\n{CELLS}")).lanes(1).start(), admin)
}

/// What a command said, and how it ended.
struct Said {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

fn say(args: &[&str]) -> Said {
    let mut command = Command::new(program());
    command.args(args).env_remove("RUST_LOG").env("CELLMESH_CELLS", cells_dir());
    let output = command.output().expect("cellmesh can be started");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    Said { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

fn ask(admin: SocketAddr, path: &str) -> String {
    let mut wire = Wire::connect(admin);
    wire.send(format!("GET {path} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n"));
    wire.reply().text().to_owned()
}

/// Sends one request with a graph, and gives its recording as a file.
fn recorded(node: &Node, admin: SocketAddr) -> PathBuf {
    assert_eq!(
        node.get("front", "/pipe?url=http://back/x&url=http://back/answer?status=503&tolerant").status,
        200
    );
    until("all requests are kept", || ask(admin, "/v1/requests").matches("\"id\"").count() == 3);
    let kept: serde_json::Value = serde_json::from_str(&ask(admin, "/v1/requests")).expect("JSON");
    let front =
        kept["requests"].as_array().expect("a list").iter().find(|request| request["service"] == "front");
    let id = front.expect("it is kept")["id"].as_str().expect("an id").to_owned();
    let file = node.dir().join("recording.json");
    std::fs::write(&file, ask(admin, &format!("/v1/requests/{id}/recording"))).expect("a file");
    file
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path that is text")
}

/// The graph of the newest request, from the process and from its recording, in all forms.
#[test]
fn graph_is_written_in_all_forms() {
    let (node, admin) = start();
    let nothing = say(&["graph", &admin.to_string()]);
    assert_eq!(nothing.code, Some(1));
    assert!(nothing.stderr.contains("no request with a graph is kept there yet"), "{}", nothing.stderr);
    let recording = recorded(&node, admin);
    let live = say(&["graph", &admin.to_string()]);
    assert_eq!(live.code, Some(0), "{}", live.stderr);
    for line in [
        "  order#4: order",
        "    pipe#2: pipe",
        "!     call#1: GET http://back/answer?status=503, tolerant  [",
    ] {
        assert!(live.stdout.lines().any(|found| found.starts_with(line)), "{line} in {}", live.stdout);
    }
    let of_file = say(&["graph", text(&recording)]);
    assert!(
        of_file.stdout.contains("gather#3: function 2, given call#0, call#1  [200]"),
        "{}",
        of_file.stdout
    );
    let mermaid = say(&["graph", text(&recording), "--format", "mermaid"]).stdout;
    assert!(mermaid.contains("flowchart TD") && mermaid.contains("class s3 failed"), "{mermaid}");
    let svg = say(&["graph", text(&recording), "--format", "svg"]).stdout;
    assert!(svg.starts_with("<svg ") && svg.matches("<rect ").count() == 5, "{svg}");
}

/// A node without cells keeps no requests: whoever asks it is sent to the workers.
#[test]
fn node_sends_to_its_workers() {
    let admin = nobody();
    let node =
        Run::app(&format!("[admin]\nlisten = \"{admin}\"\n{CELLS}")).workers(&[&["front", "back"]]).start();
    assert_eq!(node.get("front", "/").status, 200);
    let said = say(&["graph", &admin.to_string()]);
    assert_eq!(said.code, Some(1));
    let expected =
        "is cellmesh node, which hosts no cells and keeps no requests: name the admin port of a worker";
    assert!(said.stderr.contains(expected), "{}", said.stderr);
    let top = say(&["top", &admin.to_string(), "--once", "--sort", "errors"]);
    assert!(top.stdout.contains("CALLS "), "{}{}", top.stdout, top.stderr);
}

/// A request that is run again comes to the same, without its services; against another cell it is said what differs.
#[test]
fn recorded_request_is_run_again() {
    let (node, admin) = start();
    let recording = recorded(&node, admin);
    let app = node.dir().join("app.toml");
    drop(ask(admin, "/livez"));
    let same = say(&["replay", text(&recording), text(&app)]);
    assert_eq!(same.code, Some(0), "{}{}", same.stdout, same.stderr);
    assert!(same.stdout.contains("the same graph of 5 steps"), "{}", same.stdout);
    // As a newer cell would differ that asks another service.
    let other = node.dir().join("other.json");
    let changed =
        std::fs::read_to_string(&recording).expect("a file").replace("http://back/x", "http://back/y");
    let changed = changed.replacen("/pipe?url=http://back/y", "/pipe?url=http://back/x", 1);
    std::fs::write(&other, changed).expect("a file");
    let differs = say(&["replay", text(&other), text(&app)]);
    assert_eq!(differs.code, Some(1), "{}", differs.stderr);
    let expected = "step call#0 sent: url\n  recorded: http://back/y\n  now:      http://back/x\n";
    assert!(differs.stdout.contains(expected), "{}", differs.stdout);
    let again = say(&["replay", text(&recording), text(&app), "--json"]);
    let [old, new]: [serde_json::Value; 2] =
        [&std::fs::read_to_string(&recording).expect("a file"), &again.stdout]
            .map(|text| serde_json::from_str(text).expect("JSON"));
    assert_eq!(old["course"]["response"], new["course"]["response"]);
}

/// A prepared response is part of a recording, is drawn, and is there again.
#[test]
fn prepared_response_is_run_again() {
    let (node, admin) = start();
    assert_eq!(node.get("front", "/order?url=http://back/&prepared=ready").status, 201);
    until("both requests are kept", || ask(admin, "/v1/requests").matches("\"id\"").count() == 2);
    let drawn = say(&["graph", &admin.to_string()]).stdout;
    assert!(drawn.contains("gather#1: prepared, or function 2, given call#0  [0 us, 201]"), "{drawn}");
    let stood = "step_prepared_total{service=\"front\",step=\"gather\"}";
    assert_eq!(sample(admin, stood), 1);
    let kept: serde_json::Value = serde_json::from_str(&ask(admin, "/v1/requests")).expect("JSON");
    let front = kept["requests"].as_array().expect("a list").iter().find(|kept| kept["service"] == "front");
    let id = front.expect("it is kept")["id"].as_str().expect("an id").to_owned();
    let recording = node.dir().join("prepared.json");
    std::fs::write(&recording, ask(admin, &format!("/v1/requests/{id}/recording"))).expect("a file");
    let app = node.dir().join("app.toml");
    let same = say(&["replay", text(&recording), text(&app)]);
    assert_eq!(same.code, Some(0), "{}{}", same.stdout, same.stderr);
    // As a newer cell would differ that prepares another text.
    let changed = std::fs::read_to_string(&recording).expect("a file").replace("\"ready\"", "\"early\"");
    std::fs::write(&recording, changed).expect("a file");
    let differs = say(&["replay", text(&recording), text(&app)]);
    assert_eq!(differs.code, Some(1), "{}", differs.stderr);
    assert!(differs.stdout.contains("recorded: early\n  now:      ready\n"), "{}", differs.stdout);
}

/// A request that comes to more than can be compared is refused before it takes more memory.
#[test]
fn replay_is_bounded() {
    let (node, admin) = start();
    let recording = recorded(&node, admin);
    let read = || std::fs::read_to_string(&recording).expect("a file");
    let mut large: serde_json::Value = serde_json::from_str(&read()).expect("JSON");
    // Each call is sent the body of the request.
    large["request"]["body"] = "x".repeat(8 << 20).into();
    for (calls, too_much) in [(2, false), (33, true)] {
        large["request"]["url"] = format!("/pipe?{}", "url=http://back/x&".repeat(calls)).into();
        std::fs::write(node.dir().join("large.json"), large.to_string()).expect("a file");
        let said = say(&["replay", text(&node.dir().join("large.json")), text(&node.dir().join("app.toml"))]);
        let is_refused = said.stderr.contains("have more than 268435456 bytes: too much to compare");
        assert_eq!((said.code, is_refused), (Some(1), too_much), "{calls} calls: {}", said.stderr);
    }
}

/// What cannot be used is named, with what could; nothing is run.
#[test]
fn what_cannot_be_used_is_named() {
    let (node, admin) = start();
    let recording = recorded(&node, admin);
    let app = node.dir().join("app.toml");
    let unknown = say(&["replay", text(&recording), text(&app), "--service", "nobody"]);
    assert!(
        unknown.code == Some(1) && unknown.stderr.contains("--service names one of front, back"),
        "{}",
        unknown.stderr
    );
    let no_recording = say(&["replay", text(&app), text(&app)]);
    assert!(
        no_recording.code == Some(1) && no_recording.stderr.contains("must be a recording"),
        "{}",
        no_recording.stderr
    );
    let no_config = say(&["replay", text(&recording), "nothing.toml"]);
    assert!(no_config.code == Some(2) && no_config.stderr.contains("nothing.toml"), "{}", no_config.stderr);
    for command in ["top", "graph"] {
        let away = say(&[command, &nobody().to_string()]);
        assert!(away.code == Some(1) && away.stderr.contains("[admin] listen"), "{command}: {}", away.stderr);
    }
    // What any service may answer.
    let service = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = service.local_addr().expect("bound").to_string();
    std::thread::spawn(move || {
        for stream in service.incoming() {
            let mut stream = stream.expect("a connection");
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}");
        }
    });
    for command in ["top", "graph"] {
        let other = say(&[command, &address]);
        let said = other.stderr.contains("no answer of a cellmesh admin port: missing field");
        assert!(other.code == Some(1) && said, "{command}: {} {}", other.stdout, other.stderr);
    }
    let no_address = say(&["top", "here"]);
    assert!(
        no_address.code == Some(1) && no_address.stderr.contains("such as 127.0.0.1:9901"),
        "{}",
        no_address.stderr
    );
}

/// One look at a process that serves: its cells, and who calls whom.
#[test]
fn top_shows_cells_and_calls() {
    let (node, admin) = start();
    recorded(&node, admin);
    let look = say(&["top", &admin.to_string(), "--once"]);
    assert_eq!(look.code, Some(0), "{}", look.stderr);
    for line in ["cellmesh run at ", "CELL   REQ/S", "front ", "clients -> front", "front -> back"] {
        assert!(look.stdout.lines().any(|found| found.starts_with(line)), "{line} in {}", look.stdout);
    }
    assert!(look.stdout.contains(": ready\n") && !look.stdout.contains('\x1b'), "{}", look.stdout);
}
