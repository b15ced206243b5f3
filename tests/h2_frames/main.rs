//! HTTP/2 frame by frame: what a client may send, what it may not, and what comes of it.
//!
//! - The client is our own ([`client`]): it sends what no library would.
//! - What has to come is what RFC 9113 and RFC 7541 say; a case names its section. Where they leave a choice the case
//!   allows the choice. Where the node does otherwise the case is in [`differences`], with the reason.
//! - [`floods`]: what costs a client little and a server much must end, or cost little.

mod cases;
mod client;
mod connection;
mod differences;
mod floods;
mod flow;
mod frame;
mod header_blocks;
mod hpack;
mod requests;
mod streams;

use cellmesh_tests::{Node, Run};

/// Streams that one connection may have open.
const STREAMS_MAX: u32 = 100;

/// One service that does as it is told.
fn node() -> Node {
    Run::app(
        r#"
        [dpu]
        h2_streams_max = 100
        [[cell]]
        component = "{cells}/unruly.wasm"
        services = ["s1"]
        "#,
    )
    .start()
}
