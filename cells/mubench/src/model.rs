//! What the work model says about this service.
//!
//! The config gives the service's own entry of the work model, the names of all services and their paths.
//! An instance reads them once and keeps what it read until it ends.

use std::cell::OnceCell;
use std::collections::{HashMap, HashSet};

use cellmesh_guest::config;
use serde::de::DeserializeOwned;

use crate::calls::{Callee, CalleeGroup};
use crate::stress::Internal;

mod entry;

/// The path of a service whose entry has none.
const DEFAULT_PATH: &str = "/api/v1";

/// This service.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) name: String,
    pub(crate) network: Network,
    default: Behaviour,
    /// By behaviour id, the value of the query parameter `bid`.
    alternatives: HashMap<String, Behaviour>,
}

/// What a service does for a request.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Behaviour {
    pub(crate) internal: Internal,
    /// Called at the same time; the callees of a group one after the other.
    pub(crate) groups: Vec<CalleeGroup>,
}

/// The other services.
#[derive(Debug, Default)]
pub(crate) struct Network {
    /// All names; none where the config does not say.
    services: Option<HashSet<String>>,
    paths: HashMap<String, String>,
}

impl Service {
    /// What the config says, read once per instance.
    ///
    /// # Errors
    /// What is wrong in it: every request is answered with this.
    pub(crate) fn this() -> Result<&'static Self, &'static str> {
        thread_local! {
            static THIS: OnceCell<&'static Result<Service, String>> = const { OnceCell::new() };
        }
        let this = THIS.with(|this| *this.get_or_init(|| Box::leak(Box::new(Self::from_config()))));
        this.as_ref().map_err(String::as_str)
    }

    fn from_config() -> Result<Self, String> {
        let network = Network {
            services: optional("mubench.services")?,
            paths: optional("mubench.paths")?.unwrap_or_default(),
        };
        let entry = config::get("mubench.service")
            .ok_or("config `mubench.service` is missing: it holds this service's entry of the work model")?;
        Self::read(config::service(), &entry, network)
    }

    /// Reads the service's entry of the work model.
    fn read(name: String, entry: &str, network: Network) -> Result<Self, String> {
        let entry: entry::Service =
            parse(entry).map_err(|problem| format!("work model of service `{name}`: {problem}"))?;
        let of_service = |problem| format!("work model of service `{name}`: {problem}");
        let default = Behaviour {
            internal: entry.internal_service.internal().map_err(of_service)?,
            groups: groups(&entry.external_services, &network).map_err(of_service)?,
        };
        let read = |(bid, alternative): (String, entry::Alternative)| {
            let behaviour = alternative.behaviour(&default, &network);
            behaviour
                .map(|behaviour| (bid.clone(), behaviour))
                .map_err(|problem| of_service(format!("alternative_behaviors.{bid}: {problem}")))
        };
        let alternatives = entry.alternative_behaviors.into_iter().map(read).collect::<Result<_, _>>()?;
        Ok(Self { name, network, default, alternatives })
    }

    /// The behaviour with this id; the default one for none and for an unknown one.
    pub(crate) fn behaviour(&self, bid: Option<&str>) -> &Behaviour {
        bid.and_then(|bid| self.alternatives.get(bid)).unwrap_or(&self.default)
    }
}

impl entry::Alternative {
    /// What the alternative does not say is as by default.
    fn behaviour(self, default: &Behaviour, network: &Network) -> Result<Behaviour, String> {
        let internal = self.internal_services.map(|function| function.internal()).transpose()?;
        let groups = self.external_services.map(|external| groups(&external, network)).transpose()?;
        Ok(Behaviour {
            internal: internal.unwrap_or_else(|| default.internal.clone()),
            groups: groups.unwrap_or_else(|| default.groups.clone()),
        })
    }
}

fn groups(entries: &[entry::Group], network: &Network) -> Result<Vec<CalleeGroup>, String> {
    let read = |(index, group): (usize, &entry::Group)| {
        read_group(group, network).map_err(|problem| format!("external_services[{index}]: {problem}"))
    };
    entries.iter().enumerate().map(read).collect()
}

fn read_group(group: &entry::Group, network: &Network) -> Result<CalleeGroup, String> {
    let callees = group.services.iter().map(|name| {
        let service = without_suffix(name);
        network.check(service)?;
        let probability = [name, service].into_iter().find_map(|name| group.probabilities.get(name));
        Ok(Callee { url: network.url(service), probability: probability.copied().unwrap_or(1.0) })
    });
    let callees = callees.collect::<Result<Vec<_>, String>>()?;
    let called_max = group.seq_len.map_or(callees.len(), |seq_len| seq_len.get().min(callees.len()));
    Ok(CalleeGroup { callees, called_max })
}

impl Network {
    fn check(&self, service: &str) -> Result<(), String> {
        match &self.services {
            Some(services) if !services.contains(service) => {
                let mut names: Vec<_> = services.iter().map(String::as_str).collect();
                names.sort_unstable();
                Err(format!("service `{service}` is not in the work model, which has {}", names.join(", ")))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Where a service is called.
    pub(crate) fn url(&self, service: &str) -> String {
        let path = self.paths.get(service).map_or(DEFAULT_PATH, String::as_str);
        format!("http://{service}/{}", path.trim_start_matches('/'))
    }
}

/// `s1__2` calls `s1`: the suffix makes a name unique in its group, nothing more.
pub(crate) fn without_suffix(name: &str) -> &str {
    name.split_once("__").map_or(name, |(service, _)| service)
}

fn optional<T: DeserializeOwned>(key: &str) -> Result<Option<T>, String> {
    config::get(key)
        .map(|json| parse(&json).map_err(|problem| format!("config `{key}`: {problem}")))
        .transpose()
}

/// Reads JSON; an error says at which key.
fn parse<T: DeserializeOwned>(json: &str) -> Result<T, String> {
    let mut reader = serde_json::Deserializer::from_str(json);
    let value = serde_path_to_error::deserialize(&mut reader).map_err(|error| error.to_string())?;
    reader.end().map_err(|error| error.to_string())?;
    Ok(value)
}

#[cfg(test)]
mod tests;
