//! The attribute macros of cellmesh-guest.
