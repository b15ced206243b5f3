//! Tables that are read by a type of another crate, which knows its keys and not where they stand.
//!
//! - What the type refuses first is noted with its own key and line, and taken out; then it is asked again. So everything that is
//!   wrong is noted, whatever is inside of what.

use std::ops::Range;

use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue, Deserializer};

use super::reader::{Source, Table, nearest};

/// Mistakes of one table that are told; who made more has enough to do.
const MISTAKES_MAX: usize = 64;

/// A table as a type that has a default for each key. What does not fit is noted and left out.
///
/// - `others`: keys that somebody else reads.
pub(super) fn keys<T: DeserializeOwned + Default>(
    source: &mut Source<'_>,
    table: &Table<'_, '_>,
    others: &[&str],
) -> T {
    let mut left = DeTable::new();
    for (key, value) in table.entries().filter(|(key, _)| !others.contains(&&**key.get_ref())) {
        left.insert(key.clone(), value.clone());
    }
    let at = table.path("");
    let at = at.trim_end_matches('.');
    take_unfit(source, at, &mut left);
    for _ in 0..MISTAKES_MAX {
        let whole = Spanned::new(0..0, left.clone());
        let error = match T::deserialize(Deserializer::from(whole)) {
            Ok(value) => return value,
            Err(error) => error,
        };
        let Some((span, path)) = error.span().and_then(|span| Some((span.clone(), take(&mut left, &span)?)))
        else {
            // Of the table as a whole.
            source.note(Some(table.line()), at.to_owned(), error.message().trim(), RIGHT);
            break;
        };
        // Somebody else reads keys of the table itself, not of those inside of it.
        let others = if path.contains('.') { &[] } else { others };
        let (wrong, right) = told(error.message().trim(), others);
        let line = source.line_of(span.start);
        source.note(Some(line), format!("{at}.{path}"), wrong, right);
    }
    T::default()
}

const RIGHT: &str = "see docs/config.md";

/// What serde says, in the words of the other tables.
fn told(message: &str, others: &[&str]) -> (String, String) {
    let Some(rest) = message.strip_prefix("unknown field `") else { return (message.into(), RIGHT.into()) };
    let mut names = rest.split('`').step_by(2);
    let Some(name) = names.next() else { return (message.into(), RIGHT.into()) };
    let known: Vec<&str> = names.chain(others.iter().copied()).filter(|name| !name.is_empty()).collect();
    ("unknown key".into(), nearest(name, &known))
}

/// Takes out what stands at this place of the file, and says its path: the innermost key that it belongs to.
fn take(table: &mut DeTable<'_>, place: &Range<usize>) -> Option<String> {
    let (key, _) =
        table.iter().find(|(key, value)| is_in(&key.span(), place) || is_in_value(value, place))?;
    let (name, is_key) = (key.get_ref().to_string(), is_in(&key.span(), place));
    let value = table.get_mut(name.as_str())?;
    if !is_key && let Some(inner) = take_inside(value.get_mut(), place) {
        return Some(format!("{name}{inner}"));
    }
    table.remove(name.as_str());
    Some(name)
}

fn take_inside(value: &mut DeValue<'_>, place: &Range<usize>) -> Option<String> {
    if let DeValue::Table(table) = value {
        return take(table, place).map(|inner| format!(".{inner}"));
    }
    let DeValue::Array(items) = value else { return None };
    items.iter_mut().enumerate().find_map(|(index, item)| {
        let DeValue::Table(table) = item.get_mut() else { return None };
        take(table, place).map(|inner| format!("[{index}].{inner}"))
    })
}

fn is_in(outer: &Range<usize>, place: &Range<usize>) -> bool {
    outer.start <= place.start && place.end <= outer.end
}

/// Also in what belongs to it: a table that is written as `[a.b]` does not stand inside of `[a]`.
fn is_in_value(value: &Spanned<DeValue<'_>>, place: &Range<usize>) -> bool {
    let is_inside = if let DeValue::Table(table) = value.get_ref() {
        table.iter().any(|(key, value)| is_in(&key.span(), place) || is_in_value(value, place))
    } else if let DeValue::Array(items) = value.get_ref() {
        items.iter().any(|item| is_in_value(item, place))
    } else {
        false
    };
    is_inside || is_in(&value.span(), place)
}

/// Notes and takes out values that fit no key, whatever it takes: a type would take some of them for text.
fn take_unfit(source: &mut Source<'_>, at: &str, table: &mut DeTable<'_>) {
    let mut unfit = Vec::new();
    for (key, value) in table.iter_mut() {
        let path = format!("{at}.{}", key.get_ref());
        let span = value.span();
        if let DeValue::Table(inner) = value.get_mut() {
            take_unfit(source, &path, inner);
        } else if let Some((wrong, right)) = of_no_key(value.get_ref()) {
            let line = source.line_of(span.start);
            source.note(Some(line), path, wrong, right);
            unfit.push(key.get_ref().to_string());
        }
    }
    for name in unfit {
        table.remove(name.as_str());
    }
}

/// What is wrong with a value, and what would be right.
fn of_no_key(value: &DeValue<'_>) -> Option<(String, &'static str)> {
    let too_large = |number: &str| {
        let right = "must be a number of at most 64 bits, or text in quotes";
        (format!("{number} does not fit"), right)
    };
    match value {
        DeValue::Integer(integer) => {
            let number = i64::from_str_radix(integer.as_str(), integer.radix());
            number.err().map(|_| too_large(integer.as_str()))
        }
        DeValue::Float(float) => float.as_str().parse::<f64>().err().map(|_| too_large(float.as_str())),
        DeValue::Datetime(datetime) => {
            let wrong = format!("the date {datetime} does not fit");
            Some((wrong, "write text in quotes: no key takes a date"))
        }
        DeValue::Array(items) => items.iter().find_map(|item| of_no_key(item.get_ref())),
        DeValue::Table(table) => table.iter().find_map(|(_, value)| of_no_key(value.get_ref())),
        DeValue::String(_) | DeValue::Boolean(_) => None,
    }
}
