//! Trace-driven requests: the body says which services are called.
//!
//! ```text
//! {"s0": [ {"s1__1": [{}], "s2__1": [{"s3": [{}]}]},  {"s4": [{}]} ]}
//!   |      first group: s1, then s2, which calls s3    second group, at the same time
//!   this service
//! ```
//!
//! What is below a callee is its own matter: it is cut out of the text and sent as it is.

use std::fmt;
use std::marker::PhantomData;

use cellmesh_guest::prelude::*;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::calls::with_query;
use crate::message_response;
use crate::model::{Service, without_suffix};

/// The calls that a trace asks this service for, group by group. The query goes to every callee.
///
/// # Errors
/// A response 400 that says why it is no trace, or not for this service.
pub(crate) fn groups<'a>(
    body: &'a [u8],
    query: &'a str,
    service: &'a Service,
) -> Result<impl Iterator<Item = impl Iterator<Item = Call>>, Response> {
    let groups = read(body, &service.name).map_err(|problem| message_response(400, &problem))?;
    let call = move |(name, below): (String, &RawValue)| call(&name, below, query, service);
    Ok(groups.into_iter().map(move |group| group.0.into_iter().map(call)))
}

fn call(name: &str, below: &RawValue, query: &str, service: &Service) -> Call {
    let url = with_query(service.network.url(without_suffix(name)).into(), query);
    let name = serde_json::Value::from(name);
    Call::post(url).header("content-type", "application/json").body(format!("{{{name}:{below}}}"))
}

/// The groups below the one key, which is this service's.
fn read<'a>(body: &'a [u8], service: &str) -> Result<Vec<Entries<&'a RawValue>>, String> {
    let unreadable = |error: serde_json::Error| format!("bad trace format: {error}");
    let top: Entries<&RawValue> = serde_json::from_slice(body).map_err(unreadable)?;
    let [(name, below)] = &top.0[..] else { return Err("bad trace format".to_owned()) };
    if without_suffix(name) != service {
        return Err(format!("bad trace format: this is service {service}, the trace is for {name}"));
    }
    if below.get().starts_with('[') {
        return serde_json::from_str(below.get()).map_err(unreadable);
    }
    let leaf: Entries<&RawValue> = serde_json::from_str(below.get()).map_err(unreadable)?;
    if leaf.0.is_empty() {
        Ok(Vec::new())
    } else {
        Err("bad trace format: callees are in a list of groups".to_owned())
    }
}

/// The entries of a JSON object in the order in which they are written.
struct Entries<T>(Vec<(String, T)>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Entries<T> {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        reader.deserialize_map(InOrder(PhantomData))
    }
}

struct InOrder<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for InOrder<T> {
    type Value = Entries<T>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object whose keys are services")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Entries<T>, M::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Entries(entries))
    }
}
