//! Rust without its comments and texts: what is left is code.

/// The source with every character of a comment, a string or a character literal replaced by a space.
/// Line ends stay, so that line numbers do.
pub(super) fn code_only(source: &str) -> String {
    let mut rest = source;
    let mut code = String::with_capacity(source.len());
    while let Some(first) = rest.chars().next() {
        let blank = blank_len(&code, rest);
        let len = if blank == 0 { first.len_utf8() } else { blank };
        let (taken, after) = rest.split_at(len);
        if blank == 0 {
            code.push_str(taken);
        } else {
            code.extend(taken.chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
        }
        rest = after;
    }
    code
}

/// How many bytes at the start of `rest` are no code; `before` is the code in front of it.
fn blank_len(before: &str, rest: &str) -> usize {
    if rest.starts_with("//") {
        return rest.find('\n').unwrap_or(rest.len());
    }
    if rest.starts_with("/*") {
        return block_comment_len(rest);
    }
    if let Some(text) = rest.strip_prefix('"') {
        return 1 + text_len(text, '"');
    }
    if rest.starts_with('r') && !ends_in_name(before) {
        return raw_string_len(rest);
    }
    if rest.starts_with('\'') {
        return char_literal_len(rest);
    }
    0
}

/// Block comments nest. One that is not closed reaches to the end.
fn block_comment_len(rest: &str) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while at < rest.len() {
        let here = &rest.as_bytes()[at..];
        if here.starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if here.starts_with(b"*/") {
            depth -= 1;
            at += 2;
        } else {
            at += 1;
        }
        if depth == 0 {
            return at;
        }
    }
    rest.len()
}

/// Up to and with the quote that ends a text; `\` hides what follows it.
fn text_len(text: &str, quote: char) -> usize {
    let mut hidden = false;
    for (at, c) in text.char_indices() {
        match c {
            _ if hidden => hidden = false,
            '\\' => hidden = true,
            c if c == quote => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// `r"..."`, `r#"..."#` and so on; 0 for a raw identifier.
fn raw_string_len(rest: &str) -> usize {
    let hashes = rest[1..].chars().take_while(|&c| c == '#').count();
    let open = 1 + hashes;
    if !rest[open..].starts_with('"') {
        return 0;
    }
    let end = format!("\"{}", "#".repeat(hashes));
    rest[open + 1..].find(&end).map_or(rest.len(), |at| open + 1 + at + end.len())
}

/// `'x'` and `'\n'`; 0 for a lifetime.
fn char_literal_len(rest: &str) -> usize {
    let mut chars = rest[1..].chars();
    match (chars.next(), chars.next()) {
        (Some('\\'), _) => 1 + text_len(&rest[1..], '\''),
        (Some(c), Some('\'')) => 1 + c.len_utf8() + 1,
        _ => 0,
    }
}

/// Whether an `r` here would belong to a longer name; `br` is the start of a text.
fn ends_in_name(before: &str) -> bool {
    let name_len = before.bytes().rev().take_while(|&b| b == b'_' || b.is_ascii_alphanumeric()).count();
    !matches!(&before[before.len() - name_len..], "" | "b" | "c")
}

#[cfg(test)]
mod tests {
    use super::code_only;

    /// Each kind of text and comment is blanked; what only looks like one is not.
    #[test]
    fn comments_and_texts_are_blanked() {
        for (source, expected) in [
            ("a // b\nc", "a     \nc"),
            ("a /* b /* c */ d */ e", "a                   e"),
            (r#"f("x\"y", 1)"#, "f(      , 1)"),
            (r##"f(r#"x"y"#, br"z\")"##, "f(        , b     )"),
            (r"['\'', 'x', '\u{1}'] &'a b", "[    ,    ,        ] &'a b"),
            ("r#type for_r\"x\"", "r#type for_r   "),
        ] {
            assert_eq!(code_only(source), expected, "{source}");
        }
    }

    /// Line numbers survive.
    #[test]
    fn lines_stay_where_they_are() {
        let code = code_only("/*\n\n*/ a \"\n\" b");
        assert_eq!(code.lines().count(), 4);
        assert_eq!(code.lines().nth(3).unwrap().trim(), "b");
    }

    /// Broken source ends; it does not panic.
    #[test]
    fn unclosed_texts_reach_the_end() {
        for source in ["\"x", "/* x", "r#\"x", "'", "r", "b'"] {
            assert_eq!(code_only(source).len(), source.len(), "{source}");
        }
    }
}
