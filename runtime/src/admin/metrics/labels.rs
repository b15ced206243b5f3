//! Labels of metrics, and all that each can say where the program knows that.

use cellmesh_dpu::policy::PolicyStats;
use cellmesh_dpu::{HeadProblem, Reason, Route, TurnedAway};
use cellmesh_shm::frame::FrameError;
use cellmesh_shm::message::Fault;

use super::Reloads;
use crate::host::CellFault;
use crate::trace::Exported;
use crate::worker::CallKind;

/// A label. Those of one name that say different things are different ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Label {
    /// A service of the config.
    Service,
    /// A service of the config, or that it is none.
    Target,
    /// The name of a step, or `other`.
    Step,
    /// Versions of what runs.
    Version,
    Wasmtime,
    Route,
    Code,
    RefusedFor,
    PolicyRefusedFor,
    ConnectionRefusedFor,
    HeadRefusedFor,
    FrameRejectedFor,
    EvictedFor,
    CallKind,
    CellFault,
    RingKind,
    Ring,
    Fault,
    Reloaded,
    Traced,
}

impl Label {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Service => "service",
            Self::Target => "target",
            Self::Step => "step",
            Self::Version => "version",
            Self::Wasmtime => "wasmtime",
            Self::Route => "route",
            Self::Code => "code",
            Self::RefusedFor
            | Self::PolicyRefusedFor
            | Self::ConnectionRefusedFor
            | Self::HeadRefusedFor
            | Self::FrameRejectedFor
            | Self::EvictedFor => "reason",
            Self::CallKind | Self::CellFault | Self::RingKind => "kind",
            Self::Ring => "ring",
            Self::Fault => "fault",
            Self::Reloaded | Self::Traced => "outcome",
        }
    }

    /// All that it can say, if the program knows that.
    pub(super) fn values(self) -> Option<Vec<&'static str>> {
        match self {
            Self::Service | Self::Target | Self::Step | Self::Version | Self::Wasmtime => None,
            Self::Route => Some(Route::ALL.map(Route::name).into()),
            Self::Code => Some(super::CODES.into()),
            Self::RefusedFor => Some(Reason::ALL.map(Reason::word).into()),
            Self::PolicyRefusedFor => Some(PolicyStats::REASONS.into()),
            Self::ConnectionRefusedFor => Some(TurnedAway::REASONS.into()),
            Self::HeadRefusedFor => Some(HeadProblem::ALL.map(HeadProblem::word).into()),
            Self::FrameRejectedFor => Some(FrameError::REASONS.into()),
            Self::EvictedFor => Some(super::EVICTED_FOR.into()),
            Self::CallKind => Some(CallKind::ALL.map(CallKind::name).into()),
            Self::CellFault => Some(CellFault::KINDS.into()),
            Self::RingKind => Some(super::RING_KINDS.into()),
            Self::Ring => Some(super::RINGS.into()),
            Self::Fault => Some(super::faults().map(Fault::code).into()),
            Self::Reloaded => Some(Reloads::OUTCOMES.into()),
            Self::Traced => Some(Exported::OUTCOMES.into()),
        }
    }
}
