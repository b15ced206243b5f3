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
        let value = match plain(value.get_ref()) {
            Ok(value) => value,
            Err(Unfit { wrong, right }) => {
                source.note(Some(line), table.path(&name), wrong, right);
                continue;
            }
        };
        let one = toml::Table::from_iter([(name.clone(), value)]);
        match T::deserialize(one.clone()) {
            Ok(_) => right.extend(one),
            Err(error) => {
                source.note(Some(line), table.path(&name), error.message().trim(), "see docs/config.md")
            }
        }
    }
    T::deserialize(right).unwrap_or_default()
}

/// A value that fits no key, whatever it takes.
struct Unfit {
    wrong: String,
    right: &'static str,
}

/// A value without its place in the file. Nothing becomes a text that is none in the file: no key would see the difference.
fn plain(value: &toml::de::DeValue<'_>) -> Result<toml::Value, Unfit> {
    use toml::de::DeValue;
    Ok(match value {
        DeValue::String(text) => toml::Value::String(text.to_string()),
        DeValue::Integer(integer) => {
            let number = i64::from_str_radix(integer.as_str(), integer.radix());
            number.map(toml::Value::Integer).map_err(|_| too_large(integer.as_str()))?
        }
        DeValue::Float(float) => {
            float.as_str().parse().map(toml::Value::Float).map_err(|_| too_large(float.as_str()))?
        }
        DeValue::Boolean(flag) => toml::Value::Boolean(*flag),
        DeValue::Datetime(datetime) => {
            let wrong = format!("the date {datetime} does not fit");
            return Err(Unfit { wrong, right: "write text in quotes: no key takes a date" });
        }
        DeValue::Array(array) => {
            toml::Value::Array(array.iter().map(|item| plain(item.get_ref())).collect::<Result<_, _>>()?)
        }
        DeValue::Table(table) => toml::Value::Table(plain_table(table)?),
    })
}

fn plain_table(table: &DeTable<'_>) -> Result<toml::Table, Unfit> {
    table.iter().map(|(key, value)| Ok((key.get_ref().to_string(), plain(value.get_ref())?))).collect()
}

fn too_large(number: &str) -> Unfit {
    Unfit {
        wrong: format!("{number} does not fit"),
        right: "must be a number of at most 64 bits, or text in quotes",
    }
}
