//! The `[dpu]` section: read by the DPU's own config type, one key at a time, so that every wrong key is
//! reported with its line.

use cellmesh_dpu::config::{ConfigError, DpuConfig};
use serde::de::DeserializeOwned;
use toml::de::DeTable;

use super::reader::{Source, Table};
use super::tls;

/// Keys of the section that [`tls`] reads.
pub(super) const OTHERS: [&str; 1] = ["tls"];

/// Reads the section, if it is there.
pub(super) fn read(source: &mut Source<'_>, root: &mut Table<'_, '_>, around: &tls::Around<'_>) -> DpuConfig {
    let Some(mut table) = root.table(source, "dpu") else { return DpuConfig::default() };
    let mut config: DpuConfig = keys(source, &table, &OTHERS);
    let mut wrong = config.validate();
    if around.has_clients {
        wrong.extend(config.egress.read_ca(around.folder).err());
    }
    note(source, &table, wrong);
    config.tls = tls::read(source, &mut table, around);
    config
}

/// Notes what the network side says of a table.
pub(super) fn note(source: &mut Source<'_>, table: &Table<'_, '_>, errors: Vec<ConfigError>) {
    for ConfigError { key, found, right } in errors {
        let line = table.line_of_key(source, key);
        source.note(line, table.path(key), format!("{found} does not fit"), format!("must be {right}"));
    }
}

/// A table as a type of another crate that has a default for each key. A key that does not fit is noted and left out.
///
/// - `others`: keys that somebody else reads.
pub(super) fn keys<T: DeserializeOwned + Default>(
    source: &mut Source<'_>,
    table: &Table<'_, '_>,
    others: &[&str],
) -> T {
    let mut right = toml::Table::new();
    for (key, value) in table.entries().filter(|(key, _)| !others.contains(&&**key.get_ref())) {
        let line = source.line_of(key.span().start);
        let name = key.get_ref().to_string();
        let one = toml::Table::from_iter([(name.clone(), plain(value.get_ref()))]);
        match T::deserialize(one.clone()) {
            Ok(_) => right.extend(one),
            Err(error) => {
                source.note(Some(line), table.path(&name), error.message().trim(), "see docs/config.md")
            }
        }
    }
    T::deserialize(right).unwrap_or_default()
}

/// A value without its place in the file.
fn plain(value: &toml::de::DeValue<'_>) -> toml::Value {
    use toml::de::DeValue;
    match value {
        DeValue::String(text) => toml::Value::String(text.to_string()),
        DeValue::Integer(integer) => integer_value(integer),
        DeValue::Float(float) => {
            float.as_str().parse().map_or_else(|_| text(float.as_str()), toml::Value::Float)
        }
        DeValue::Boolean(flag) => toml::Value::Boolean(*flag),
        DeValue::Datetime(datetime) => toml::Value::Datetime(*datetime),
        DeValue::Array(array) => toml::Value::Array(array.iter().map(|item| plain(item.get_ref())).collect()),
        DeValue::Table(table) => toml::Value::Table(plain_table(table)),
    }
}

fn plain_table(table: &DeTable<'_>) -> toml::Table {
    table.iter().map(|(key, value)| (key.get_ref().to_string(), plain(value.get_ref()))).collect()
}

fn integer_value(integer: &toml::de::DeInteger<'_>) -> toml::Value {
    i64::from_str_radix(integer.as_str(), integer.radix())
        .map_or_else(|_| text(integer.as_str()), toml::Value::Integer)
}

fn text(text: &str) -> toml::Value {
    toml::Value::String(text.to_owned())
}
