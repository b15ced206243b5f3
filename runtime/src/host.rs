//! Cell host: turns component files into instances that can be called.
//!
//! ```text
//! component file,  --> artifacts (compile once, in a child) --> Cell --> Instance --> Call
//! or one of a           cache on disk, sealed                    one per   one store   one export
//! registry (oci.rs)                                              service   each        running
//! ```
//!
//! - A cell may import what `wit/cell.wit` lists and nothing else (`imports.rs`).
//! - A call that traps, is too slow or too big ends with a [`CellFault`] and takes its instance with it:
//!   no store is used again after anything but a clean return.
//! - Nothing is compiled while requests are served.
//! - Not here: which step runs when ([`cellmesh_graph`]), where a call runs ([`crate::call`]).

mod artifacts;
mod bindings;
mod cell;
mod compile;
mod convert;
mod engine;
mod guest_log;
mod imports;
mod inspect;
mod instance;
mod oci;
mod scratch;
mod seal;
mod source;
mod state;
mod ticker;

pub use artifacts::{ArtifactCache, ArtifactError};
pub use cell::{Cell, CellLimits, CellSetup, Grants, LoadError};
pub use compile::{CompileError, CompileLimits, Compiler, compile_child_main};
pub use engine::{
    EngineError, EngineLimits, HostEngine, MAPPINGS_PER_INSTANCE, idle_instances_max, mappings_max,
};
pub use inspect::{Unfit, inspect};
pub use instance::{
    CallFlags, CallFuture, CellFault, Decision, GuestCall, GuestReturn, Instance, Returned, ReturnedBody,
    StepCall, StepInput,
};
pub use oci::{CredentialsError, ManifestError, OciError, Reference, ReferenceError, RegistrySettings};
pub use scratch::Scratch;
pub use seal::SealError;
pub use source::ComponentSource;
pub use state::MemoryInUse;
pub use ticker::{Pulse, Ticker};
