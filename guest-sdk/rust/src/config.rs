//! What the operator's config says to this cell.
//!
//! Values do not change while an instance lives. Outside a component, in tests, they are those that the
//! test has [set](crate::testing::set_config).

#[cfg(target_arch = "wasm32")]
use crate::bindings::cellmesh::cell::config as source;
#[cfg(not(target_arch = "wasm32"))]
use crate::testing::config as source;

/// The name of the service that this instance serves.
pub fn service() -> String {
    source::service()
}

/// The value that the config gives to `key`. cost: a call to the host and a copy; keep what is parsed from
/// it.
pub fn get(key: &str) -> Option<String> {
    source::get(key)
}
