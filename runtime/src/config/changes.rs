//! Which keys of a config file have other values than before, and which of these a running process takes over. Pure.
//!
//! - Files are compared as they are written: a key that is written with its default value is a change that changes nothing.
//! - Keys of lists of tables are named by their places: `cell[0].egress.allow`.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Map, Value};

use super::{Origin, is_json};

/// Keys that a running process takes over, with everything below them. The others are for its start.
const LIVE: [&str; 5] = ["entry", "namespace", "dpu", "service", "cell[].egress"];
/// But not these: they say what is bound.
const NOT_LIVE: [&str; 1] = ["dpu.tls"];

/// The keys that differ, in the order of the alphabet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// Those that a running process takes over.
    pub live: Vec<String>,
    /// Those that hold after a restart.
    pub restart: Vec<String>,
}

/// What `new` says in other words than `old`. Both were read without a mistake.
#[must_use]
pub fn changes(old: &Origin, new: &Origin) -> Changes {
    let mut keys = Vec::new();
    compare("", &document(&old.path, &old.text), &document(&new.path, &new.text), &mut keys);
    if !is_json(&new.path, &new.text) {
        compare("workmodel", &model(old), &model(new), &mut keys);
    }
    let (live, restart) = keys.into_iter().partition(|key| is_live(key));
    Changes { live, restart }
}

fn document(path: &Path, text: &str) -> Value {
    let value = if is_json(path, text) { serde_json::from_str(text).ok() } else { toml::from_str(text).ok() };
    value.unwrap_or_default()
}

/// The work model that an `app.toml` names.
fn model(origin: &Origin) -> Value {
    origin.model.as_deref().and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
}

/// As deep as the readers of both formats let a file be.
fn compare(at: &str, old: &Value, new: &Value, keys: &mut Vec<String>) {
    if old == new {
        return;
    }
    if is_table(old) && is_table(new) && (has_keys(old) || has_keys(new)) {
        let names: BTreeSet<&String> =
            [old, new].iter().filter_map(|value| value.as_object()).flat_map(Map::keys).collect();
        for name in names {
            let path = if at.is_empty() { name.clone() } else { format!("{at}.{name}") };
            compare(&path, &old[name.as_str()], &new[name.as_str()], keys);
        }
    } else if let (Some(old), Some(new)) = (tables(old), tables(new)) {
        for index in 0..old.len().max(new.len()) {
            let path = format!("{at}[{index}]");
            match (old.get(index), new.get(index)) {
                (Some(old), Some(new)) => compare(&path, old, new, keys),
                _ => keys.push(path),
            }
        }
    } else {
        keys.push(at.to_owned());
    }
}

/// What is not there is a table without keys.
fn is_table(value: &Value) -> bool {
    value.is_object() || value.is_null()
}

fn has_keys(value: &Value) -> bool {
    value.as_object().is_some_and(|table| !table.is_empty())
}

fn tables(value: &Value) -> Option<&[Value]> {
    value.as_array().filter(|items| items.iter().all(Value::is_object)).map(Vec::as_slice)
}

fn is_live(key: &str) -> bool {
    let key = without_places(key);
    let is_below =
        |top: &str| key.strip_prefix(top).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
    LIVE.iter().any(|live| is_below(live)) && !NOT_LIVE.iter().any(|other| is_below(other))
}

/// `cell[].egress.allow` of `cell[0].egress.allow`.
fn without_places(key: &str) -> String {
    let mut inside = false;
    key.chars()
        .filter(|letter| {
            inside = (inside || *letter == '[') && *letter != ']';
            !inside || *letter == '['
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn between(name: &str, old: &str, new: &str) -> (Vec<String>, Vec<String>) {
        let origin = |text: &str| Origin { path: name.into(), text: text.to_owned(), ..Origin::default() };
        let Changes { live, restart } = changes(&origin(old), &origin(new));
        (live, restart)
    }

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    /// Policies are taken over; what is bound for TLS is not, although it stands among keys that are.
    #[test]
    fn listener_of_tls_waits_for_a_restart() {
        let old = "[dpu.tls]\nlisten = \"1.2.3.4:1\"\n[service.a]\ntimeout = \"1s\"";
        let new = "[dpu.tls]\nlisten = \"1.2.3.4:2\"\n[service.a]\ntimeout = \"2s\"";
        let expected = (words("service.a.timeout"), words("dpu.tls.listen"));
        assert_eq!(between("app.toml", old, new), expected);
    }

    /// Every key that differs is named, with its place, on the side that it belongs to.
    #[test]
    fn changed_keys_are_named() {
        let old = r#"
            entry = "a"
            listen = "127.0.0.1:1"
            [[cell]]
            component = "a.wasm"
            services = ["a"]
            egress = { allow = ["x"] }
            [dpu]
            body_bytes_max = "1MiB"
            egress = { hosts = { b = "10.0.0.1:80" } }
        "#;
        let new = r#"
            entry = "b"
            listen = "127.0.0.1:2"
            [[cell]]
            component = "a.wasm"
            services = ["a", "b"]
            egress = { allow = ["y"] }
            [[cell]]
            component = "c.wasm"
            services = ["c"]
            egress = { allow = ["z"] }
            [dpu]
            requests_max = 7
            egress = { hosts = { b = "10.0.0.2:80" } }
            [runtime]
            lanes = 1
        "#;
        let (live, restart) = between("app.toml", old, new);
        let all_live = "cell[0].egress.allow dpu.body_bytes_max dpu.egress.hosts.b dpu.requests_max entry";
        assert_eq!(live, words(all_live));
        assert_eq!(restart, words("cell[0].services cell[1] listen runtime.lanes"));
    }

    /// White space, comments and the order of keys are no changes.
    #[test]
    fn same_values_are_no_change() {
        let (old, new) = ("entry = 'a'\nname = 'n'", "# so\nname = \"n\"\n\nentry = \"a\"");
        assert_eq!(between("app.toml", old, new), (Vec::new(), Vec::new()));
    }

    /// Of a work model nothing can change while it runs.
    #[test]
    fn work_models_are_for_the_start() {
        let (live, restart) =
            between("w.json", r#"{"s0": {"path": "/"}}"#, r#"{"s0": {"path": "/x"}, "s1": {}}"#);
        assert_eq!((live, restart), (Vec::new(), words("s0.path s1")));
    }
}
