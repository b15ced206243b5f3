//! What wit-bindgen makes of `wit/cell.wit`: records, the imports and the `export!` macro.
//!
//! Private to the SDK, apart from the macros' own expansions, which reach it through `__private`.

#![allow(
    unsafe_code,
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::undocumented_unsafe_blocks,
    clippy::allow_attributes_without_reason,
    clippy::cast_possible_truncation,
    clippy::wildcard_enum_match_arm,
    reason = "generated code"
)]

wit_bindgen::generate!({
    path: "../../wit",
    world: "cell",
    pub_export_macro: true,
    default_bindings_module: "::cellmesh_guest::__private::bindings",
});
