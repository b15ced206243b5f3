//! Reads the JSON of a work model, and notes keys that an object has twice: a map would keep the last, and say nothing.

use std::cell::RefCell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// The services and their entries, in the order of the file, with those that are there twice.
pub(super) type Entries = Vec<(String, Value)>;

/// Reads a file: its entries, and the paths of keys within them that are there twice.
///
/// # Errors
/// What is no JSON, or has no object at the top.
pub(super) fn read(text: &str) -> Result<(Entries, Vec<String>), serde_json::Error> {
    let twice = RefCell::new(Vec::new());
    let mut reader = serde_json::Deserializer::from_str(text);
    let entries = reader.deserialize_map(TopLevel { twice: &twice })?;
    reader.end()?;
    Ok((entries, twice.into_inner()))
}

struct TopLevel<'a> {
    twice: &'a RefCell<Vec<String>>,
}

impl<'de> Visitor<'de> for TopLevel<'_> {
    type Value = Entries;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON object with a key for each service")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Entries, M::Error> {
        let mut entries = Vec::new();
        while let Some(name) = map.next_key::<String>()? {
            let entry = map.next_value_seed(Noting { at: &name, twice: self.twice })?;
            entries.push((name, entry));
        }
        Ok(entries)
    }
}

/// Reads the value at a path.
#[derive(Clone, Copy)]
struct Noting<'a> {
    at: &'a str,
    twice: &'a RefCell<Vec<String>>,
}

impl<'de> DeserializeSeed<'de> for Noting<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Value, D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Noting<'_> {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("JSON")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<S: SeqAccess<'de>>(self, mut seq: S) -> Result<Value, S::Error> {
        let mut items = Vec::new();
        loop {
            let at = format!("{}[{}]", self.at, items.len());
            match seq.next_element_seed(Noting { at: &at, ..self })? {
                Some(item) => items.push(item),
                None => return Ok(items.into()),
            }
        }
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Value, M::Error> {
        let mut table = Map::new();
        while let Some(key) = map.next_key::<String>()? {
            let at = format!("{}.{key}", self.at);
            let value = map.next_value_seed(Noting { at: &at, ..self })?;
            if table.insert(key, value).is_some() {
                self.twice.borrow_mut().push(at);
            }
        }
        Ok(table.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is read is what `serde_json` reads, at the top in the order of the file.
    #[test]
    fn values_are_what_they_are() {
        let entry = r#"{"a": [1, -2, 0.5, null, true, "x\u00e9", {"b": {}}], "c": 18446744073709551615}"#;
        let (entries, twice) = read(&format!("{{\"s1\": {entry}, \"s0\": []}}")).expect("JSON");
        assert_eq!(entries[0], ("s1".into(), serde_json::from_str(entry).expect("JSON")));
        assert_eq!((&entries[1], twice), (&("s0".into(), Value::Array(Vec::new())), Vec::<String>::new()));
    }

    /// Keys that are there twice are named with their paths, at any depth; what is behind the object is no JSON.
    #[test]
    fn keys_that_are_there_twice_are_named() {
        let (entries, twice) = read(r#"{"s0": {"a": [{"b": 1, "b": 2}], "a": 3}, "s0": {}}"#).expect("JSON");
        assert_eq!((entries.len(), twice), (2, vec!["s0.a[0].b".to_owned(), "s0.a".to_owned()]));
        assert!(read("{} x").is_err() && read("[]").expect_err("a list").is_data());
    }
}
