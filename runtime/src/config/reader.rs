//! Reads tables of a TOML file key by key and notes everything that is wrong, with line numbers.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use cellmesh_dpu::units::{ByteSize, TimeSpan};
use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::problems::{Problem, Problems};
use super::quantity::{Quantity, Resource};

/// The file and what is wrong with it so far.
pub(super) struct Source<'a> {
    path: &'a Path,
    text: &'a str,
    pub(super) problems: Problems,
}

/// A table, and which of its keys were asked for.
pub(super) struct Table<'t, 'i> {
    at: String,
    table: &'t DeTable<'i>,
    line: usize,
    known: Vec<&'static str>,
}

impl<'a> Source<'a> {
    pub(super) fn new(path: &'a Path, text: &'a str) -> Self {
        Self { path, text, problems: Problems::default() }
    }

    pub(super) fn line_of(&self, offset: usize) -> usize {
        self.text.as_bytes().iter().take(offset).filter(|byte| **byte == b'\n').count() + 1
    }

    pub(super) fn note(
        &mut self,
        line: Option<usize>,
        key: String,
        wrong: impl Into<String>,
        right: impl Into<String>,
    ) {
        let file = self.path.to_owned();
        self.problems.0.push(Problem { file, line, key, wrong: wrong.into(), right: right.into() });
    }
}

impl<'t, 'i> Table<'t, 'i> {
    /// The whole file.
    pub(super) fn root(table: &'t DeTable<'i>) -> Self {
        Self { at: String::new(), table, line: 1, known: Vec::new() }
    }

    /// Where the table begins.
    pub(super) fn line(&self) -> usize {
        self.line
    }

    /// The path of one of its keys.
    pub(super) fn path(&self, key: &str) -> String {
        if self.at.is_empty() { key.to_owned() } else { format!("{}.{key}", self.at) }
    }

    /// All entries, for a section that another crate reads.
    pub(super) fn entries(
        &self,
    ) -> impl Iterator<Item = (&'t Spanned<DeString<'i>>, &'t Spanned<DeValue<'i>>)> {
        self.table.iter()
    }

    /// The line of a key, if it is there; of `table.key`, that of the table if the key is not.
    pub(super) fn line_of_key(&self, source: &Source<'_>, key: &str) -> Option<usize> {
        let (mut table, mut line) = (Some(self.table), None);
        for part in key.split('.') {
            let Some((name, value)) = table.and_then(|table| table.get_key_value(part)) else { break };
            line = Some(source.line_of(name.span().start));
            table = value.get_ref().as_table();
        }
        line
    }

    /// Whether the key is there, with whatever value.
    pub(super) fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    fn get(&mut self, key: &'static str) -> Option<&'t Spanned<DeValue<'i>>> {
        self.known.push(key);
        self.table.get(key)
    }

    fn wrong(&self, source: &mut Source<'_>, key: &str, value: &Spanned<DeValue<'_>>, right: &str) {
        let line = source.line_of(value.span().start);
        let shown = source.text.get(value.span()).unwrap_or_default().lines().next().unwrap_or_default();
        let wrong = format!("{shown} does not fit");
        source.note(Some(line), self.path(key), wrong, right);
    }

    /// A sub-table; an empty one if it is not there.
    pub(super) fn table(&mut self, source: &mut Source<'_>, key: &'static str) -> Option<Table<'t, 'i>> {
        let value = self.get(key)?;
        if let DeValue::Table(table) = value.get_ref() {
            let line = source.line_of(value.span().start);
            return Some(Table { at: self.path(key), table, line, known: Vec::new() });
        }
        self.wrong(source, key, value, "write a table");
        None
    }

    /// An array of tables.
    pub(super) fn tables(&mut self, source: &mut Source<'_>, key: &'static str) -> Vec<Table<'t, 'i>> {
        let Some(value) = self.get(key) else { return Vec::new() };
        let DeValue::Array(array) = value.get_ref() else {
            self.wrong(source, key, value, &format!("write it as [[{key}]]"));
            return Vec::new();
        };
        let mut tables = Vec::new();
        for (index, item) in array.iter().enumerate() {
            let at = format!("{}[{index}]", self.path(key));
            match item.get_ref().as_table() {
                Some(table) => {
                    tables.push(Table {
                        at,
                        table,
                        line: source.line_of(item.span().start),
                        known: Vec::new(),
                    });
                }
                None => self.wrong(source, key, item, &format!("write it as [[{key}]]")),
            }
        }
        tables
    }

    /// All sub-tables, for tables whose keys are the user's: name and table of each.
    pub(super) fn named_tables(&mut self, source: &mut Source<'_>) -> Vec<(String, Table<'t, 'i>)> {
        let mut tables = Vec::new();
        for (key, value) in self.table {
            let name = key.get_ref().to_string();
            let (at, line) = (self.path(&name), source.line_of(key.span().start));
            match value.get_ref().as_table() {
                Some(table) => tables.push((name, Table { at, table, line, known: Vec::new() })),
                None => self.wrong(source, &name, value, "write a table"),
            }
        }
        tables
    }

    /// All keys and their texts, for tables whose keys are the user's.
    pub(super) fn texts(&mut self, source: &mut Source<'_>) -> Vec<(String, String)> {
        let mut texts = Vec::new();
        for (key, value) in self.table {
            match value.get_ref().as_str() {
                Some(text) => texts.push((key.get_ref().to_string(), text.to_owned())),
                None => self.wrong(source, key.get_ref(), value, "write text in quotes"),
            }
        }
        texts
    }

    /// A text.
    pub(super) fn text(&mut self, source: &mut Source<'_>, key: &'static str) -> Option<String> {
        self.parsed(source, key, "write text in quotes", |text| Some(text.to_owned()))
    }

    /// Text that is not empty and on one line.
    pub(super) fn words(
        &mut self,
        source: &mut Source<'_>,
        key: &'static str,
        right: &str,
    ) -> Option<String> {
        let is_line = |text: &&str| !text.trim().is_empty() && !text.contains(char::is_control);
        self.parsed(source, key, right, |text| Some(text).filter(is_line).map(str::to_owned))
    }

    /// A list of texts.
    pub(super) fn text_list(&mut self, source: &mut Source<'_>, key: &'static str) -> Option<Vec<String>> {
        let value = self.get(key)?;
        let texts = value
            .get_ref()
            .as_array()
            .and_then(|array| array.iter().map(|item| item.get_ref().as_str().map(str::to_owned)).collect());
        if texts.is_none() {
            self.wrong(source, key, value, "write a list of texts, for example [\"a\", \"b\"]");
        }
        texts
    }

    /// A whole number from `min` to `max`.
    pub(super) fn number(
        &mut self,
        source: &mut Source<'_>,
        key: &'static str,
        min: u64,
        max: u64,
    ) -> Option<u64> {
        let value = self.get(key)?;
        let number = value
            .get_ref()
            .as_integer()
            .and_then(|integer| u64::from_str_radix(integer.as_str(), integer.radix()).ok())
            .filter(|number| (min..=max).contains(number));
        if number.is_none() {
            self.wrong(source, key, value, &format!("write a whole number from {min} to {max}"));
        }
        number
    }

    /// Yes or no.
    pub(super) fn flag(&mut self, source: &mut Source<'_>, key: &'static str) -> Option<bool> {
        let value = self.get(key)?;
        let DeValue::Boolean(flag) = value.get_ref() else {
            self.wrong(source, key, value, "write true or false");
            return None;
        };
        Some(*flag)
    }

    /// A duration from `min` to `max`.
    pub(super) fn duration(
        &mut self,
        source: &mut Source<'_>,
        key: &'static str,
        min: Duration,
        max: Duration,
    ) -> Option<Duration> {
        let right = format!("write a duration from \"{}\" to \"{}\"", TimeSpan(min), TimeSpan(max));
        self.parsed(source, key, &right, |text| {
            let span: TimeSpan = text.parse().ok()?;
            Some(span.0).filter(|duration| (min..=max).contains(duration))
        })
    }

    /// A size in bytes from `min` to `max`.
    pub(super) fn size(
        &mut self,
        source: &mut Source<'_>,
        key: &'static str,
        min: u64,
        max: u64,
    ) -> Option<u64> {
        let right = format!("write a size from \"{}\" to \"{}\"", ByteSize(min), ByteSize(max));
        self.parsed(source, key, &right, |text| {
            let size: ByteSize = text.parse().ok()?;
            Some(size.0).filter(|bytes| (min..=max).contains(bytes))
        })
    }

    /// An amount of processors or memory.
    pub(super) fn quantity(
        &mut self,
        source: &mut Source<'_>,
        key: &'static str,
        of: Resource,
    ) -> Option<Quantity> {
        self.parsed(source, key, of.right(), |text| Quantity::parse(of, text))
    }

    /// An address to listen on.
    pub(super) fn address(&mut self, source: &mut Source<'_>, key: &'static str) -> Option<SocketAddr> {
        self.parsed(source, key, "write an address and a port, for example \"127.0.0.1:5005\"", |text| {
            text.parse().ok()
        })
    }

    /// One of `choices`.
    pub(super) fn choice(
        &mut self,
        source: &mut Source<'_>,
        key: &'static str,
        choices: &[&str],
    ) -> Option<usize> {
        let right = format!("write one of: {}", choices.join(", "));
        self.parsed(source, key, &right, |text| choices.iter().position(|choice| *choice == text))
    }

    fn parsed<T>(
        &mut self,
        source: &mut Source<'_>,
        key: &'static str,
        right: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        let value = self.get(key)?;
        let parsed = value.get_ref().as_str().and_then(parse);
        if parsed.is_none() {
            self.wrong(source, key, value, right);
        }
        parsed
    }

    /// Notes the keys that nobody asked for. Call it last.
    pub(super) fn finish(self, source: &mut Source<'_>) {
        for (key, _) in self.table {
            let name = key.get_ref().as_ref();
            if !self.known.contains(&name) {
                let line = source.line_of(key.span().start);
                source.note(Some(line), self.path(name), "unknown key", nearest(name, &self.known));
            }
        }
    }
}

/// What an unknown key was probably meant to be.
pub(super) fn nearest(name: &str, known: &[&str]) -> String {
    /// Names that share less than this (Jaro-Winkler, 0 to 1) are not worth suggesting.
    const ALIKE: f64 = 0.75;
    let best = known
        .iter()
        .map(|known| (strsim::jaro_winkler(name, known), known))
        .max_by(|a, b| a.0.total_cmp(&b.0));
    match best {
        Some((score, known)) if score > ALIKE => format!("did you mean {known}?"),
        _ => format!("known here: {}", known.join(", ")),
    }
}
