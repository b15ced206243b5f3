//! End-to-end tests of cellmesh over real sockets.
