//! Paths of requests, compared with those of rules so that no way of writing one leads around a rule.
//!
//! - A rule may be in danger of a path that only some readers take as its own: escapes decoded, once or more often, `\` for
//!   `/`, parameters behind `;`, empty segments and dots left out. Such a path is one of the rule's ([`Path::may_be_in`]).
//! - Where `..` leads depends on what a reader has left out before: a path with one may be any.
//! - What is public is so only for a path that all readers take alike ([`Path::is_in`]).

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

/// How often escapes are decoded: once by the service, and by proxies and frameworks before it. A path with more layers may be
/// any.
const LAYERS_MOST: usize = 3;

/// A path, as it is written and as it may be read.
pub(super) struct Path<'a> {
    written: Cow<'a, str>,
    /// Each layer of escapes less; empty if it may be any path.
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
    // An escaped `?` or `#` ends the path for a reader that decodes first.
    below.is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '?', '#']))
}

/// All that readers may take a path for, each once, the first as it is written; none if it may be any.
fn readings(path: &str) -> Vec<String> {
    let mut readings = Vec::new();
    let layers_most = if path.contains('%') { LAYERS_MOST } else { 0 };
    for layers in 0..=layers_most {
        for (splits_first, knows_backslash) in [(true, true), (true, false), (false, true), (false, false)] {
            let reading = Reading { layers, splits_first, knows_backslash };
            let Some(read) = reading.of(path) else { return Vec::new() };
            if !readings.contains(&read) {
                readings.push(read);
            }
        }
    }
    let all = decoded(path, LAYERS_MOST);
    if decoded(&all, 1) == all { readings } else { Vec::new() }
}

fn decoded(text: &str, layers: usize) -> String {
    let decode = |text: String, _| percent_decode_str(&text).decode_utf8_lossy().into_owned();
    (0..layers).fold(text.to_owned(), decode)
}

/// How somebody reads a path who leaves out whatever one may leave out: a reader who leaves out less finds no path of a rule
/// that this one does not find.
#[derive(Debug, Clone, Copy)]
struct Reading {
    /// Layers of escapes that are decoded.
    layers: usize,
    /// Whether that is done to each segment, or to the path before it is split.
    splits_first: bool,
    /// Whether `\` is `/`.
    knows_backslash: bool,
}

impl Reading {
    /// Without parameters, empty segments and single dots; none if there are double ones.
    fn of(self, path: &str) -> Option<String> {
        let whole = if self.splits_first { path.to_owned() } else { decoded(path, self.layers) };
        let mut read = String::new();
        for segment in whole.split(|letter| letter == '/' || (self.knows_backslash && letter == '\\')) {
            let segment = if self.splits_first { decoded(segment, self.layers) } else { segment.to_owned() };
            match segment.split(';').next().unwrap_or_default() {
                "" | "." => {}
                ".." => return None,
                bare => {
                    read.push('/');
                    read.push_str(bare);
                }
            }
        }
        Some(if read.is_empty() { "/".to_owned() } else { read })
    }
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

    /// One way to read a path.
    #[derive(Debug, Clone, Copy)]
    struct Reader {
        layers: usize,
        splits_first: bool,
        knows_backslash: bool,
        drops_parameters: bool,
        skips_empty: bool,
        resolves_dots: bool,
    }

    fn reader() -> impl Strategy<Value = Reader> {
        let flag = any::<bool>;
        (0..=LAYERS_MOST, flag(), flag(), flag(), flag(), flag()).prop_map(
            |(layers, splits_first, knows_backslash, drops_parameters, skips_empty, resolves_dots)| Reader {
                layers,
                splits_first,
                knows_backslash,
                drops_parameters,
                skips_empty,
                resolves_dots,
            },
        )
    }

    impl Reader {
        /// The segments that it sees.
        fn read(self, path: &str) -> Vec<String> {
            let whole = if self.splits_first { path.to_owned() } else { decoded(path, self.layers) };
            let path = whole.split(['?', '#']).next().unwrap_or_default();
            let path = path.strip_prefix('/').unwrap_or(path);
            let mut seen: Vec<String> = Vec::new();
            for segment in path.split(|letter| letter == '/' || (self.knows_backslash && letter == '\\')) {
                let segment =
                    if self.splits_first { decoded(segment, self.layers) } else { segment.to_owned() };
                let bare = if self.drops_parameters {
                    segment.split(';').next().unwrap_or_default()
                } else {
                    &segment
                };
                match bare {
                    "" if self.skips_empty => {}
                    "." if self.resolves_dots => {}
                    ".." if self.resolves_dots => drop(seen.pop()),
                    bare => seen.push(bare.to_owned()),
                }
            }
            seen
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]

        /// Whoever reads a path as one of a rule's, in whichever way: the rule is asked.
        #[test]
        fn no_reader_gets_past_a_rule(
            reader in reader(),
            target in "([/\\\\]|%2f|%5c|%252f){1,2}(admin|%61dmin|a|\\.|\\.\\.|%2e%2e|%252e|;x|;|%3f|%23|b%2f\\.\\.|;x%2fy|){1,2}([/\\\\](admin|x|\\.\\.|\\.|;a|)){0,4}",
        ) {
            let target = format!("/{target}");
            for target in [&target[..], &target[1..]] {
                let seen = reader.read(target);
                if seen.first().is_some_and(|first| first == "admin") {
                    prop_assert!(path(target).may_be_in("/admin"), "{} is {:?} to {:?}", target, seen, reader);
                }
                if path(target).is_in("/admin") {
                    let is_one = |seen: &[String]| seen.first().is_some_and(|first| first == "admin");
                    prop_assert!(is_one(&seen), "{} is {:?} to {:?}", target, seen, reader);
                }
            }
        }

        /// What is public for sure is in danger of being it, whatever else it may be.
        #[test]
        fn sure_is_possible(target in "(/(open|[a-c.]{0,2}|%6f|%2f|;x)){1,5}") {
            let path = path(&target);
            prop_assert!(!path.is_in("/open") || path.may_be_in("/open"));
        }
    }
}
