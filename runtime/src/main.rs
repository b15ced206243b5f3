//! The `cellmesh` command.
fn main() {}
