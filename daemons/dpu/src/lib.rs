//! The L7 sidecar of a cellmesh node: ingress, routing and the JSON bridge.
//!
//! ```text
//! Acceptor --> LaneIntake --> serve_connection --> Dpu --port--> DPA
//! ```
//!
//! - [`Acceptor`]: one accept loop, connections to the lane with the fewest.
//! - [`Tls`]: certificate and key, for [`Acceptor::with_tls`].
//! - [`serve_connection`]: one connection, HTTP/1.1, HTTP/2 or JSON.
//! - [`Routes`]: which service a request is for.
//! - [`Dpu`]: one lane's sidecar, pumped by the lane; [`Dpu::request`] is for clients in the same process.
//! - [`DpuConfig`]: every limit; [`policy`]: what one service asks for.
//!
//! It owns everything that needs to understand a request, and sees workers only through the ring to
//! the DPA. A lane wires it up so:
//!
//! ```no_run
//! # use std::sync::Arc;
//! # use cellmesh_dpu::{Acceptor, Dpu, DpuConfig, Routes};
//! # use cellmesh_shm::{clock::Nanos, link::Link, port::Progress};
//! # async fn lane(link: Link, routes: Arc<Routes>, services: Vec<&str>, listener: std::net::TcpListener) {
//! let config = DpuConfig::default();
//! let (acceptor, mut intakes) = Acceptor::new(listener, 1, &config);
//! let dpu = Dpu::new(routes, config);
//! dpu.attach(link, 1024, services);
//! let intake = intakes.remove(0).serve(dpu.clone());
//! tokio::task::spawn_local(intake); // on the lane's LocalSet
//! let accepting = tokio::spawn(acceptor.run());
//! while !dpu.is_draining() {
//!     while dpu.pump(Nanos::now()) == Progress::Moved { /* pump the DPA and the worker too */ }
//!     dpu.work().notified().await;
//! }
//! accepting.abort(); // closes the listener
//! dpu.drain().await; // while the pumps go on elsewhere, within a bound
//! # }
//! ```

pub mod config;
pub mod egress;
pub mod histogram;
pub mod origin;
pub mod policy;
pub mod routes;
pub mod spans;
pub mod trace_context;
pub mod units;

mod acceptor;
mod bridge;
mod dpu;
mod ebb;
mod faults;
mod files;
mod forward;
mod ingress;
mod request_id;
mod tls;

pub use self::acceptor::{Acceptor, ConnectionCaps, LaneIntake, TurnedAway};
pub use self::config::{ConfigError, DpuConfig};
pub use self::dpu::{Dpu, DpuBounds, DpuStats, Request, RouteStats, ServiceStats};
pub use self::faults::Reason;
pub use self::histogram::Histogram;
pub use self::ingress::{HeadProblem, serve_connection};
pub use self::routes::{Route, RouteQuery, Routes, RoutesError, ServiceName, UnknownService};
pub use self::tls::{Tls, TlsProblem, TlsProblems, Validity};
