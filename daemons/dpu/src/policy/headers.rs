//! Header lines that a policy adds to a message or removes from it.
//!
//! - Removed first, then added: a name in both is replaced.
//! - What belongs to one connection, to the framing, or to the mesh is not for a policy; config refuses it.

use std::collections::BTreeMap;

use bytes::Bytes;
use cellmesh_shm::head::{HeaderLines, is_hop_by_hop};
use http::{HeaderName, HeaderValue};
use serde::Deserialize;

use crate::config::Problems;
use crate::forward::MESH_PREFIX;

/// Lines that may be added, and their bytes: with those of a client they must fit what a cell is promised.
const ADDED_MOST: usize = 16;
const ADDED_BYTES_MOST: usize = 4096;

/// `{ add = { "x-team" = "a" }, remove = ["x-debug"] }`. Upper and lower case are one name.
#[derive(Debug, Clone, Default, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct HeaderRules {
    /// Lines that are added, behind those that are there.
    pub add: BTreeMap<String, String>,
    /// Headers of which every line is removed, before any is added.
    pub remove: Vec<String>,
}

impl HeaderRules {
    /// Notes each that no policy may have. `add`, `remove`: the keys of the two, from the policy on.
    pub(super) fn check(&self, [add, remove]: [&'static str; 2], problems: &mut Problems) {
        let names =
            self.add.keys().map(|name| (add, name)).chain(self.remove.iter().map(|name| (remove, name)));
        for (key, name) in names {
            let right = right_of(name);
            problems.check(key, &format_args!("{name:?}"), right.is_none(), right.unwrap_or_default());
        }
        for (name, value) in &self.add {
            let is_good = HeaderValue::from_str(value).is_ok() && value.trim() == value;
            let right = "a header's value: printable ASCII without space at its ends";
            problems.check(add, &format_args!("{name:?} = {value:?}"), is_good, right);
        }
        let (lines, bytes) = (self.add.len(), self.added_bytes());
        problems.check(add, &format_args!("{lines} lines"), lines <= ADDED_MOST, "at most 16 lines");
        problems.check(add, &format_args!("{bytes} bytes"), bytes <= ADDED_BYTES_MOST, "at most 4096 bytes");
    }

    /// Header lines with what is removed and added. `prefix`: what stands in front of them and stays.
    ///
    /// - cost: one copy.
    pub(super) fn apply(&self, prefix: &[u8], lines: HeaderLines<'_>) -> Bytes {
        let mut bytes = Vec::with_capacity(prefix.len() + lines.0.len() + self.added_bytes());
        bytes.extend_from_slice(prefix);
        for (name, value) in lines.iter() {
            if !self.remove.iter().any(|removed| removed.eq_ignore_ascii_case(name)) {
                write_line(&mut bytes, name, value);
            }
        }
        for (name, value) in &self.add {
            write_line(&mut bytes, &name.to_ascii_lowercase(), value.as_bytes());
        }
        bytes.into()
    }

    fn added_bytes(&self) -> usize {
        self.add.iter().map(|(name, value)| name.len() + value.len() + ": \n".len()).sum()
    }
}

fn write_line(bytes: &mut Vec<u8>, name: &str, value: &[u8]) {
    bytes.extend_from_slice(name.as_bytes());
    bytes.extend_from_slice(b": ");
    bytes.extend_from_slice(value);
    bytes.push(b'\n');
}

/// What a name would have to be, if it is none of which a policy decides.
fn right_of(name: &str) -> Option<&'static str> {
    let lower = name.to_ascii_lowercase();
    if HeaderName::from_bytes(name.as_bytes()).is_err() {
        return Some("the name of a header");
    }
    if is_hop_by_hop(&lower) || lower == "content-length" || lower == "host" {
        return Some("a header that is not of the connection, the length or the host");
    }
    lower.starts_with(MESH_PREFIX).then_some("a header that is not of the mesh (x-cellmesh-*)")
}

#[cfg(test)]
mod tests {
    use cellmesh_shm::head::HeadLimits;
    use proptest::prelude::*;

    use super::*;

    fn rules(add: &[(&str, &str)], remove: &[&str]) -> HeaderRules {
        HeaderRules {
            add: add.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            remove: remove.iter().map(|name| (*name).to_owned()).collect(),
        }
    }

    fn wrong(rules: &HeaderRules) -> Vec<String> {
        let mut problems = Problems::default();
        rules.check(["add", "remove"], &mut problems);
        problems.found.iter().map(ToString::to_string).collect()
    }

    /// Every line of a removed name goes, whatever its case; what is added stands behind; the rest is as it was.
    #[test]
    fn lines_are_removed_then_added() {
        let rules = rules(&[("X-Team", "a")], &["X-Debug", "x-team"]);
        let lines = HeaderLines(b"x-debug: 1\nx-team: b\naccept: */*\nx-debug: 2\n");
        assert_eq!(wrong(&rules), [""; 0]);
        assert_eq!(&rules.apply(b"GET/", lines)[..], b"GET/accept: */*\nx-team: a\n");
    }

    /// What is not for a policy to decide is refused, whichever way it is written.
    #[test]
    fn reserved_names_are_refused() {
        for name in ["Connection", "transfer-encoding", "te", "proxy-authorization", "content-length", "HOST"]
        {
            assert_eq!(wrong(&rules(&[(name, "x")], &[])).len(), 1, "{name}");
            assert_eq!(wrong(&rules(&[], &[name])).len(), 1, "{name}");
        }
        for name in ["x-cellmesh-hops", "X-CellMesh-Service", "", "a b", "a:", "\u{e4}"] {
            assert_eq!(wrong(&rules(&[], &[name])).len(), 1, "{name}");
        }
        for value in ["a\nb: c", "a\r", " a", "a ", "\0"] {
            assert_eq!(wrong(&rules(&[("x", value)], &[])).len(), 1, "{value:?}");
        }
        let many: Vec<String> = (0..17).map(|n| format!("x-{n}")).collect();
        let many: Vec<(&str, &str)> = many.iter().map(|name| (name.as_str(), "")).collect();
        assert_eq!(wrong(&rules(&many, &[])), ["add = 17 lines: must be at most 16 lines"]);
        assert_eq!(wrong(&rules(&many[..16], &[])), [""; 0]);
    }

    /// All that is wrong is told at once, each with its key.
    #[test]
    fn all_mistakes_are_told() {
        let rules = rules(&[("a b", "x"), ("host", "y"), ("ok", "a\nb")], &["te"]);
        assert_eq!(
            wrong(&rules),
            [
                "add = \"a b\": must be the name of a header",
                "add = \"host\": must be a header that is not of the connection, the length or the host",
                "remove = \"te\": must be a header that is not of the connection, the length or the host",
                "add = \"ok\" = \"a\\nb\": must be a header's value: printable ASCII without space at its ends",
            ]
        );
    }

    proptest! {
        /// Rules that config lets through never make a bad head of a good one, and nothing of what they remove is left.
        #[test]
        fn good_heads_stay_good(
            add in prop::collection::btree_map("[!-~]{1,6}", "\\PC{0,6}", 0..4),
            remove in prop::collection::vec("[a-cA-C]{1,2}", 0..4),
            lines in prop::collection::vec(("[a-c]{1,2}", "[ -~]{0,6}"), 0..8),
        ) {
            let rules = HeaderRules { add, remove };
            prop_assume!(wrong(&rules).is_empty());
            let head: String = lines.iter().map(|(name, value)| format!("{name}: {value}\n")).collect();
            let applied = rules.apply(b"", HeaderLines(head.as_bytes()));
            let applied = HeaderLines(&applied);
            prop_assert_eq!(applied.check(HeadLimits::default()), Ok(()));
            let is_removed = |name: &str| rules.remove.iter().any(|removed| removed.eq_ignore_ascii_case(name));
            let kept = lines.iter().filter(|(name, _)| !is_removed(name)).count();
            prop_assert_eq!(applied.iter().count(), kept + rules.add.len());
        }
    }
}
