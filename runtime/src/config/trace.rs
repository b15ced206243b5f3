//! `[trace]`: what is kept of single requests, and where it is sent.

use crate::trace::{TraceConfig, TraceSettings};

use super::reader::{Source, Table};
use super::{foreign, ingress};

/// Reads the section, if it is there.
pub(super) fn read(source: &mut Source<'_>, root: &mut Table<'_, '_>) -> TraceSettings {
    let Some(table) = root.table(source, "trace") else { return TraceSettings::default() };
    let config: TraceConfig = foreign::keys(source, &table, &[]);
    ingress::note(source, &table, config.validate());
    TraceSettings::of(&config)
}
