//! Names of cells in registries: `oci://HOST[:PORT]/REPOSITORY@sha256:DIGITS`. Pure.
//!
//! - The digest is the name: what a tag leads to can change between two starts, so a tag alone is refused. One before
//!   the digest is for people and says nothing here.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use super::digest::Digest;

/// Longest repository. Source: the distribution specification's advice for host and repository together.
const REPOSITORY_CHARACTERS_MAX: usize = 255;

/// A component in a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// Host and, if it is named, port.
    pub(super) registry: String,
    pub(super) repository: String,
    /// Of the manifest.
    pub(super) digest: Digest,
}

/// What is wrong with a reference, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{wrong}; {right}")]
pub struct ReferenceError {
    /// Which part, and what is wrong with it.
    pub wrong: String,
    /// What would be right.
    pub right: String,
}

impl Reference {
    /// How they all begin.
    pub const SCHEME: &str = "oci://";
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}/{}@{}", Self::SCHEME, self.registry, self.repository, self.digest)
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let rest = text.strip_prefix(Self::SCHEME).unwrap_or(text);
        let (registry, path) = rest.split_once('/').unwrap_or((rest, ""));
        check_registry(registry)?;
        let (named, digest) = match path.split_once('@') {
            Some((named, digest)) => (named, Some(digest)),
            None => (path, None),
        };
        let (repository, tag) = match named.split_once(':') {
            Some((repository, tag)) => (repository, Some(tag)),
            None => (named, None),
        };
        check_repository(repository)?;
        let Some(digest) = digest else { return Err(no_digest(registry, repository, tag)) };
        let digest = digest.parse().map_err(|why: String| {
            wrong(format!("the digest {digest:?} {why}"), "write sha256: and 64 hexadecimal digits")
        })?;
        Ok(Self { registry: registry.to_owned(), repository: repository.to_owned(), digest })
    }
}

fn wrong(wrong: impl Into<String>, right: impl Into<String>) -> ReferenceError {
    ReferenceError { wrong: wrong.into(), right: right.into() }
}

/// A tag is where a digest is found, once, by whoever writes the file.
fn no_digest(registry: &str, repository: &str, tag: Option<&str>) -> ReferenceError {
    let found = match tag {
        Some(tag) => format!("the tag {tag:?} can lead to another cell tomorrow"),
        None => "there is no digest".to_owned(),
    };
    let tag = tag.unwrap_or("TAG");
    let scheme = if is_loopback(split_port(registry).0) { "http" } else { "https" };
    let right = format!(
        "add @sha256:...; docker-content-digest in the answer to `curl -I -H 'accept: {}' \
         {scheme}://{registry}/v2/{repository}/manifests/{tag}` is it",
        super::manifest::MANIFEST
    );
    wrong(found, right)
}

fn check_registry(registry: &str) -> Result<(), ReferenceError> {
    const RIGHT: &str = "write oci://HOST[:PORT]/REPOSITORY@sha256:DIGITS";
    let (host, port) = split_port(registry);
    if host.is_empty() {
        return Err(wrong("there is no host", RIGHT));
    }
    if !is_host(host) {
        return Err(wrong(format!("the host {host:?} is none"), RIGHT));
    }
    match port {
        Some(port) if port.parse::<u16>().ok().is_none_or(|port| port == 0) => {
            Err(wrong(format!("the port {port:?} is none"), "write a port from 1 to 65535"))
        }
        _ => Ok(()),
    }
}

/// Host and port of a registry; an address of IPv6 is in brackets.
pub(super) fn split_port(registry: &str) -> (&str, Option<&str>) {
    match registry.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (registry, None),
    }
}

/// Whether a host is this machine.
pub(super) fn is_loopback(host: &str) -> bool {
    let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
    address.map_or_else(|_| host.eq_ignore_ascii_case("localhost"), |address| address.is_loopback())
}

fn is_host(host: &str) -> bool {
    if let Some(address) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return address.parse::<Ipv6Addr>().is_ok();
    }
    let is_label = |label: &str| {
        let inner = |letter: char| letter.is_ascii_alphanumeric() || letter == '-';
        !label.is_empty() && label.chars().all(inner) && !label.starts_with('-') && !label.ends_with('-')
    };
    host.split('.').all(is_label)
}

fn check_repository(repository: &str) -> Result<(), ReferenceError> {
    const RIGHT: &str =
        "write parts of lower-case letters and digits, with . _ or - between them, and / between parts";
    if repository.is_empty() {
        return Err(wrong("there is no repository", "write it between the host and @sha256:"));
    }
    if repository.len() > REPOSITORY_CHARACTERS_MAX {
        let found = format!("the repository has {} characters", repository.len());
        return Err(wrong(found, format!("write at most {REPOSITORY_CHARACTERS_MAX}")));
    }
    match repository.split('/').find(|part| !is_repository_part(part)) {
        Some(part) => {
            Err(wrong(format!("{part:?} in the repository {repository:?} is no part of one"), RIGHT))
        }
        None => Ok(()),
    }
}

/// Source: the distribution specification: `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`.
fn is_repository_part(part: &str) -> bool {
    let is_word = |letter: char| matches!(letter, 'a'..='z' | '0'..='9');
    let is_separator = |between: &str| {
        matches!(between, "" | "." | "_" | "__") || between.chars().all(|letter| letter == '-')
    };
    part.starts_with(is_word) && part.ends_with(is_word) && part.split(is_word).all(is_separator)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn error(text: &str) -> String {
        text.parse::<Reference>().expect_err(text).to_string()
    }

    /// What is right is kept as it is written, but for a tag, which a digest makes needless.
    #[test]
    fn references_are_taken_apart() {
        for place in [
            "registry.example/shop/front",
            "127.0.0.1:5000/a",
            "[::1]:5000/a/b",
            "[2001:db8::1]/a",
            "r/a.b_c__d---e/0",
        ] {
            let text = format!("oci://{place}@{DIGEST}");
            let reference: Reference = text.parse().expect(place);
            assert_eq!(reference.to_string(), text);
        }
        let tagged: Reference =
            format!("oci://r:5000/a/b:1.0@{DIGEST}").parse().expect("a tag is passed over");
        assert_eq!(tagged.to_string(), format!("oci://r:5000/a/b@{DIGEST}"));
        assert_eq!((tagged.registry.as_str(), tagged.repository.as_str()), ("r:5000", "a/b"));
    }

    /// A tag is no name for what is run; the error says where the digest is found.
    #[test]
    fn tag_alone_is_refused() {
        let said = error("oci://registry.example/shop/front:1.0");
        assert!(
            said.starts_with("the tag \"1.0\" can lead to another cell tomorrow; add @sha256:"),
            "{said}"
        );
        assert!(said.contains("https://registry.example/v2/shop/front/manifests/1.0"), "{said}");
        let said = error("oci://registry.example/shop/front");
        assert!(said.starts_with("there is no digest; add @sha256:"), "{said}");
    }

    /// The part that is wrong is named.
    #[test]
    fn wrong_part_is_named() {
        for (text, part) in [
            ("oci://", "there is no host"),
            ("oci:///a@DIGEST", "there is no host"),
            ("oci://a_b/c@DIGEST", "the host \"a_b\" is none"),
            ("oci://[::g]/c@DIGEST", "the host \"[::g]\" is none"),
            ("oci://user@host/c@DIGEST", "the host \"user@host\" is none"),
            ("oci://host:0/c@DIGEST", "the port \"0\" is none"),
            ("oci://host:70000/c@DIGEST", "the port \"70000\" is none"),
            ("oci://host:/c@DIGEST", "the port \"\" is none"),
            ("oci://host", "there is no repository"),
            ("oci://host/@DIGEST", "there is no repository"),
            ("oci://host/Shop@DIGEST", "\"Shop\" in the repository \"Shop\" is no part"),
            ("oci://host/a//b@DIGEST", "\"\" in the repository \"a//b\" is no part"),
            ("oci://host/a/../b@DIGEST", "\"..\" in the repository \"a/../b\" is no part"),
            ("oci://host/a?x@DIGEST", "\"a?x\" in the repository"),
            ("oci://host/a@sha256:12", "the digest \"sha256:12\" has 2 digits of 64"),
            ("oci://host/a@latest", "the digest \"latest\" has no algorithm"),
            ("oci://host/a@md5:12", "the digest \"md5:12\" has the algorithm \"md5\""),
        ] {
            let said = error(&text.replace("DIGEST", DIGEST));
            assert!(said.contains(part), "no {part:?} in {said:?}");
        }
        assert!(error(&format!("oci://host/{}@{DIGEST}", "a".repeat(256))).contains("has 256 characters"));
    }
}
