//! The L7 sidecar of a cellmesh node: ingress, routing and the JSON bridge.
