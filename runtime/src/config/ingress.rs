//! The `[dpu]` section: read by the DPU's own config type (`foreign.rs`), so that every wrong key is reported with its line.

use cellmesh_dpu::config::{ConfigError, DpuConfig};

use super::foreign::keys;
use super::reader::{Source, Table};
use super::tls;

/// Keys of the section that [`tls`] reads.
const OTHERS: [&str; 1] = ["tls"];

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
