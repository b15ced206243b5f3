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
        check_split(source, &table, &name, &policy, services);
        policies.insert(name, policy);
    }
    policies
}

/// Requests are shared out to other services of the application.
fn check_split(
    source: &mut Source<'_>,
    table: &Table<'_, '_>,
    name: &str,
    policy: &ServicePolicy,
    services: &[ServiceSpec],
) {
    let line = table.line_of_key(source, "split");
    for other in policy.split.keys() {
        let is_other = other != name && services.iter().any(|spec| *spec.setup.service == **other);
        if !is_other {
            let others = services.iter().map(|spec| &*spec.setup.service).filter(|other| *other != name);
            let right = format!("name one of: {}", others.collect::<Vec<_>>().join(", "));
            let key = format!("{}.{other}", table.path("split"));
            source.note(line, key, format!("{other} is no other service"), right);
        }
    }
}

fn policy(source: &mut Source<'_>, table: &Table<'_, '_>) -> ServicePolicy {
    let policy: ServicePolicy = ingress::keys(source, table, &[]);
    ingress::note(source, table, policy.validate());
    policy
}
