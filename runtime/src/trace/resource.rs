//! What all spans of a process have in common: the resource of OpenTelemetry, as the environment says it.
//!
//! - Of what is malformed nothing is used, and that is said: half of a list would pass for all of it.
//!
//! Source: OpenTelemetry specification 1.x, "Resource SDK" and "Environment Variable Specification".

use std::fmt::Write as _;

/// `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resource {
    /// Names and values; each name once, the last that was said.
    pub attributes: Vec<(String, String)>,
    /// Why the list was left out.
    pub malformed: Option<String>,
}

/// What a service is called if all spans are to have one name.
pub(super) const SERVICE_NAME: &str = "service.name";
/// What has the name of the service then.
pub(super) const SERVICE: &str = "cellmesh.service";

impl Resource {
    /// - `variable`: the value of a variable of the environment, if it is set.
    #[must_use]
    pub fn of_environment(variable: impl Fn(&str) -> Option<String>) -> Self {
        let mut resource = Self::default();
        match variable("OTEL_RESOURCE_ATTRIBUTES").as_deref().map(pairs) {
            None => {}
            Some(Ok(pairs)) => pairs.into_iter().for_each(|(name, value)| resource.set(&name, value)),
            Some(Err(why)) => {
                resource.malformed = Some(format!("OTEL_RESOURCE_ATTRIBUTES is left out: {why}"));
            }
        }
        // A name that says nothing is as none, in both variables.
        resource.attributes.retain(|(name, value)| name != SERVICE_NAME || !value.is_empty());
        // It has precedence.
        if let Some(name) = variable("OTEL_SERVICE_NAME").filter(|name| !name.is_empty()) {
            resource.set(SERVICE_NAME, name);
        }
        resource
    }

    /// With what a process knows of itself, where the environment does not say it.
    #[must_use]
    pub(super) fn of_this_process(mut self) -> Self {
        for (name, value) in
            [("service.version", env!("CARGO_PKG_VERSION").to_owned()), ("service.instance.id", random_id())]
        {
            if self.get(name).is_none() {
                self.set(name, value);
            }
        }
        self
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    fn set(&mut self, name: &str, value: String) {
        self.attributes.retain(|(known, _)| known != name);
        self.attributes.push((name.to_owned(), value));
    }
}

/// `name=value,name=value`, both percent-encoded.
fn pairs(text: &str) -> Result<Vec<(String, String)>, String> {
    let pair = |pair: &str| {
        let wrong = |what: &str| format!("{:?} {what}", pair.trim());
        let (name, value) = pair.split_once('=').ok_or_else(|| wrong("is no name=value"))?;
        let decode = |text: &str| decoded(text.trim()).ok_or_else(|| wrong("is not percent-encoded UTF-8"));
        let (name, value) = (decode(name)?, decode(value)?);
        if name.is_empty() { Err(wrong("has no name")) } else { Ok((name, value)) }
    };
    text.split(',').filter(|pair| !pair.trim().is_empty()).map(pair).collect()
}

fn decoded(text: &str) -> Option<String> {
    let is_escape =
        |rest: &str| rest.as_bytes().get(..2).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit));
    let is_well_formed = text.split('%').skip(1).all(is_escape);
    let bytes = percent_encoding::percent_decode_str(text);
    is_well_formed.then(|| bytes.decode_utf8().ok()).flatten().map(Into::into)
}

/// A UUID of version 4: no two processes have the same, on whatever machines. Source: RFC 9562.
fn random_id() -> String {
    /// Bits of the version and of the variant, and what is in them.
    const SET: [(u128, u128); 2] = [(0xF << 76, 0x4 << 76), (0b11 << 62, 0b10 << 62)];
    let mut random = [0; 16];
    // Without the kernel's there is still the time of the start.
    let random =
        getrandom::fill(&mut random).map_or_else(|_| fastrand::u128(..), |()| u128::from_ne_bytes(random));
    let bits = SET.iter().fold(random, |bits, (mask, set)| (bits & !mask) | set);
    let digits = format!("{bits:032x}");
    let mut id = digits[..8].to_owned();
    for part in [&digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]] {
        let _ = write!(id, "-{part}");
    }
    id
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resource(variables: &[(&str, &str)]) -> Resource {
        Resource::of_environment(|name| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).into())
        })
    }

    /// Names and values are decoded; the name of the service has a variable of its own.
    #[test]
    fn environment_names_the_resource() {
        let list =
            "k8s.pod.name=cellmesh-0, team = m%C3%BCsli%2C%20tea,service.name=a,empty=,,service.version=9";
        let found = resource(&[("OTEL_RESOURCE_ATTRIBUTES", list), ("OTEL_SERVICE_NAME", "shop")]);
        assert_eq!(found.malformed, None);
        let found = found.of_this_process();
        for (name, value) in [
            ("k8s.pod.name", "cellmesh-0"),
            ("team", "m\u{fc}sli, tea"),
            ("empty", ""),
            ("service.name", "shop"),
            ("service.version", "9"),
        ] {
            assert_eq!(found.get(name), Some(value), "{name}");
        }
        assert_eq!(found.attributes.len(), 6, "and an id: {found:?}");
    }

    /// A name without text is none: spans have that of their service, or what the other variable says.
    #[test]
    fn empty_names_are_none() {
        let list = ("OTEL_RESOURCE_ATTRIBUTES", "service.name=,team=a");
        assert_eq!(resource(&[list]).get("service.name"), None);
        assert_eq!(resource(&[list]).get("team"), Some("a"));
        assert_eq!(resource(&[list, ("OTEL_SERVICE_NAME", "shop")]).get("service.name"), Some("shop"));
        let named = resource(&[("OTEL_RESOURCE_ATTRIBUTES", "service.name=a"), ("OTEL_SERVICE_NAME", "")]);
        assert_eq!(named.get("service.name"), Some("a"));
    }

    /// Of a malformed list nothing is used, and what is wrong in it is said.
    #[test]
    fn malformed_lists_are_left_out() {
        for list in ["a=1,b", "a=1,b=%zz", "a=1,b=%F", "a=1,=b", "a=1,b=%FF"] {
            let found = resource(&[("OTEL_RESOURCE_ATTRIBUTES", list), ("OTEL_SERVICE_NAME", "shop")]);
            assert_eq!(found.attributes, [("service.name".to_owned(), "shop".to_owned())]);
            let why = found.malformed.expect(list);
            assert!(why.starts_with("OTEL_RESOURCE_ATTRIBUTES is left out: \""), "{why}");
        }
    }

    /// Each process has an id of its own, which is a UUID.
    #[test]
    fn ids_are_uuids() {
        let [one, other] = [random_id(), random_id()];
        assert_ne!(one, other);
        let parts: Vec<usize> = one.split('-').map(str::len).collect();
        assert_eq!(parts, [8, 4, 4, 4, 12]);
        assert_eq!(&one[14..15], "4");
        assert!("89ab".contains(&one[19..20]), "{one}");
    }
}
