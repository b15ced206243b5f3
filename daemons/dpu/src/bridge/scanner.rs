//! Where a JSON object ends, looking at each byte once.
//!
//! The bridge's clients send an object without delimiter. This follows nesting and strings only, to
//! find the last brace; whether what lies between is JSON is decided by the JSON reader, once,
//! on the whole object.

use memchr::memchr2;

/// Finds the end of one object, however its bytes arrive.
#[derive(Debug)]
pub(crate) struct Scanner {
    depth: u16,
    depth_max: u16,
    text: Text,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Text {
    Outside,
    Inside,
    /// After a backslash: the next byte means nothing.
    Escaped,
}

/// Why an object can have no end.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum ScanError {
    #[error("a request must be a JSON object: it must start with '{{', found {found:?}")]
    NotAnObject { found: char },
    #[error("nested deeper than {max} levels")]
    TooDeep { max: u16 },
}

impl Scanner {
    /// For one object; `bytes` given to [`Scanner::find_end`] start with it.
    pub(crate) fn new(depth_max: u16) -> Self {
        Self { depth: 0, depth_max, text: Text::Outside }
    }

    /// Looks at bytes that follow the ones already looked at. Returns how many of them belong to
    /// the object once it is complete.
    ///
    /// - cost: one branch per byte outside of texts, `memchr` inside of them.
    pub(crate) fn find_end(&mut self, bytes: &[u8]) -> Result<Option<usize>, ScanError> {
        let mut at = 0;
        while at < bytes.len() {
            at = match self.text {
                Text::Inside => self.skip_text(bytes, at),
                Text::Escaped => {
                    self.text = Text::Inside;
                    at + 1
                }
                Text::Outside => {
                    if self.on_structure(bytes[at])? {
                        return Ok(Some(at + 1));
                    }
                    at + 1
                }
            };
        }
        Ok(None)
    }

    fn skip_text(&mut self, bytes: &[u8], from: usize) -> usize {
        let Some(found) = memchr2(b'"', b'\\', &bytes[from..]) else { return bytes.len() };
        self.text = if bytes[from + found] == b'"' { Text::Outside } else { Text::Escaped };
        from + found + 1
    }

    /// `true` when this byte closed the object.
    fn on_structure(&mut self, byte: u8) -> Result<bool, ScanError> {
        match byte {
            b'{' => self.open()?,
            _ if self.depth == 0 => return Err(ScanError::NotAnObject { found: char::from(byte) }),
            b'[' => self.open()?,
            b'"' => self.text = Text::Inside,
            // Which of the two closes what is the JSON reader's business.
            b'}' | b']' => self.depth -= 1,
            _ => {}
        }
        Ok(self.depth == 0)
    }

    fn open(&mut self) -> Result<(), ScanError> {
        if self.depth == self.depth_max {
            return Err(ScanError::TooDeep { max: self.depth_max });
        }
        self.depth += 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn end(text: &str) -> Result<Option<usize>, ScanError> {
        Scanner::new(4).find_end(text.as_bytes())
    }

    /// Braces and quotes inside texts do not count; what follows the object is left alone.
    #[test]
    fn object_ends_at_its_own_brace() {
        for (text, length) in [
            ("{}", 2),
            ("{}{}", 2),
            (r#"{"a":"}"}x"#, 9),
            (r#"{"a":"\"}"} "#, 11),
            (r#"{"a":"\\"}}"#, 10),
            (r#"{"a":[{},{"b":[]}]}"#, 19),
        ] {
            assert_eq!(end(text), Ok(Some(length)), "{text}");
        }
    }

    /// An object that has not ended is waited for.
    #[test]
    fn open_object_has_no_end() {
        for text in ["", "{", r#"{"a":"}"#, r#"{"a":"\"#, r#"{"a":{}"#] {
            assert_eq!(end(text), Ok(None), "{text}");
        }
    }

    /// Anything but an object, and one that nests too deep, is refused at the byte that shows it.
    #[test]
    fn hopeless_starts_are_refused() {
        for text in ["[1]", "x", "}", "\"{}\"", " {}"] {
            let found = text.chars().next().expect("not empty");
            assert_eq!(end(text), Err(ScanError::NotAnObject { found }), "{text}");
        }
        assert_eq!(end("{[{[]}]}"), Ok(Some(8)));
        assert_eq!(end("{[{[{"), Err(ScanError::TooDeep { max: 4 }));
    }

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            ".{0,12}".prop_map(Value::from)
        ];
        leaf.prop_recursive(5, 64, 6, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                proptest::collection::btree_map("[\\\\\"{}a-z]{0,6}", inner, 0..6)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        /// Of any object, followed by anything, cut anywhere, exactly the object is found.
        #[test]
        fn agrees_with_the_json_writer(value in values(), cuts in proptest::collection::vec(1..40usize, 1..40), tail in ".{0,8}") {
            let text = serde_json::json!({ "v": value }).to_string();
            let stream = format!("{text}{tail}");
            let (mut scanner, mut at, mut cuts) = (Scanner::new(120), 0, cuts.into_iter().cycle());
            let found = loop {
                let next = (at + cuts.next().expect("endless")).min(stream.len());
                match scanner.find_end(&stream.as_bytes()[at..next]).expect("an object") {
                    Some(length) => break at + length,
                    None => at = next,
                }
            };
            prop_assert_eq!(found, text.len());
        }
    }
}
