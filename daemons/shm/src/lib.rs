//! Shared-memory rings, frames and messages between the parts of a cellmesh node.
