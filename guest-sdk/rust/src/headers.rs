//! Header lines: `name: value\n`, names in lower case.

use bytes::Bytes;

/// The header lines that came with a request or a step result.
#[derive(Debug, Clone, Copy)]
pub struct HeaderLines<'a>(&'a [u8]);

impl<'a> HeaderLines<'a> {
    pub(crate) fn new(lines: &'a [u8]) -> Self {
        Self(lines)
    }

    /// Name and value of each line, in the order they came. Values are not always UTF-8.
    pub fn iter(self) -> impl Iterator<Item = (&'a str, &'a [u8])> {
        self.0.split(|byte| *byte == b'\n').filter_map(split_line)
    }

    /// The first value of `name`, which is compared without regard to case.
    pub fn get(self, name: &str) -> Option<&'a [u8]> {
        self.iter().find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// As [`get`](Self::get), for values that are UTF-8.
    pub fn text(self, name: &str) -> Option<&'a str> {
        self.get(name).and_then(|value| std::str::from_utf8(value).ok())
    }
}

fn split_line(line: &[u8]) -> Option<(&str, &[u8])> {
    let colon = line.iter().position(|byte| *byte == b':')?;
    let name = std::str::from_utf8(&line[..colon]).ok()?;
    let value = &line[colon + 1..];
    Some((name, value.strip_prefix(b" ").unwrap_or(value)))
}

/// The header lines of something that a cell makes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Headers {
    lines: Bytes,
    /// The first header that is none: the whole is refused when it is sent, instead of half of it sent.
    problem: Option<String>,
}

impl Headers {
    /// Lines that are known to be right.
    pub(crate) const fn fixed(lines: &'static [u8]) -> Self {
        Self { lines: Bytes::from_static(lines), problem: None }
    }

    /// Lines that the host gave: it has checked them.
    pub(crate) fn received(lines: Bytes) -> Self {
        Self { lines, problem: None }
    }

    pub(crate) fn as_lines(&self) -> HeaderLines<'_> {
        HeaderLines(&self.lines)
    }

    /// The lines, or what is wrong with the first that is no header.
    pub(crate) fn checked(&self) -> Result<&[u8], &str> {
        self.problem.as_deref().map_or(Ok(&self.lines), Err)
    }

    /// Gives `name` the one value `value`.
    pub(crate) fn set(&mut self, name: &str, value: &[u8]) {
        self.remove(name);
        self.append(name, value);
    }

    /// Adds a line, whether or not `name` has one.
    pub(crate) fn append(&mut self, name: &str, value: &[u8]) {
        if let Err(problem) = check(name, value) {
            self.problem.get_or_insert(problem);
            return;
        }
        let mut lines = Vec::from(std::mem::take(&mut self.lines));
        lines.extend(name.bytes().map(|byte| byte.to_ascii_lowercase()));
        lines.extend_from_slice(b": ");
        lines.extend_from_slice(value.trim_ascii());
        lines.push(b'\n');
        self.lines = lines.into();
    }

    fn remove(&mut self, name: &str) {
        if self.as_lines().get(name).is_none() {
            return;
        }
        let others = self
            .lines
            .split_inclusive(|byte| *byte == b'\n')
            .filter(|line| split_line(line).is_none_or(|(found, _)| !found.eq_ignore_ascii_case(name)));
        self.lines = others.flatten().copied().collect();
    }
}

/// What HTTP calls a field name and a field value.
fn check(name: &str, value: &[u8]) -> Result<(), String> {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if name.is_empty() || !name.bytes().all(is_token) {
        return Err(format!("header {name:?}: a name has only letters, digits and !#$%&'*+-.^_`|~"));
    }
    if value.iter().any(|byte| b"\r\n\0".contains(byte)) {
        return Err(format!("header {name:?}: a value has no line breaks and no NUL"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names are found in any case; the first of several values wins; nothing is cut off values.
    #[test]
    fn values_are_found_by_name() {
        let lines = HeaderLines::new(b"host: s1\naccept: a\naccept: b: c\nempty: \n");
        assert_eq!(lines.get("Accept"), Some(&b"a"[..]));
        assert_eq!(
            lines.iter().map(|(_, value)| value).collect::<Vec<_>>(),
            [&b"s1"[..], b"a", b"b: c", b""]
        );
        assert_eq!(lines.get("cookie"), None);
    }

    /// A line break in a value would be a header of its own.
    #[test]
    fn line_breaks_are_refused() {
        for (name, value) in
            [("x", "a\nset-cookie: b"), ("x", "a\r"), ("x\n", "a"), ("", "a"), ("x y", "a"), ("x", "\0")]
        {
            let mut headers = Headers::default();
            headers.append(name, value.as_bytes());
            assert!(headers.checked().is_err(), "{name:?}: {value:?}");
        }
    }

    /// `set` replaces all lines of its name, `append` adds one.
    #[test]
    fn set_replaces_and_append_adds() {
        let mut headers = Headers::fixed(b"content-type: text/plain\n");
        headers.append("Vary", b"a");
        headers.append("vary", b"b");
        headers.set("Content-Type", b"text/html");
        assert_eq!(headers.checked(), Ok(&b"vary: a\nvary: b\ncontent-type: text/html\n"[..]));
        headers.set("vary", b"c");
        assert_eq!(headers.checked(), Ok(&b"content-type: text/html\nvary: c\n"[..]));
    }
}
