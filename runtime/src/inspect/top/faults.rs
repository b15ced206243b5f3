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
    refused_for: Reasons,
    abandoned: u64,
}

/// How often, by reason; only reasons that there were.
type Reasons = BTreeMap<String, u64>;

/// What was refused of all that came, with what is for no service.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Refused {
    requests: Reasons,
    connections: Reasons,
    heads: Reasons,
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
    let custody = state.custody.iter().flat_map(|custody| {
        custody.faults.iter().map(|(fault, count)| (("dpa".to_owned(), fault.clone()), *count))
    });
    cells.chain(of_clients(state)).chain(custody).filter(|(_, count)| *count > 0).collect()
}

/// What clients did not get: of each service, and what came to none.
fn of_clients(state: &State) -> Vec<((String, String), u64)> {
    let refused = state.refused.clone().unwrap_or_default();
    let mut unrouted = refused.requests;
    let mut faults = Vec::new();
    for service in &state.services {
        let Clients { failed, refused, refused_for: reasons, abandoned } =
            service.clients.clone().unwrap_or_default();
        // Another version may not say why.
        let unsaid = refused.saturating_sub(reasons.values().sum());
        let others = [("failed", failed), ("refused", unsaid), ("abandoned", abandoned)];
        let others = others.map(|(what, count)| (what.to_owned(), count));
        for (reason, count) in &reasons {
            unrouted.entry(reason.clone()).and_modify(|all| *all = all.saturating_sub(*count));
        }
        let of = format!("clients -> {}", service.service);
        let all = others.into_iter().chain(refused_for(reasons));
        faults.extend(all.map(|(what, count)| ((of.clone(), what), count)));
    }
    for (of, counts) in
        [("clients", unrouted), ("connections", refused.connections), ("heads", refused.heads)]
    {
        faults.extend(refused_for(counts).map(|(what, count)| ((of.to_owned(), what), count)));
    }
    faults
}

fn refused_for(counts: Reasons) -> impl Iterator<Item = (String, u64)> {
    counts.into_iter().map(|(reason, count)| (format!("refused, {reason}"), count))
}

/// A table of those that there were: first what is most frequent now, then what was so far.
pub(super) fn write(out: &mut String, before: &State, now: &State, seconds: f64, rows: usize) {
    let old = known(before);
    let table = known(now).into_iter().map(|(fault, count)| {
        let new = count.saturating_sub(old.get(&fault).copied().unwrap_or_default());
        let (of, what) = fault;
        let texts = [format!("{}: {}", clean(&of), clean(&what)), rate(new, seconds), count.to_string()];
        Row { rate: count, p99: Quantile::None, errors: new, texts }
    });
    write_table(out, ["FAULTS", "PER S", "SO FAR"], table.collect(), (Sort::Errors, rows));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(refused: u64, unknown: u64) -> State {
        let text = format!(
            r#"{{"command": "run", "uptime_seconds": 1, "process": {{"cpu_seconds": 0}}, "services": [
                    {{"service": "s0", "clients": {{"failed": 1, "refused": {refused}, "abandoned": 0,
                      "refused_for": {{"overloaded": 2, "deadline": {}}}}}}},
                    {{"service": "old", "clients": {{"failed": 0, "refused": 4, "abandoned": 0}}}},
                    {{"service": "s1", "clients": null}}],
                "refused": {{"requests": {{"overloaded": 2, "deadline": {0}, "unknown-service": {unknown}}},
                             "connections": {{"per-address-max": 7}}, "heads": {{}}}}}}"#,
            refused - 2
        );
        serde_json::from_str(&text).expect("a state")
    }

    /// Refusals are told by reason, of each service and of what came to none: those of now first, then the most frequent.
    #[test]
    fn refusals_say_why() {
        let mut page = String::new();
        write(&mut page, &state(3, 1), &state(6, 3), 2.0, 20);
        let expected = "\
FAULTS                                 PER S  SO FAR
clients -> s0: refused, deadline         1.5       4
clients: refused, unknown-service        1.0       3
connections: refused, per-address-max      0       7
clients -> old: refused                    0       4
clients -> s0: refused, overloaded         0       2
clients -> s0: failed                      0       1

";
        assert_eq!(page, expected);
        let mut page = String::new();
        write(&mut page, &state(3, 1), &state(6, 3), 2.0, 1);
        assert!(page.contains("refused, deadline") && page.ends_with("and 5 more\n\n"), "{page}");
    }
}
