//! `/metrics` of a process.

use std::net::SocketAddr;

use crate::Wire;

/// The value of a sample, as it is now. `name`: with its labels, without the prefix `cellmesh_`.
///
/// # Panics
/// If there is no such sample.
#[must_use]
pub fn sample(admin: SocketAddr, name: &str) -> u64 {
    value(admin, name).parse().expect("a whole number")
}

/// As [`sample`], of one that counts seconds.
///
/// # Panics
/// If there is no such sample.
#[must_use]
pub fn seconds(admin: SocketAddr, name: &str) -> f64 {
    value(admin, name).parse().expect("a number")
}

fn value(admin: SocketAddr, name: &str) -> String {
    let mut wire = Wire::connect(admin);
    let text = wire.get("admin", "/metrics").ok().text().to_owned();
    let of_name =
        |line: &str| line.strip_prefix("cellmesh_")?.strip_prefix(name)?.strip_prefix(' ').map(str::to_owned);
    let value = text.lines().find_map(of_name);
    value.unwrap_or_else(|| panic!("no {name} in {text}"))
}
