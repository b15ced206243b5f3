//! Which service a request is for. Pure: values in, a decision out.
//!
//! The first of these that says something decides:
//!
//! 1. `Host`: its first label, when that names a service. `s1`, `S1:5005`, `s1.`, and
//!    `s1.ns.svc.cluster.local` all name `s1`; an address (`10.0.0.1`, `[::1]`) names nothing.
//! 2. `X-Cellmesh-Service`: exactly the name of a service. Any other text is refused, because
//!    whoever sets this header means one service and no other.
//! 3. The path's first segment, when it is exactly the name of a service. The path itself is
//!    passed on unchanged.
//! 4. The application's entry service.
//!
//! Host names do not know upper and lower case, so two services may not differ in case alone.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;

use cellmesh_shm::ids::ServiceId;

/// Longest service name, in bytes: the longest label that a host name can have. Source: RFC 1035.
pub const NAME_BYTES_MAX: usize = 63;

/// The name of a service: 1 to 63 ASCII letters, digits, `-` and `_`.
///
/// A dot is not allowed: the first label of a host name could never be such a name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceName(Box<str>);

/// Why a text is no [`ServiceName`].
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("service name \"{found}\": must be 1 to 63 letters, digits, '-' or '_'")]
pub struct NameError {
    found: String,
}

/// Why a list of services makes no [`Routes`].
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum RoutesError {
    /// Nothing to route to.
    #[error("no services: at least one is needed")]
    NoServices,
    /// Service ids are 16 bits wide, and one of them means none of these.
    #[error("{found} services: at most {max} fit")]
    TooMany {
        /// How many were given.
        found: usize,
        /// How many ids there are.
        max: usize,
    },
    /// Two names that a host name cannot tell apart.
    #[error("service \"{name}\" is listed twice (upper and lower case are one name)")]
    Duplicate {
        /// The second of the two.
        name: ServiceName,
    },
    /// The entry is not in the list.
    #[error("entry service {entry}: must be less than the number of services ({services})")]
    NoSuchEntry {
        /// The entry's id.
        entry: u16,
        /// How many services there are.
        services: usize,
    },
}

/// The services of a node by name, and the one that takes what names none.
///
/// A service's id is its place in the list that [`Routes::new`] was given.
#[derive(Debug)]
pub struct Routes {
    services: Vec<ServiceName>,
    entry: ServiceId,
    namespace: Option<Box<str>>,
    /// By lower-case name.
    by_name: HashMap<Box<str>, ServiceId>,
}

/// What of a request decides where it goes.
#[derive(Debug, Clone, Copy, Default)]
pub struct RouteQuery<'a> {
    /// Authority of an absolute target, else the `Host` header, with its port if it has one.
    pub host: Option<&'a str>,
    /// The `X-Cellmesh-Service` header (JSON bridge: `target_service`).
    pub service: Option<&'a str>,
    /// The path, with or without its query.
    pub path: &'a str,
}

/// What of a request has led to its service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// Its host.
    Host,
    /// The service that it asks for by name.
    Service,
    /// The first segment of its path.
    Path,
    /// Nothing: it went to the entry.
    Entry,
}

impl Route {
    /// All of them, in the order in which they are tried.
    pub const ALL: [Self; 4] = [Self::Host, Self::Service, Self::Path, Self::Entry];

    /// One word for metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Service => "service",
            Self::Path => "path",
            Self::Entry => "entry",
        }
    }
}

/// A request that names a service which this node does not know.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("no service \"{name}\"")]
pub struct UnknownService {
    /// The name, cut to the length that a name can have.
    pub name: String,
}

impl ServiceName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ServiceName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if is_name(text) { Ok(Self(text.into())) } else { Err(NameError { found: text.to_owned() }) }
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn is_name(text: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

impl Routes {
    /// Routes to `services`; the id of each is its index.
    /// # Errors
    /// [`RoutesError`]: no services, too many, a name twice, an entry that is not one of them.
    pub fn new(services: Vec<ServiceName>, entry: ServiceId) -> Result<Self, RoutesError> {
        check_counts(&services, entry)?;
        let mut by_name = HashMap::with_capacity(services.len());
        for (index, name) in (0..=u16::MAX).zip(&services) {
            let lower = name.0.to_ascii_lowercase().into_boxed_str();
            if by_name.insert(lower, ServiceId(index)).is_some() {
                return Err(RoutesError::Duplicate { name: name.clone() });
            }
        }
        Ok(Self { services, entry, namespace: None, by_name })
    }

    /// These services are those of one namespace of a cluster: `s1.other` is none of them.
    #[must_use]
    pub fn in_namespace(self, namespace: &str) -> Self {
        Self { namespace: Some(namespace.into()), ..self }
    }

    /// Where a request goes, and why.
    ///
    /// - cost: at most three hash look-ups, no allocation unless it fails.
    /// # Errors
    /// [`UnknownService`] if `X-Cellmesh-Service` decides and names no service.
    pub fn route(&self, query: RouteQuery<'_>) -> Result<(ServiceId, Route), UnknownService> {
        if let Some(id) = query.host.and_then(host_label).and_then(|label| self.id_ignoring_case(label)) {
            return Ok((id, Route::Host));
        }
        if let Some(name) = query.service {
            let found = self.id(name).map(|id| (id, Route::Service));
            return found.ok_or_else(|| UnknownService::named(name));
        }
        let named = first_segment(query.path).and_then(|name| self.id(name));
        Ok(named.map_or((self.entry, Route::Entry), |id| (id, Route::Path)))
    }

    /// The service with exactly this name.
    #[must_use]
    pub fn id(&self, name: &str) -> Option<ServiceId> {
        self.id_ignoring_case(name).filter(|id| self.services[usize::from(id.0)].as_str() == name)
    }

    /// The service that the host of a cell's URL names: `s1`, `s1.shop`, `s1.shop.svc`, `s1.shop.svc.cluster.local`, with or
    /// without a port. Another namespace's `s1` is none of ours; without a namespace of our own, any is taken for it.
    ///
    /// - cost: a hash look-up where it is a name as it was given to us.
    #[must_use]
    pub fn id_of_host(&self, host: &str) -> Option<ServiceId> {
        // No name has a dot or a colon: one that is known is all of the host.
        if let Some(id) = self.by_name.get(host) {
            return Some(*id);
        }
        let id = self.id_ignoring_case(host_label(host)?)?;
        let host = host.rsplit_once(':').map_or(host, |(name, _port)| name);
        let mut labels = host.strip_suffix('.').unwrap_or(host).split('.').skip(1);
        let Some(named) = labels.next() else { return Some(id) };
        let is_ours = self.namespace.as_ref().is_none_or(|ours| ours.eq_ignore_ascii_case(named));
        let in_cluster = labels.next().is_none_or(|label| label.eq_ignore_ascii_case("svc"));
        (is_ours && in_cluster).then_some(id)
    }

    /// The service's name; `None` for an id that no service has.
    #[must_use]
    pub fn name(&self, id: ServiceId) -> Option<&ServiceName> {
        self.services.get(usize::from(id.0))
    }

    /// All services; a service's id is its index.
    #[must_use]
    pub fn services(&self) -> &[ServiceName] {
        &self.services
    }

    /// The service for requests that name none.
    #[must_use]
    pub fn entry(&self) -> ServiceId {
        self.entry
    }

    fn id_ignoring_case(&self, name: &str) -> Option<ServiceId> {
        if !is_name(name) {
            return None;
        }
        if !name.bytes().any(|b| b.is_ascii_uppercase()) {
            return self.by_name.get(name).copied();
        }
        let mut lower = [0; NAME_BYTES_MAX];
        let lower = &mut lower[..name.len()];
        lower.copy_from_slice(name.as_bytes());
        lower.make_ascii_lowercase();
        str::from_utf8(lower).ok().and_then(|lower| self.by_name.get(lower).copied())
    }
}

fn check_counts(services: &[ServiceName], entry: ServiceId) -> Result<(), RoutesError> {
    // The last number is not a service's: `egress::ELSEWHERE`.
    const SERVICES_MAX: usize = (1 << 16) - 1;
    if services.is_empty() {
        return Err(RoutesError::NoServices);
    }
    if services.len() > SERVICES_MAX {
        return Err(RoutesError::TooMany { found: services.len(), max: SERVICES_MAX });
    }
    if usize::from(entry.0) >= services.len() {
        return Err(RoutesError::NoSuchEntry { entry: entry.0, services: services.len() });
    }
    Ok(())
}

impl UnknownService {
    pub(crate) fn named(name: &str) -> Self {
        Self { name: name.chars().take(NAME_BYTES_MAX).collect() }
    }
}

/// The first label of a host, without port; `None` for an address.
fn host_label(host: &str) -> Option<&str> {
    if host.starts_with('[') {
        return None;
    }
    let name = host.rsplit_once(':').map_or(host, |(name, _port)| name);
    if name.bytes().all(|b| b.is_ascii_digit() || b == b'.') && name.contains('.') {
        return None;
    }
    name.split('.').next().filter(|label| !label.is_empty())
}

/// `s1` of `/s1`, `/s1/api?x=/` and `/s1?x`.
fn first_segment(path: &str) -> Option<&str> {
    path.strip_prefix('/')?.split(['/', '?']).next()
}

#[cfg(test)]
mod tests;
