//! The work that the internal service of a muBench service does.

use serde::{Deserialize, Serialize};

use crate::body::ResponseBody;

mod cpu;
mod disk;
mod memory;
mod numbers;
mod pi;
mod sleep;

pub(crate) use cpu::Cpu;
pub(crate) use disk::Disk;
pub(crate) use memory::Memory;
pub(crate) use numbers::{Count, Range};
pub(crate) use sleep::Sleep;

/// The internal service: work, then a body.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Internal {
    pub(crate) stress: Stress,
    pub(crate) body: ResponseBody,
}

/// What is to be done, in this order; only what has `run` set is here.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Stress {
    pub(crate) cpu: Option<Cpu>,
    pub(crate) memory: Option<Memory>,
    pub(crate) disk: Option<Disk>,
    pub(crate) sleep: Option<Sleep>,
}

impl Stress {
    pub(crate) fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}
