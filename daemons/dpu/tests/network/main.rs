//! The DPU over real sockets, with a real DPA and a scripted worker behind it, all on one lane.

mod acceptor;
mod client;
mod closed;
mod drain;
mod gone;
mod http1;
mod http2;
mod json;
mod limits;
mod node;
mod pki;
mod policy;
mod relay;
mod smuggling;
mod tls;
mod tries;
