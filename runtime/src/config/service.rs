//! `[service.NAME]`: policy of one service, read by the network side's own type, one key at a time; whom both daemons
//! leave out; and what it asks of a cluster.

use std::collections::BTreeMap;
use std::path::Path;

use cellmesh_dpu::DpuConfig;
use cellmesh_dpu::policy::ServicePolicy;
use cellmesh_dpu::policy::jwt::{JwtPolicy, Keys};
use cellmesh_shm::outlier::OutlierRule;

use super::app::ServiceSpec;
use super::deploy::{self, Deploy};
use super::foreign;
use super::ingress;
use super::manifest::{LONGEST, SHORTEST};
use super::reader::{Source, Table};

/// Keys of a policy that are not the network side's.
const OTHERS: [&str; 2] = ["deploy", "outlier"];

/// Where the files are that policies name.
pub(super) struct Files<'a> {
    /// Of the config file.
    pub(super) folder: &'a Path,
    /// Whether they are read: only where requests come in.
    pub(super) are_read: bool,
}

/// All tables, by service.
#[derive(Default)]
pub(super) struct Policies {
    /// Of the network side.
    pub(super) dpu: BTreeMap<String, ServicePolicy>,
    /// Of the DPA, for workers, and of the network side, for addresses off the node.
    pub(super) outliers: BTreeMap<String, OutlierRule>,
    /// For a cluster.
    pub(super) deploy: BTreeMap<String, Deploy>,
}

impl Policies {
    /// The network side gets what is its own, and knows whom it leaves out.
    pub(super) fn hand_to(&mut self, dpu: &mut DpuConfig) {
        dpu.services = std::mem::take(&mut self.dpu);
        dpu.egress.outliers.clone_from(&self.outliers);
    }
}

/// Reads the policies.
pub(super) fn read(
    source: &mut Source<'_>,
    root: &mut Table<'_, '_>,
    services: &[ServiceSpec],
    files: &Files<'_>,
) -> Policies {
    let Some(mut all) = root.table(source, "service") else { return Policies::default() };
    let mut policies = Policies::default();
    for (name, mut table) in all.named_tables(source) {
        if !services.iter().any(|spec| *spec.setup.service == *name) {
            let known: Vec<&str> = services.iter().map(|spec| &*spec.setup.service).collect();
            let right = format!("name one of: {}", known.join(", "));
            source.note(Some(table.line()), all.path(&name), format!("{name} is no service"), right);
        }
        let mut policy = policy(source, &table);
        if let Some(jwt) = &mut policy.jwt {
            jwt.jwks = files.folder.join(&jwt.jwks);
            if files.are_read {
                load_keys(source, &table, jwt);
            }
        }
        check_split(source, &table, &name, &policy, services);
        policies.outliers.extend(outlier(source, &mut table).map(|rule| (name.clone(), rule)));
        policies.deploy.extend(deploy::read(source, &mut table).map(|deploy| (name.clone(), deploy)));
        policies.dpu.insert(name, policy);
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
            let others = others.collect::<Vec<_>>().join(", ");
            let right = if others.is_empty() {
                "leave it out: there is no other service".to_owned()
            } else {
                format!("name one of: {others}")
            };
            let key = format!("{}.{other}", table.path("split"));
            source.note(line, key, format!("{other} is no other service"), right);
        }
    }
}

fn load_keys(source: &mut Source<'_>, table: &Table<'_, '_>, jwt: &mut JwtPolicy) {
    match Keys::load(&jwt.jwks) {
        Ok(keys) => jwt.keys = keys,
        Err(error) => {
            let wrong = format!("{} {error}", jwt.jwks.display());
            let right = "name a file with a JSON Web Key Set, relative to this one";
            source.note(table.line_of_key(source, "jwt.jwks"), table.path("jwt.jwks"), wrong, right);
        }
    }
}

fn policy(source: &mut Source<'_>, table: &Table<'_, '_>) -> ServicePolicy {
    let policy: ServicePolicy = foreign::keys(source, table, &OTHERS);
    ingress::note(source, table, policy.validate());
    policy
}

/// When a worker or an address of the service gets no requests for a while.
fn outlier(source: &mut Source<'_>, service: &mut Table<'_, '_>) -> Option<OutlierRule> {
    let mut table = service.table(source, "outlier")?;
    let usual = OutlierRule::default();
    let failures_max = table.number(source, "failures_max", 1, 1_000_000);
    let ejection = table.duration(source, "ejection", SHORTEST, LONGEST).unwrap_or(usual.ejection);
    let ejection_max = table.duration(source, "ejection_max", SHORTEST, LONGEST);
    let ejection_max = ejection_max.unwrap_or(usual.ejection_max.max(ejection));
    let share_max = table.number(source, "share_max", 1, 100);
    if ejection_max < ejection {
        let line = table.line_of_key(source, "ejection_max");
        let right = "write at least as much as ejection";
        source.note(line, table.path("ejection_max"), "is less than ejection", right);
    }
    table.finish(source);
    Some(OutlierRule {
        failures_max: failures_max.and_then(|count| count.try_into().ok()).unwrap_or(usual.failures_max),
        ejection,
        ejection_max,
        share_max: share_max.and_then(|share| share.try_into().ok()).unwrap_or(usual.share_max),
    })
}
