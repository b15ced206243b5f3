//! The artifact cache: cells are compiled once, and only our own work is ever run.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use cellmesh_tests::{Node, Run, components};
use tempfile::TempDir;

const HELLO: &str = r#"
    [[cell]]
    component = "{cells}/hello.wasm"
    services = ["hello"]
"#;

/// A cache of its own, not made yet.
fn empty_cache() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let cache = dir.path().join("cache");
    (dir, cache)
}

/// Serves the hello cell out of `cache`; says whether it had to be compiled.
#[track_caller]
fn serves_and_compiles(cache: &Path) -> bool {
    let node = Run::app(HELLO).cache_dir(cache).start();
    assert_eq!(node.get("hello", "/").ok().text(), "hello\n");
    compiled(node) > 0
}

/// Cells that were compiled for this node. Ends it: then all of its log is there.
fn compiled(node: Node) -> usize {
    node.stop().stderr.lines().filter(|line| line.contains("\"message\":\"compiled\"")).count()
}

/// The compiled code in a cache, one file for each cell.
fn artifacts(cache: &Path) -> Vec<PathBuf> {
    let folders = fs::read_dir(cache.join("code/modules")).expect("the cache has code");
    let files = folders.flat_map(|folder| fs::read_dir(folder.expect("readable").path()).expect("readable"));
    let files = files.map(|file| file.expect("readable").path());
    files.filter(|file| file.is_file() && file.extension().is_none()).collect()
}

fn artifact(cache: &Path) -> PathBuf {
    let [file] = <[PathBuf; 1]>::try_from(artifacts(cache)).expect("one cell was compiled");
    file
}

fn seal(cache: &Path) -> PathBuf {
    let mut seals = fs::read_dir(cache.join("seals")).expect("the cache has seals");
    seals.next().expect("one").expect("readable").path()
}

/// A second start compiles nothing; nor does the same cell under two names.
#[test]
fn second_start_compiles_nothing() {
    let (_dir, cache) = empty_cache();
    assert!(serves_and_compiles(&cache));
    assert!(!serves_and_compiles(&cache));
    let two = format!("{HELLO}\n{}", HELLO.replace("\"hello\"", "\"other\""));
    let node = Run::app(&two).cache_dir(&cache).start();
    assert_eq!(node.get("other", "/").ok().text(), "hello\n");
    assert_eq!(compiled(node), 0);
}

/// A cell that changed is compiled; the one before is still there when it comes back.
#[test]
fn changed_component_is_compiled() {
    let (_dir, cache) = empty_cache();
    let serve = |liar: components::Liar| {
        let toml = "[[cell]]\ncomponent = \"cell.wasm\"\nservices = [\"cell\"]\n";
        let node = Run::app(toml).with_file("cell.wasm", liar.component()).cache_dir(&cache).start();
        let status = node.get("cell", "/").status;
        (compiled(node), status)
    };
    let says = |status: u32| {
        components::Liar::default().words(components::ANSWER, &[0, 0, 0, status, 0, 0, 0, 0, 0])
    };
    assert_eq!(serve(says(201)), (1, 201));
    assert_eq!(serve(says(202)), (1, 202));
    assert_eq!(serve(says(201)), (0, 201));
}

/// Code with one byte changed, at any place, is not run: the cell is compiled again and served.
#[test]
fn flipped_byte_is_found() {
    let (_dir, cache) = empty_cache();
    assert!(serves_and_compiles(&cache));
    let length = fs::metadata(artifact(&cache)).expect("it is there").len();
    let length = usize::try_from(length).expect("it fits");
    for place in [0, length / 2, length - 1] {
        let file = artifact(&cache);
        let mut bytes = fs::read(&file).expect("readable");
        bytes[place] ^= 1;
        fs::write(&file, bytes).expect("writable");
        assert!(serves_and_compiles(&cache), "byte {place} of {length}");
        assert!(!serves_and_compiles(&cache), "not kept after byte {place}");
    }
}

/// Code that is cut off, empty, or gone is compiled again.
#[test]
fn truncated_code_is_found() {
    let (_dir, cache) = empty_cache();
    assert!(serves_and_compiles(&cache));
    for keep in [0.0, 0.5, 0.99] {
        let file = artifact(&cache);
        let mut bytes = fs::read(&file).expect("readable");
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a part of a file's length"
        )]
        bytes.truncate((bytes.len() as f64 * keep) as usize);
        fs::write(&file, bytes).expect("writable");
        assert!(serves_and_compiles(&cache), "cut to {keep}");
    }
    fs::remove_file(artifact(&cache)).expect("it is there");
    assert!(serves_and_compiles(&cache));
}

/// Code of another cell in the place of ours, and its seal with it, is not run.
#[test]
fn code_of_another_cell_is_not_run() {
    let (_dir, cache) = empty_cache();
    assert!(serves_and_compiles(&cache));
    let (_other_dir, other) = empty_cache();
    let unruly = HELLO.replace("hello", "unruly");
    assert_eq!(Run::app(&unruly).cache_dir(&other).start().get("unruly", "/").ok().text(), "ok\n");
    fs::copy(artifact(&other), artifact(&cache)).expect("a copy");
    assert!(serves_and_compiles(&cache));
    fs::copy(artifact(&other), artifact(&cache)).expect("a copy");
    fs::copy(seal(&other), seal(&cache)).expect("a copy");
    assert!(serves_and_compiles(&cache));
}

/// A seal that was not made with this folder's key is none; neither is one that leads out of the folder.
#[test]
fn forged_seal_is_none() {
    let (_dir, cache) = empty_cache();
    assert!(serves_and_compiles(&cache));
    let honest = fs::read_to_string(seal(&cache)).expect("readable");
    let (file, tag) = honest.trim_end().split_once(' ').expect("a file and a tag");
    let forged = [
        format!("{file} {}\n", "0".repeat(tag.len())),
        format!("{file} \n"),
        format!("../code/{file} {tag}\n"),
        format!("{} {tag}\n", artifact(&cache).display()),
        "\n".to_owned(),
    ];
    for text in forged {
        fs::write(seal(&cache), &text).expect("writable");
        assert!(serves_and_compiles(&cache), "{text}");
    }
    fs::write(cache.join("key"), [7; 32]).expect("writable");
    assert!(serves_and_compiles(&cache), "another key");
}

/// A folder that others may read or write is refused, and nothing is served.
#[test]
fn cache_that_others_can_reach_is_refused() {
    let (_dir, cache) = empty_cache();
    fs::create_dir(&cache).expect("a folder");
    for mode in [0o755, 0o770, 0o777, 0o710] {
        fs::set_permissions(&cache, fs::Permissions::from_mode(mode)).expect("our folder");
        let ended = Run::app(HELLO).cache_dir(&cache).end();
        ended.failed_saying(&[cache.to_str().expect("text"), "mode 700"]);
    }
    fs::set_permissions(&cache, fs::Permissions::from_mode(0o700)).expect("our folder");
    assert!(serves_and_compiles(&cache));
}

/// Runs a file as a component that has to be refused.
#[track_caller]
fn check_component_refused(bytes: &[u8], parts: &[&str]) {
    let toml = "[[cell]]\ncomponent = \"bad.wasm\"\nservices = [\"bad\"]\n";
    let ended = Run::app(toml).with_file("bad.wasm", bytes).end();
    ended.failed_saying(&[&["bad.wasm"], parts].concat());
}

/// What is no component is refused with the name of its file.
#[test]
fn garbage_is_refused() {
    check_component_refused(b"", &[]);
    check_component_refused(b"no component at all", &[]);
    check_component_refused(b"\0asm\x0d\0\x01\0 and then garbage", &[]);
    check_component_refused(b"\0asm\x01\0\0\0", &["component"]);
    let hello = fs::read(cellmesh_tests::cell("hello")).expect("readable");
    check_component_refused(&hello[..hello.len() / 2], &[]);
}

/// A component that imports what cells do not get is refused with the import's name.
#[test]
fn forbidden_import_is_named() {
    for import in [
        "wasi:sockets/tcp@0.2.6",
        "wasi:http/outgoing-handler@0.2.6",
        "evil:host/escape",
        "cellmesh:cell/config@0.1.0",
    ] {
        check_component_refused(&components::importing(import), &[import, "a cell may import"]);
    }
}

/// A component that exports no handler is no cell.
#[test]
fn component_without_a_handler_is_no_cell() {
    let check = |bytes: Vec<u8>| check_component_refused(&bytes, &["cellmesh:cell/handler"]);
    check(components::importing("wasi:clocks/monotonic-clock@0.2.6"));
}

/// Two nodes that start at once on an empty cache both serve, and what they leave can be used.
#[test]
fn two_starts_at_once_share_a_cache() {
    let (_dir, cache) = empty_cache();
    let start = || {
        let cache = cache.clone();
        std::thread::spawn(move || serves_and_compiles(&cache))
    };
    for start in [start(), start(), start()] {
        let _ = start.join().expect("it serves");
    }
    assert!(!serves_and_compiles(&cache));
}
