//! What went wrong, as far as the process knows it: faults of cells, what clients were refused, what the DPA answered itself.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::table::{Quantile, Row, rate, write_table};
use super::{Sort, State, clean};

/// A service as the network side sees it.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Service {
    service: String,
    clients: Option<Clients>,
}

/// What became of requests of clients, but for those that were answered.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Clients {
    failed: u64,
    refused: u64,
    abandoned: u64,
}

/// What the DPA answered itself.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Custody {
    faults: BTreeMap<String, u64>,
}

/// Of whom, and what; and how often so far.
pub(super) fn known(state: &State) -> BTreeMap<(String, String), u64> {
    let cells = state.cells.iter().flat_map(|cell| {
        cell.faults.iter().map(|(fault, count)| ((cell.service.clone(), fault.clone()), *count))
    });
    let services = state.services.iter().flat_map(|service| {
        let Clients { failed, refused, abandoned } = service.clients.clone().unwrap_or_default();
        [("failed", failed), ("refused", refused), ("abandoned", abandoned)]
            .map(|(what, count)| ((format!("clients -> {}", service.service), what.to_owned()), count))
    });
    let custody = state.custody.iter().flat_map(|custody| {
        custody.faults.iter().map(|(fault, count)| (("dpa".to_owned(), fault.clone()), *count))
    });
    cells.chain(services).chain(custody).filter(|(_, count)| *count > 0).collect()
}

/// A table of those that there were.
pub(super) fn write(out: &mut String, before: &State, now: &State, seconds: f64, rows: usize) {
    let old = known(before);
    let table = known(now).into_iter().map(|(fault, count)| {
        let new = count.saturating_sub(old.get(&fault).copied().unwrap_or_default());
        let (of, what) = fault;
        let texts = [format!("{}: {}", clean(&of), clean(&what)), rate(new, seconds), count.to_string()];
        Row { rate: new, p99: Quantile::None, errors: new, texts }
    });
    write_table(out, ["FAULTS", "PER S", "SO FAR"], table.collect(), (Sort::Rate, rows));
}
