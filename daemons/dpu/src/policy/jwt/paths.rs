//! Paths of requests, compared with those of rules so that no way of writing one leads around a rule.
//!
//! - A rule may be in danger of a path that only some readers take as its own: escapes decoded, once or more often, `\` for
//!   `/`, parameters behind `;`, empty segments and dots resolved. Such a path is one of the rule's ([`Path::may_be_in`]).
//! - What is public is so only for a path that all readers take alike ([`Path::is_in`]).

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

/// How often escapes are decoded: once by the service, and by proxies and frameworks before it. A path with more layers may be
/// any.
const LAYERS_MOST: usize = 3;

/// A path, as it is written and as it may be read.
pub(super) struct Path<'a> {
    written: Cow<'a, str>,
    /// Each layer of escapes less; empty if there are too many.
    readings: Vec<String>,
}

impl<'a> Path<'a> {
    /// The path of a target, which may have a query.
    pub(super) fn of_target(target: &'a [u8]) -> Self {
        let end = target.iter().position(|byte| *byte == b'?').unwrap_or(target.len());
        let written = String::from_utf8_lossy(&target[..end]);
        let readings = readings(&written);
        Self { written, readings }
    }

    /// Whether some reader may take it for this path or one below.
    pub(super) fn may_be_in(&self, rule: &str) -> bool {
        let has_no_reading = self.readings.is_empty();
        has_no_reading
            || covers(rule, &self.written)
            || self.readings.iter().any(|reading| covers(rule, reading))
    }

    /// Whether every reader takes it for this path or one below.
    pub(super) fn is_in(&self, rule: &str) -> bool {
        let written = self.written.strip_suffix('/').filter(|path| !path.is_empty()).unwrap_or(&self.written);
        self.readings.len() == 1 && self.readings[0] == written && covers(rule, written)
    }
}

/// Whether a path of config is written as all readers take it.
pub(super) fn is_plain(path: &str) -> bool {
    readings(path) == [path]
}

fn covers(rule: &str, path: &str) -> bool {
    let below = path.strip_prefix(rule.trim_end_matches('/'));
    below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn readings(path: &str) -> Vec<String> {
    let mut readings = vec![resolved(path)];
    let mut decoded = path.to_owned();
    for _ in 0..LAYERS_MOST {
        let next = percent_decode_str(&decoded).decode_utf8_lossy().into_owned();
        if next == decoded {
            return readings;
        }
        readings.push(resolved(&next));
        decoded = next;
    }
    let is_whole = percent_decode_str(&decoded).decode_utf8_lossy() == decoded;
    if is_whole { readings } else { Vec::new() }
}

/// Without parameters, empty segments and dots.
fn resolved(path: &str) -> String {
    let mut segments: Vec<&str> = Vec::new();
    for segment in path.split(['/', '\\']) {
        match segment.split(';').next().unwrap_or_default() {
            "" | "." => {}
            ".." => drop(segments.pop()),
            segment => segments.push(segment),
        }
    }
    format!("/{}", segments.join("/"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn path(target: &str) -> Path<'_> {
        Path::of_target(target.as_bytes())
    }

    /// Whatever a reader may take for `/admin` is in danger, and nothing else.
    #[test]
    fn rules_cover_whatever_may_be_theirs() {
        for target in [
            "/admin",
            "/admin/",
            "/admin/x",
            "/admin?x",
            "//admin",
            "/./admin",
            "/x/../admin",
            "/%61dmin",
            "/admin;a=1",
            "/admin/../public",
            "/%2e%2e/admin",
            "/x%2f..%2fadmin",
            "\\admin",
            "/x/..;/admin",
            "/%2561dmin",
            "/%25252561dmin",
            "/x%5c..%5cadmin",
            "/%ff/../admin",
        ] {
            assert!(path(target).may_be_in("/admin"), "{target}");
        }
        for target in ["/", "/administrator", "/x/admin", "/?/admin", "/Admin", "*", "", "/%ff", "/a%20b"] {
            assert!(!path(target).may_be_in("/admin"), "{target}");
        }
        assert!(path("/anything").may_be_in("/"));
    }

    /// Public is what all readers take for it.
    #[test]
    fn public_is_what_everybody_reads_so() {
        for target in ["/open", "/open/", "/open/x", "/open?q=/../x"] {
            assert!(path(target).is_in("/open"), "{target}");
        }
        for target in [
            "/opened",
            "/open/../x",
            "/open/%2e%2e/x",
            "/open//x",
            "/open/..;/x",
            "/open;a",
            "/%6fpen",
            "/open\\x",
        ] {
            assert!(!path(target).is_in("/open"), "{target}");
        }
    }

    /// Config takes paths that have one reading.
    #[test]
    fn paths_of_config_are_plain() {
        for good in ["/", "/a", "/a/b.c", "/a-b/_"] {
            assert!(is_plain(good), "{good}");
        }
        for bad in ["", "a", "/a/", "//a", "/a/../b", "/%61", "/a;b", "/a\\b"] {
            assert!(!is_plain(bad), "{bad}");
        }
    }

    proptest! {
        /// What is public for sure is in danger of being it, whatever else it may be.
        #[test]
        fn sure_is_possible(target in "(/(open|[a-c.]{0,2}|%6f|%2f|;x)){1,5}") {
            let path = path(&target);
            prop_assert!(!path.is_in("/open") || path.may_be_in("/open"));
            for reading in &path.readings {
                prop_assert!(reading.starts_with('/') && !reading.contains("//"), "{reading}");
            }
        }
    }
}
