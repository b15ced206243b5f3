//! `cellmesh check`: what serving needs of this machine, each finding with what would help.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use cellmesh_shm::attach::AttachListener;
use cellmesh_tests::upstream::nobody;
use cellmesh_tests::{Ca, Ended, Run, cell, components};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketType};

/// Serves the hello cell; with so few connections and so short bodies that any machine will do.
const HELLO: &str = r#"
    name = "shop"
    [dpu]
    connections_max = 100
    body_bytes_max = "1MiB"
    buffered_bytes_max = "1MiB"
    answer_bytes_max = "1MiB"
    [[cell]]
    component = "{cells}/hello.wasm"
    services = ["hello"]
"#;

/// With another component, beside the file.
fn with_component(bytes: impl AsRef<[u8]>) -> Run {
    Run::app(&HELLO.replace("{cells}/hello.wasm", "cell.wasm")).with_file("cell.wasm", bytes)
}

/// Nothing is wrong: status 0, and all lines say what is right. They are returned.
#[track_caller]
fn check_good(run: Run) -> Vec<String> {
    let ended = run.arg("--verbose").check();
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{}", ended.stdout);
    let mut lines: Vec<String> = ended.stdout.lines().map(str::to_owned).collect();
    assert_eq!(lines.pop().as_deref(), Some("shop: 1 services, nothing wrong"), "{}", ended.stdout);
    assert!(lines.iter().all(|line| line.starts_with("ok: ")), "{}", ended.stdout);
    lines
}

/// One line is found, with these parts, and the sum.
#[track_caller]
fn check_found(ended: &Ended, code: i32, parts: &[&str], sum: &str) {
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(code), ""), "{}", ended.stdout);
    let lines: Vec<&str> = ended.stdout.lines().collect();
    let [found, last] = lines[..] else { panic!("not one finding and a sum: {}", ended.stdout) };
    for part in parts {
        assert!(found.contains(part), "no {part:?} in {found:?}");
    }
    assert_eq!(last, format!("shop: 1 services, {sum}"));
}

#[track_caller]
fn check_error(run: Run, parts: &[&str]) {
    check_found(&run.check(), 1, &[&["error: ", "; remedy: "], parts].concat(), "1 error");
}

/// A collector that nobody is at loses traces, not requests.
#[test]
fn unreachable_collector_is_told() {
    let away = Run::app(&format!("{HELLO}[trace]\nendpoint = \"http://{}\"\n", nobody()));
    let parts =
        ["warning: trace.endpoint = http://127.0.0.1:", "cannot be reached", "; remedy: start the collector"];
    check_found(&away.check(), 0, &parts, "1 warning");
}

/// Keys of a work model that nobody knows are told; nothing is wrong with those of muBench.
#[test]
fn unknown_keys_of_a_work_model_are_told() {
    let model = |keys: &str| Run::file("shop.json", &format!(r#"{{"s0": {{{keys}}}}}"#)).check();
    let told = model(r#""teastore_ref": "web", "url": "s0.ns.svc", "workers": 4"#);
    assert!(
        told.stdout.contains("warning: keys that mean nothing here and are passed over: s0.teastore_ref"),
        "{}",
        told.stdout
    );
    assert_eq!(told.code, Some(0));
    let refused = model(r#""cpu-requets": "500m""#);
    assert!(refused.stderr.contains("did you mean cpu-requests?"), "{}", refused.stderr);
    assert_eq!(refused.code, Some(2));
}

/// Everything is looked at, and all of it is right: the whole application, and each of its parts.
#[test]
fn good_machine_is_told_so() {
    let lines = check_good(Run::app(HELLO)).join("\n");
    for part in [
        "hello.wasm: a cell",
        "cache folder",
        "listen = 127.0.0.1:0: can be bound",
        "kernel: ",
        "descriptors: ",
    ] {
        assert!(lines.contains(part), "no {part:?} in {lines}");
    }
    for part in ["mappings: ", "address space: ", "lanes = ", "bodies: ", "instances: "] {
        assert!(lines.contains(part), "no {part:?} in {lines}");
    }
    let quiet = Run::app(HELLO).check();
    assert_eq!((quiet.code, quiet.stdout.as_str()), (Some(0), "shop: 1 services, nothing wrong"));
    // Daemons need no components.
    let away = HELLO.replace("{cells}", "nowhere");
    for part in ["node", "dpa"] {
        let lines = check_good(Run::app(&away).arg("--part").arg(part)).join("\n");
        assert!(lines.contains("dpa.sock: can be made") && !lines.contains(".wasm"), "{lines}");
        assert_eq!(lines.contains("listen = "), part == "node", "{lines}");
    }
}

/// A worker and a DPU may come before the DPA: that nobody is there yet is a warning.
#[test]
fn nobody_to_attach_to_is_a_warning() {
    for part in ["worker", "dpu"] {
        let ended = Run::app(HELLO).arg("--part").arg(part).check();
        let parts = ["warning: socket ", "dpa.sock: no DPA listens there; remedy: start `cellmesh node`"];
        check_found(&ended, 0, &parts, "1 warning");
        let run = Run::app(HELLO).arg("--part").arg(part);
        let dpa = AttachListener::bind(&run.dir().join("dpa.sock")).expect("a free path");
        assert!(check_good(run).join("\n").contains("dpa.sock: a DPA listens there"));
        drop(dpa);
    }
}

/// An address that somebody has is named with who that is.
#[test]
fn taken_port_is_told_with_its_holder() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("bound");
    let (what, who) = (format!("listen = {address}: is taken by "), format!("(pid {})", std::process::id()));
    check_error(Run::app(HELLO).listen(address), &[&what, &who, "end that, or name another address"]);
    let admin = Run::app(HELLO).arg("--admin").arg(&address.to_string());
    check_error(admin, &[&format!("admin.{what}"), &who]);
    let foreign = Run::app(HELLO).listen("198.51.100.7:5005".parse().expect("an address"));
    check_error(
        foreign,
        &["listen = 198.51.100.7:5005: cannot be bound", "`ip address` lists those of this machine"],
    );
}

/// A component that is none, or asks for what cells do not get, is told without compiling it.
#[test]
fn unfit_components_are_told() {
    let import = "wasi:http/outgoing-handler@0.2.6";
    check_error(
        with_component(components::importing(import)),
        &["cell.wasm: imports wasi:http/outgoing-handler"],
    );
    let clocks = components::importing("wasi:clocks/monotonic-clock@0.2.6");
    check_error(with_component(clocks), &["cell.wasm: does not export cellmesh:cell/handler@0.2.0"]);
    check_error(with_component(b"no component"), &["cell.wasm: is no WebAssembly component"]);
    check_error(
        with_component(b"\0asm\x01\0\0\0"),
        &["cell.wasm: is no WebAssembly component: it is a core module"],
    );
    let hello = fs::read(cell("hello")).expect("readable");
    check_error(with_component(&hello[..hello.len() / 2]), &["cell.wasm: is no WebAssembly component"]);
    let fits = with_component(components::Liar::default().component());
    assert!(check_good(fits).join("\n").contains("cell.wasm: a cell"));
}

/// A component that is not there is a mistake of the config, as ever: status 2, on standard error.
#[test]
fn missing_component_is_bad_config() {
    let ended = Run::app(&HELLO.replace("hello.wasm", "missing.wasm")).check();
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(2), ""), "{}", ended.stderr);
    assert!(ended.stderr.contains("cell[0].component: there is no file"), "{}", ended.stderr);
}

/// A cache folder that others can use is told with the command that mends it; nothing is made where there is none.
#[test]
fn cache_folder_is_looked_at() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let cache = dir.path().join("a/cache");
    let lines = check_good(Run::app(HELLO).cache_dir(&cache)).join("\n");
    assert!(lines.contains("made at the start") && lines.contains("compiled at the start"), "{lines}");
    assert!(!dir.path().join("a").exists(), "nothing is left behind");
    fs::create_dir_all(&cache).expect("a folder");
    fs::set_permissions(&cache, fs::Permissions::from_mode(0o755)).expect("our folder");
    check_error(
        Run::app(HELLO).cache_dir(&cache),
        &["others may use it (mode 755)", &format!("chmod 700 {}", cache.display())],
    );
    let file = dir.path().join("file");
    fs::write(&file, b"").expect("writable");
    check_error(Run::app(HELLO).cache_dir(&file.join("cache")), &["is no folder", "--cache-dir"]);
    // Nothing is forbidden to root.
    if !rustix::process::geteuid().is_root() {
        fs::set_permissions(&cache, fs::Permissions::from_mode(0o500)).expect("our folder");
        check_error(Run::app(HELLO).cache_dir(&cache), &["cannot be written (mode 500"]);
    }
}

/// With `--compile` cells are compiled as at the first start, which then compiles nothing.
#[test]
fn compile_fills_the_cache() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let cache = dir.path().join("cache");
    let lines = check_good(Run::app(HELLO).cache_dir(&cache).arg("--compile")).join("\n");
    assert!(lines.contains("hello.wasm: a cell, compiled already"), "{lines}");
    let lines = check_good(Run::app(HELLO).cache_dir(&cache)).join("\n");
    assert!(lines.contains("hello.wasm: a cell, compiled already"), "{lines}");
    let node = Run::app(HELLO).cache_dir(&cache).start();
    assert_eq!(node.get("hello", "/").ok().text(), "hello\n");
    assert!(!node.stop().stderr.contains("\"message\":\"compiled\""));
}

/// A socket at which a DPA listens is an error for another DPA; one that a dead one left is replaced.
#[test]
fn sockets_of_others_are_told() {
    let node = || Run::app(HELLO).arg("--part").arg("node");
    let run = node();
    let dpa = AttachListener::bind(&run.dir().join("dpa.sock")).expect("a free path");
    check_error(run, &["dpa.sock: another DPA listens there", "end that, or name another"]);
    drop(dpa);
    let run = node();
    leave_socket(&run.dir().join("dpa.sock"));
    assert!(
        check_good(run)
            .join("\n")
            .contains("dpa.sock: a DPA that is gone left it; it is replaced at the start")
    );
    check_error(
        node().with_file("dpa.sock", b""),
        &["dpa.sock: a file is there that is no socket of a DPA", "remove it"],
    );
}

/// What a DPA that was killed leaves behind.
fn leave_socket(path: &Path) {
    let socket = rustix::net::socket(AddressFamily::UNIX, SocketType::SEQPACKET, None).expect("a socket");
    rustix::net::bind(&socket, &SocketAddrUnix::new(path).expect("a short path")).expect("a free path");
}

/// A certificate that has ended is an error; a key that everybody may read is a warning.
#[test]
fn files_of_tls_are_looked_at() {
    let ca = Ca::new();
    let run = |year: i32, mode: u32| {
        let identity = ca.sign_until(year);
        let tls = "[dpu.tls]\nlisten = \"127.0.0.1:0\"\ncertificate = \"tls.crt\"\nkey = \"tls.key\"\n";
        let run = Run::app(&format!("{HELLO}{tls}")).with_file("tls.crt", identity.certificate_pem());
        let run = run.with_file("tls.key", identity.key_pem());
        let key = run.dir().join("tls.key");
        fs::set_permissions(key, fs::Permissions::from_mode(mode)).expect("our file");
        run
    };
    let lines = check_good(run(4000, 0o600)).join("\n");
    assert!(
        lines.contains("tls.crt: good for ") && lines.contains("dpu.tls.listen = 127.0.0.1:0"),
        "{lines}"
    );
    check_error(run(2020, 0o600), &["tls.crt: expired ", " days ago", "put a new one"]);
    let ended = run(4000, 0o644).check();
    check_found(
        &ended,
        0,
        &["warning: key ", "tls.key: everybody on this machine may use it", "chmod 600"],
        "1 warning",
    );
}

/// Fewer descriptors than connections: it serves, and will hurt.
#[test]
fn limits_are_compared() {
    let ended = Run::app(&HELLO.replace("100", "1000")).descriptors_max(600).check();
    let parts =
        ["warning: descriptors: 600 at most", "dpu.connections_max = 1000 needs 1256", "(LimitNOFILE=1256 "];
    check_found(&ended, 0, &parts, "1 warning");
}
