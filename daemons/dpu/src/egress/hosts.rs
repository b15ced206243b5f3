//! Names and addresses of hosts: what they look like, and which a cell may call. Pure.
//!
//! - Host names do not know upper and lower case, and a dot at the end means nothing here.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// Longest host name, in bytes. Source: RFC 1035, section 2.3.4.
const HOST_BYTES_MAX: usize = 253;

/// A host and the port that was named with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Authority<'a> {
    /// A name or an address, without the brackets of IPv6.
    pub host: &'a str,
    /// The port, where one was named.
    pub port: Option<u16>,
}

impl<'a> Authority<'a> {
    /// Takes `host`, `host:port`, `[v6]` or `[v6]:port` apart. `None`: it is none of these.
    #[must_use]
    pub fn parse(text: &'a str) -> Option<Self> {
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (host, after) = rest.split_once(']')?;
                host.parse::<Ipv6Addr>().ok()?;
                (host, if after.is_empty() { None } else { Some(after.strip_prefix(':')?) })
            }
            None => match text.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (text, None),
            },
        };
        let digits = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
        let port = match port {
            Some(port) => Some(port.parse().ok().filter(|number| *number > 0 && digits(port))?),
            None => None,
        };
        (is_host(host) || host.parse::<IpAddr>().is_ok()).then_some(Self { host, port })
    }
}

impl fmt::Display for Authority<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let brackets = self.host.contains(':');
        f.write_str(if brackets { "[" } else { "" })?;
        f.write_str(self.host)?;
        f.write_str(if brackets { "]" } else { "" })?;
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

fn is_host(text: &str) -> bool {
    let text = text.strip_suffix('.').unwrap_or(text);
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    text.len() <= HOST_BYTES_MAX && text.split('.').all(is_label)
}

/// Addresses of one host that config may name.
const ADDRESSES_MAX: usize = 16;

/// Where a host is: an address with its port, or several. Never empty, none twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addresses(Box<[SocketAddr]>);

impl Addresses {
    /// All of them, as they were written.
    #[must_use]
    pub fn all(&self) -> &[SocketAddr] {
        &self.0
    }
}

impl From<SocketAddr> for Addresses {
    fn from(address: SocketAddr) -> Self {
        Self([address].into())
    }
}

impl<'de> Deserialize<'de> for Addresses {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(AddressesVisitor)
    }
}

struct AddressesVisitor;

impl<'de> Visitor<'de> for AddressesVisitor {
    type Value = Addresses;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"address:port\", or a list of 1 to {ADDRESSES_MAX} different ones")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Addresses, E> {
        text.parse::<SocketAddr>().map(Addresses::from).map_err(E::custom)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Addresses, A::Error> {
        let mut all = Vec::new();
        while let Some(address) = list.next_element::<SocketAddr>()? {
            if all.contains(&address) || all.len() == ADDRESSES_MAX {
                return Err(serde::de::Error::invalid_length(all.len() + 1, &self));
            }
            all.push(address);
        }
        if all.is_empty() {
            return Err(serde::de::Error::invalid_length(0, &self));
        }
        Ok(Addresses(all.into()))
    }
}

/// How a host is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// In cleartext.
    Http,
    /// Over TLS.
    Https,
}

impl Scheme {
    /// As a URL begins; `None`: we speak nothing that is called so.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Http, Self::Https].into_iter().find(|scheme| text.eq_ignore_ascii_case(scheme.as_str()))
    }

    /// Its name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// Where it is spoken unless a port is named. Source: RFC 9110, sections 4.2.1 and 4.2.2.
    #[must_use]
    pub fn port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// What a cell may call beyond the services of its application: `host`, `host:port`, or `*.domain` for all below it.
/// Without a port all ports are meant.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HostPattern {
    /// In lower case, without a dot at the end. For `*.domain` it is `.domain`.
    host: Box<str>,
    port: Option<u16>,
}

/// Why a text is no [`HostPattern`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("host {found:?}: must be a host, host:port, or *.domain")]
pub struct PatternError {
    found: String,
}

impl FromStr for HostPattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        let bad = || PatternError { found: text.to_owned() };
        let below = text.strip_prefix("*.");
        let authority = Authority::parse(below.unwrap_or(text)).ok_or_else(bad)?;
        let host = plain(authority.host);
        if below.is_some() && host.parse::<IpAddr>().is_ok() {
            return Err(bad());
        }
        let host = if below.is_some() { format!(".{host}") } else { host };
        Ok(Self { host: host.into(), port: authority.port })
    }
}

impl<'de> Deserialize<'de> for HostPattern {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl HostPattern {
    /// Whether `authority` is meant; without a port it is at that of `scheme`.
    #[must_use]
    pub fn matches(&self, scheme: Scheme, authority: Authority<'_>) -> bool {
        let host = plain(authority.host);
        let is_host =
            if self.host.starts_with('.') { host.ends_with(&*self.host) } else { host == *self.host };
        is_host && self.port.is_none_or(|port| port == authority.port.unwrap_or(scheme.port()))
    }
}

fn plain(host: &str) -> String {
    host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase()
}

/// Where metadata services of clouds are, beside link-local addresses: Azure, Alibaba, Oracle; AWS and Google in IPv6.
const METADATA: [IpAddr; 5] = [
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)),
];

/// Whether nothing is at an address that a cell should reach unless config names it: this host, loopback, link-local,
/// multicast, metadata services of clouds.
///
/// An IPv4 address that is written as IPv6 is judged as what it is. Source: IANA special-purpose address registries.
#[must_use]
pub fn is_inward(address: IpAddr) -> bool {
    if METADATA.contains(&address) {
        return true;
    }
    match address {
        IpAddr::V4(v4) => {
            v4.is_loopback()
                || v4.is_link_local()
                || v4.is_multicast()
                || v4.is_broadcast()
                || v4.octets()[0] == 0
        }
        IpAddr::V6(v6) => {
            let embedded = v6.to_ipv4().map(IpAddr::V4).or_else(|| translated(v6));
            v6.is_loopback()
                || v6.is_unspecified()
                || v6.is_multicast()
                || v6.is_unicast_link_local()
                || v6.segments()[0] & 0xffc0 == 0xfec0
                || embedded.is_some_and(is_inward)
        }
    }
}

/// The IPv4 address that a translator takes out of an IPv6 address: `64:ff9b::/96` and `64:ff9b:1::/48` (RFC 6052 and
/// RFC 8215, in its last bytes), `2002::/16` (RFC 3056).
fn translated(address: Ipv6Addr) -> Option<IpAddr> {
    let bytes = address.octets();
    let at = match address.segments() {
        [0x64, 0xff9b, 0, 0, 0, 0, ..] | [0x64, 0xff9b, 1, ..] => 12,
        [0x2002, ..] => 2,
        _ => return None,
    };
    let inside: [u8; 4] = bytes[at..at + 4].try_into().ok()?;
    Some(IpAddr::from(inside))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn authority(text: &str) -> Authority<'_> {
        Authority::parse(text).unwrap_or_else(|| panic!("{text}"))
    }

    /// Hosts, addresses and ports; nothing else.
    #[test]
    fn authorities_are_taken_apart() {
        assert_eq!(authority("a.b:80"), Authority { host: "a.b", port: Some(80) });
        assert_eq!(authority("[::1]:8080"), Authority { host: "::1", port: Some(8080) });
        assert_eq!(authority("10.0.0.1"), Authority { host: "10.0.0.1", port: None });
        assert_eq!(authority("[fe80::1]:1").to_string(), "[fe80::1]:1");
        for bad in [
            "", ":80", "a:", "a:0", "a:+1", "a:99999", "a..b", "a b", "u@h", "::1", "[::1", "[a]", "a/b",
            "[::1]x",
        ] {
            assert_eq!(Authority::parse(bad), None, "{bad}");
        }
    }

    /// A host is at one address or at several; not at none, nor at one twice.
    #[test]
    fn hosts_have_addresses() {
        let read = |json: &str| serde_json::from_str::<Addresses>(json);
        let all = |json: &str| read(json).expect("addresses").all().len();
        assert_eq!((all(r#""10.0.0.1:80""#), all(r#"["10.0.0.1:80", "[::1]:80"]"#)), (1, 2));
        let many: Vec<String> = (1..=17).map(|port| format!("\"10.0.0.1:{port}\"")).collect();
        for bad in
            ["\"10.0.0.1\"", "[]", r#"["10.0.0.1:80", "10.0.0.1:80"]"#, &format!("[{}]", many.join(","))]
        {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    /// A pattern means what it names, at its port or at any.
    #[test]
    fn patterns_match_what_they_name() {
        let matches = |pattern: &str, host: &str| {
            pattern.parse::<HostPattern>().expect("a pattern").matches(Scheme::Http, authority(host))
        };
        assert!(matches("api.example.com", "API.example.com.:8443"));
        assert!(matches("api.example.com:80", "api.example.com"));
        assert!(!matches("api.example.com:80", "api.example.com:81"));
        let secure: HostPattern = "api.example.com:443".parse().expect("a pattern");
        assert!(secure.matches(Scheme::Https, authority("api.example.com")));
        assert!(!secure.matches(Scheme::Http, authority("api.example.com")));
        assert!(matches("*.example.com", "a.b.example.com"));
        assert!(!matches("*.example.com", "example.com"));
        assert!(!matches("*.example.com", "evilexample.com"));
        assert!("*.10.0.0.1".parse::<HostPattern>().is_err());
        assert!("*".parse::<HostPattern>().is_err());
    }

    /// However an inward address is written, it is one.
    #[test]
    fn inward_addresses_are_known() {
        for address in [
            "127.0.0.1",
            "127.9.9.9",
            "0.0.0.0",
            "0.1.2.3",
            "169.254.169.254",
            "224.0.0.1",
            "255.255.255.255",
            "::1",
            "::",
            "fe80::1",
            "ff02::1",
            "fd00:ec2::254",
            "::ffff:169.254.169.254",
            "::127.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b:1::7f00:1",
            "2002:7f00:1::",
            "fec0::1",
            "168.63.129.16",
            "fd20:ce::254",
        ] {
            assert!(is_inward(address.parse().expect("an address")), "{address}");
        }
        for address in ["10.0.0.1", "192.168.1.1", "8.8.8.8", "fd00::1", "2001:db8::1", "::ffff:10.0.0.1"] {
            assert!(!is_inward(address.parse().expect("an address")), "{address}");
        }
    }
}
