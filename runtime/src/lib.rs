//! cellmesh.
