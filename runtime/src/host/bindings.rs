//! Bindings generated from `wit/cell.wit`. Private to the host: everything else sees our own types.
#![allow(
    missing_docs,
    unreachable_pub,
    reason = "generated from wit/cell.wit, where everything is documented"
)]

wasmtime::component::bindgen!({
    path: "../wit",
    world: "cell",
    exports: { default: async },
});
