//! `[service.NAME]`: policy of one service, read by the network side's own type, one key at a time.

use std::collections::BTreeMap;

use cellmesh_dpu::policy::ServicePolicy;

use super::app::ServiceSpec;
use super::ingress;
use super::reader::{Source, Table};

/// Reads the policies, by service.
pub(super) fn read(
    source: &mut Source<'_>,
    root: &mut Table<'_, '_>,
    services: &[ServiceSpec],
) -> BTreeMap<String, ServicePolicy> {
    let Some(mut all) = root.table(source, "service") else { return BTreeMap::new() };
    let mut policies = BTreeMap::new();
    for (name, table) in all.named_tables(source) {
        if !services.iter().any(|spec| *spec.setup.service == *name) {
            let known: Vec<&str> = services.iter().map(|spec| &*spec.setup.service).collect();
            let right = format!("name one of: {}", known.join(", "));
            source.note(Some(table.line()), all.path(&name), format!("{name} is no service"), right);
        }
        let policy = policy(source, &table);
        policies.insert(name, policy);
    }
    policies
}

fn policy(source: &mut Source<'_>, table: &Table<'_, '_>) -> ServicePolicy {
    let policy: ServicePolicy = ingress::keys(source, table, &[]);
    for error in policy.validate() {
        let wrong = format!("{} does not fit", error.found);
        let line = table.line_of_key(source, error.key);
        source.note(line, table.path(error.key), wrong, format!("must be {}", error.right));
    }
    policy
}
