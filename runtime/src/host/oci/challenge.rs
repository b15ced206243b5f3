//! What a registry asks for in `www-authenticate`. Pure.
//!
//! Source: RFC 9110, 11.6.1; the distribution specification's token authentication.

use std::collections::BTreeMap;

/// How a registry wants to be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Challenge {
    /// With a token, which is had elsewhere.
    Bearer {
        /// Where.
        realm: String,
        /// What the token is for.
        service: Option<String>,
        /// What it has to allow.
        scope: Option<String>,
    },
    /// With a name and a password.
    Basic,
}

/// The best of what is offered: a token, else a password.
pub(super) fn best<'a>(headers: impl Iterator<Item = &'a str>) -> Option<Challenge> {
    let mut basic = None;
    for (scheme, mut parameters) in headers.flat_map(challenges) {
        let realm = parameters.remove("realm");
        match (scheme.as_str(), realm) {
            ("bearer", Some(realm)) => {
                let (service, scope) = (parameters.remove("service"), parameters.remove("scope"));
                return Some(Challenge::Bearer { realm, service, scope });
            }
            ("basic", _) => basic = Some(Challenge::Basic),
            _ => {}
        }
    }
    basic
}

/// Schemes in lower case, each with its parameters by name in lower case.
fn challenges(header: &str) -> Vec<(String, BTreeMap<String, String>)> {
    let mut found: Vec<(String, BTreeMap<String, String>)> = Vec::new();
    let mut rest = header;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let end = rest.find([' ', '\t', ',', '=']).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        if word.is_empty() {
            return found; // the end, or what is no challenge
        }
        let word = word.to_ascii_lowercase();
        let Some(value) = after.trim_start().strip_prefix('=') else {
            found.push((word, BTreeMap::new()));
            rest = after;
            continue;
        };
        let (value, after) = value_of(value.trim_start());
        if let Some((_, parameters)) = found.last_mut() {
            parameters.insert(word, value);
        }
        rest = after;
    }
}

/// A value, in quotes or not, and what comes behind it.
fn value_of(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([' ', '\t', ',']).unwrap_or(text.len());
        return (text[..end].to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut letters = quoted.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return (value, &quoted[at + 1..]),
            '\\' => value.extend(letters.next().map(|(_, escaped)| escaped)),
            _ => value.push(letter),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Option<Challenge> {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        Some(Challenge::Bearer { realm: realm.into(), service: owned(service), scope: owned(scope) })
    }

    /// As registries write it: commas inside quotes, several challenges in one line or in several.
    #[test]
    fn challenges_are_read() {
        let one = r#"Bearer realm="https://auth.example/token",service="r.example",scope="repository:a/b:pull,push""#;
        let expected =
            bearer("https://auth.example/token", Some("r.example"), Some("repository:a/b:pull,push"));
        assert_eq!(best([one].into_iter()), expected);
        let two = format!("Basic realm=\"x, y\", {one}");
        assert_eq!(best([two.as_str()].into_iter()), expected);
        assert_eq!(best(["Basic realm=\"x\"", one].into_iter()), expected);
        assert_eq!(best(["bearer REALM = token"].into_iter()), bearer("token", None, None));
        assert_eq!(best([r#"Bearer realm="a\"b\\c""#].into_iter()), bearer("a\"b\\c", None, None));
        assert_eq!(best(["basic"].into_iter()), Some(Challenge::Basic));
    }

    /// What is none of them, or has no end, is no challenge and no panic.
    #[test]
    fn what_is_no_challenge_is_none() {
        for text in
            ["", "=", "\"", "Digest realm=\"x\"", "Bearer", "Bearer realm", "Negotiate abc==", ",,", "é=ü"]
        {
            assert_eq!(best([text].into_iter()), None, "{text}");
        }
        assert_eq!(best([r#"Bearer realm="no end\"#].into_iter()), bearer("no end", None, None));
    }
}
