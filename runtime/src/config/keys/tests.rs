use std::collections::BTreeSet;
use std::fmt::Write as _;

use cellmesh_dpu::units::{ByteSize, TimeSpan};

use super::super::problems::Problem;
use super::super::{App, Overrides, Part, load};
use super::*;

/// What a table cannot do without, by its place, with values that are right.
const NEEDED: &[(&str, &[(&str, &str)])] = &[
    ("cell", &[("component", "\"hello.wasm\""), ("services", "[\"a\", \"b\"]")]),
    ("dpa.worker_socket", &[("path", "\"/tmp/a.sock\""), ("services", "[\"a\"]")]),
    ("dpu.tls", &[("listen", "\"127.0.0.1:1\""), ("certificate", "\"a.crt\""), ("key", "\"a.key\"")]),
    ("service.NAME.rate", &[("per_second", "1"), ("burst", "1")]),
    ("service.NAME.jwt", &[("jwks", "\"keys.json\"")]),
    ("service.NAME.jwt.rules", &[("path", "\"/a\""), ("claim", "\"b\""), ("values", "[\"c\"]")]),
];

fn needed(path: &str) -> &'static [(&'static str, &'static str)] {
    NEEDED.iter().find(|(place, _)| *place == path).map_or(&[], |(_, keys)| keys)
}

/// A file with this line in the table of this place, and all that is needed around it.
fn file(path: &str, line: Option<(&str, &str)>) -> String {
    let keys = |place: &str| {
        let said = line.filter(|_| place == path);
        let others = needed(place).iter().filter(|(name, _)| said.is_none_or(|(said, _)| said != *name));
        others.chain(&said).fold(String::new(), |text, (name, value)| format!("{text}{name} = {value}\n"))
    };
    let mut text = keys("");
    write!(text, "[[cell]]\n{}", keys("cell")).expect("memory takes all text");
    let mut table = |place: &str| {
        let header = place.replace("NAME", "a");
        let header = if is_repeated(place) { format!("[[{header}]]") } else { format!("[{header}]") };
        write!(text, "{header}\n{}", keys(place)).expect("memory takes all text");
    };
    if path == "service.NAME.jwt.rules" {
        table("service.NAME.jwt");
    }
    if !["", "cell"].contains(&path) {
        table(path);
    }
    text
}

/// Whether there is one of it in brackets of brackets.
fn is_repeated(path: &str) -> bool {
    let (parent, name) = path.rsplit_once('.').unwrap_or(("", path));
    let keys = ALL.iter().filter(|section| section.path == parent).flat_map(|section| section.keys);
    keys.filter(|key| key.name == name).any(|key| key.kind == Tables)
}

fn read(text: &str) -> Result<App, Vec<Problem>> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(folder.path().join("hello.wasm"), b"").expect("writable");
    let path = folder.path().join("app.toml");
    std::fs::write(&path, text).expect("writable");
    // Other parts would look at the files that keys name.
    let overrides = Overrides { part: Part::Worker, ..Overrides::default() };
    load(&path, &overrides).map_err(|problems| problems.0)
}

fn path_of(section: &Section, key: &Key) -> String {
    if section.path.is_empty() { key.name.into() } else { format!("{}.{}", section.path, key.name) }
}

/// The place of a problem as this list has it: without what is repeated, and with nobody's name.
fn place_of(problem: &Problem) -> String {
    let mut place = String::new();
    let mut rest = problem.key.as_str();
    while let Some((before, behind)) = rest.split_once('[') {
        place.push_str(before);
        rest = behind.split_once(']').map_or("", |(_, rest)| rest);
    }
    place.push_str(rest);
    let place = place.trim_end_matches('.');
    place.strip_prefix("service.a").map_or_else(|| place.to_owned(), |rest| format!("service.NAME{rest}"))
}

/// What is wrong with a key, or with the table that it is in.
fn wrong_with(path: &str, text: &str) -> Vec<String> {
    let problems = read(text).err().unwrap_or_default();
    let is_it =
        |place: &str| path == place || path.strip_prefix(place).is_some_and(|rest| rest.starts_with('.'));
    problems.iter().filter(|problem| is_it(&place_of(problem))).map(ToString::to_string).collect()
}

/// All keys, each with its section.
fn keys() -> impl Iterator<Item = (&'static Section, &'static Key)> {
    ALL.iter().flat_map(|section| section.keys.iter().map(move |key| (section, key)))
}

/// The keys that the reader of a table says it knows, when it is asked for one that nobody knows.
fn known_to_reader(section: &Section) -> BTreeSet<String> {
    let text = file(section.path, Some(("zzzzzzzz", "1")));
    let problems = read(&text).expect_err(&text);
    let found = problems.iter().find(|problem| problem.to_string().contains("zzzzzzzz"));
    let Problem { right, .. } = found.unwrap_or_else(|| panic!("{problems:?} of {text}"));
    let known = right.strip_prefix("known here: ").unwrap_or_else(|| panic!("{right:?} of {text}"));
    known.split(", ").map(str::to_owned).collect()
}

/// The list has the keys that the readers know, table by table, and no others; and each of its tables.
#[test]
fn list_has_every_key() {
    for section in ALL {
        let listed: BTreeSet<String> = section.keys.iter().map(|key| key.name.to_owned()).collect();
        assert_eq!(listed, known_to_reader(section), "[{}]", section.path);
        assert_eq!(listed.len(), section.keys.len(), "[{}] has a key twice", section.path);
    }
    let tables: BTreeSet<String> = keys()
        .filter(|(_, key)| matches!(key.kind, Table | Tables))
        .map(|(section, key)| path_of(section, key))
        .chain(["service.NAME".to_owned(), String::new()])
        .collect();
    assert_eq!(tables, ALL.iter().map(|section| section.path.to_owned()).collect());
}

/// A default is what comes of leaving the key out.
#[test]
fn defaults_are_true() {
    let shown = |text: &str| {
        let mut app = read(text).unwrap_or_else(|problems| panic!("{problems:?} of {text}"));
        app.origin = crate::config::Origin::default();
        let folder =
            app.services[0].setup.component.file().and_then(|file| file.parent().map(ToOwned::to_owned));
        let folder = folder.expect("a file").display().to_string();
        format!("{app:?}").replace(&folder, "FOLDER")
    };
    for (section, key) in keys() {
        let path = path_of(section, key);
        match key.default {
            Is(value) => {
                let [with, without] =
                    [Some((key.name, value)), None].map(|line| shown(&file(section.path, line)));
                assert_eq!(with, without, "{path} = {value}");
            }
            Required if path != "cell" => {
                let left = file(section.path, None).replace(&needed_line(section, key), "");
                assert_ne!(wrong_with(&path, &left), [""; 0], "{path} can be left out of {left}");
            }
            Said(_) | Nothing | Required => {}
        }
    }
}

fn needed_line(section: &Section, key: &Key) -> String {
    let found = needed(section.path).iter().find(|(name, _)| *name == key.name);
    let (name, value) = found.unwrap_or_else(|| panic!("{} is needed", path_of(section, key)));
    format!("{name} = {value}\n")
}

/// A key takes what the list says, up to its bounds and not beyond them, and nothing of another kind.
#[test]
fn bounds_are_true() {
    for (section, key) in keys() {
        let path = path_of(section, key);
        let wrong = |value: &str| wrong_with(&path, &file(section.path, Some((key.name, value))));
        if path != "cell" && path != "service" {
            let other = if matches!(key.kind, Table | Map) { "1" } else { "{ zzzzzzzz = {} }" };
            assert_ne!(wrong(other), [""; 0], "{path} takes {other}");
        }
        let (least, most) = match key.bounds {
            From(least, most) => (Some(least), Some(most)),
            AtLeast(least) => (Some(least), None),
            AtMost(most) => (None, Some(most)),
            Any | Words(_) => (None, None),
        };
        for (bound, step) in [(least, -1), (most, 1)] {
            let Some(bound) = bound else { continue };
            let (right, beyond) = around(key.kind, bound, step);
            assert_eq!(wrong(&right), [""; 0], "{path} = {right}");
            if let Some(beyond) = beyond {
                assert_ne!(wrong(&beyond), [""; 0], "{path} takes {beyond}");
            }
        }
    }
}

/// A bound as a file has it, and the next value beyond it, if there is one.
fn around(kind: Kind, bound: &str, step: i64) -> (String, Option<String>) {
    let next = |count: u64| count.checked_add_signed(step);
    match kind {
        Count => (bound.into(), Some((bound.parse::<i64>().expect("a number") + step).to_string())),
        Share => (bound.into(), Some(if step < 0 { "-0.1".into() } else { "1.1".into() })),
        Time => {
            let TimeSpan(span) = bound.parse().expect("a duration");
            let beyond = next(u64::try_from(span.as_millis()).expect("it is short"));
            (format!("\"{bound}\""), beyond.map(|ms| format!("\"{ms}ms\"")))
        }
        Size => {
            let ByteSize(bytes) = bound.parse().expect("a size");
            (format!("\"{bound}\""), next(bytes).map(|bytes| format!("\"{bytes}B\"")))
        }
        Text | List | Flag | Amount | Address | Choice | Map | Table | Tables => {
            panic!("{kind:?} has no bounds but in words")
        }
    }
}

const PAGE_HEAD: &str = "# Keys of app.toml

Every key, what it takes, and what it is unless the file says otherwise; [config.md](config.md) explains them with examples. This page is made of the list in
`runtime/src/config/keys.rs`; tests hold that to what reads the file.

- Durations are text with a unit: `\"250ms\"`, `\"30s\"`, `\"5m\"`, `\"1h\"`; so are sizes: `\"512B\"`, `\"64KiB\"`, `\"16MiB\"`, `\"1GiB\"`; amounts are written as Kubernetes does:
  `\"500m\"`, `\"64Mi\"`.
- Numbers are whole but for shares, which are from 0.0 to 1.0. A number without an upper bound fits 32 bits, or what the meaning says.
- Keys that are not here are refused.
";

/// The list as a page in Markdown.
fn page() -> String {
    let mut page = String::from(PAGE_HEAD);
    for section in ALL {
        let title = match (section.path, is_repeated(section.path)) {
            ("", _) => "The file itself".to_owned(),
            (path, true) => format!("`[[{path}]]`"),
            (path, false) => format!("`[{path}]`"),
        };
        write!(page, "\n## {title}\n\n| key | takes | default | bounds | meaning |\n|---|---|---|---|---|\n")
            .expect("memory takes all text");
        for key in section.keys {
            let (path, takes, meaning) = (path_of(section, key), takes(key.kind), key.meaning);
            let (default, bounds) = (default_of(key.default), bounds_of(key));
            writeln!(page, "| `{path}` | {takes} | {default} | {bounds} | {meaning} |")
                .expect("memory takes all text");
        }
    }
    page
}

fn takes(kind: Kind) -> &'static str {
    match kind {
        Text => "text",
        List => "list",
        Flag => "`true` or `false`",
        Count => "number",
        Share => "share",
        Time => "duration",
        Size => "size",
        Amount => "amount",
        Address => "address and port",
        Choice => "one of the texts",
        Map => "table of the user's keys",
        Table => "table",
        Tables => "tables",
    }
}

fn default_of(default: Otherwise) -> String {
    match default {
        Is(value) => format!("`{value}`"),
        Said(words) => words.into(),
        Nothing => "none".into(),
        Required => "must be there".into(),
    }
}

fn bounds_of(key: &Key) -> String {
    let is_text = matches!(key.kind, Time | Size);
    let quoted = |bound: &str| if is_text { format!("`\"{bound}\"`") } else { bound.to_owned() };
    match key.bounds {
        Any => String::new(),
        From(least, most) => format!("{} to {}", quoted(least), quoted(most)),
        AtLeast(least) => format!("at least {}", quoted(least)),
        AtMost(most) => format!("at most {}", quoted(most)),
        Words(words) => words.into(),
    }
}

/// The page in the docs is this list. `CELLMESH_WRITE_DOCS=1 cargo test -p cellmesh page_of_keys` writes it.
#[test]
fn page_of_keys_is_current() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/config-keys.md");
    if std::env::var_os("CELLMESH_WRITE_DOCS").is_some() {
        std::fs::write(path, page()).expect("the docs are writable");
    }
    let found = std::fs::read_to_string(path).expect("docs/config-keys.md");
    assert!(found == page(), "docs/config-keys.md is not of this list: write it with CELLMESH_WRITE_DOCS=1");
    assert!(ALL.iter().flat_map(|section| section.keys).all(|key| key.meaning.ends_with('.')));
}
