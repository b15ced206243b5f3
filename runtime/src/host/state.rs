//! What a store holds beside the guest: its limits, its deadline, its WASI context and its config.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use cellmesh_shm::clock::Nanos;
use tokio::sync::Notify;
use wasmtime::component::{HasSelf, Linker, ResourceTable};
use wasmtime::{ResourceLimiter, StoreContextMut, UpdateDeadline};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

use super::bindings::cellmesh::cell::{config, types};
use super::cell::{Cell, CellSetup};
use super::engine::TABLE_ELEMENTS_MAX;
use super::guest_log::Cause;

/// Flags through which a running call and the side that polls it talk; one set per instance.
#[derive(Debug, Default)]
pub struct CallFlags {
    /// The call yielded because a tick passed, not because it waits for something.
    ticked: AtomicBool,
    /// Nobody wants the result any more: end at the next tick.
    cancelled: AtomicBool,
    /// Wakes a call that waits (for a clock, for a file) when it is cancelled.
    wake: Notify,
}

impl CallFlags {
    /// Whether the last `Pending` was a tick; clears the flag.
    pub fn take_ticked(&self) -> bool {
        self.ticked.swap(false, Ordering::Relaxed)
    }

    /// Ends the call: at its next tick if it is running, at once if it waits.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
        self.wake.notify_one();
    }

    /// Whether [`CallFlags::cancel`] was called; the instance must not be used again then.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    /// Ends when the call is cancelled.
    pub async fn cancelled(&self) {
        while !self.is_cancelled() {
            self.wake.notified().await;
        }
    }
}

/// The data of a cell's store.
pub(super) struct State {
    wasi: WasiCtx,
    table: ResourceTable,
    setup: Arc<CellSetup>,
    pub(super) flags: Arc<CallFlags>,
    /// When the running call has to end.
    pub(super) deadline: Nanos,
    /// For which request.
    pub(super) cause: Cause,
    /// The guest asked for more linear memory than it may have; the trap that follows is told as this.
    pub(super) memory_refused: bool,
    memory: MemoryHeld,
}

/// Bytes of linear memory that the instances of a cell have, on one lane. A cheap handle.
#[derive(Debug, Clone, Default)]
pub struct MemoryInUse(Arc<AtomicU64>);

impl MemoryInUse {
    /// How many there are now.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        // Relaxed, here and below: a counter that nothing else depends on.
        self.0.load(Ordering::Relaxed)
    }
}

/// Those of one instance, given back when it is dropped.
struct MemoryHeld {
    of_cell: MemoryInUse,
    bytes: u64,
}

impl MemoryHeld {
    /// Whether a memory of the instance may grow so far, all of its memories together having at most `bytes_max`. Counted from here on.
    ///
    /// One that fails nevertheless, for want of memory of the machine, stays counted as long as the instance lives: wasmtime
    /// says of failed growths not which they were, and tells of some that were never asked for here.
    fn grow(&mut self, now: usize, desired: usize, bytes_max: usize) -> bool {
        let more = desired.saturating_sub(now) as u64;
        if self.bytes + more > bytes_max as u64 {
            return false;
        }
        self.bytes += more;
        self.of_cell.0.fetch_add(more, Ordering::Relaxed);
        true
    }
}

impl Drop for MemoryHeld {
    fn drop(&mut self) {
        self.of_cell.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl State {
    pub(super) fn new(cell: &Cell, wasi: WasiCtx, cause: Cause) -> Self {
        Self {
            wasi,
            table: ResourceTable::with_capacity(0),
            setup: Arc::clone(cell.setup()),
            flags: Arc::default(),
            deadline: Nanos::MAX,
            cause,
            memory_refused: false,
            memory: MemoryHeld { of_cell: cell.memory().clone(), bytes: 0 },
        }
    }
}

/// A call that is past its deadline; the guest sees a trap.
#[derive(Debug, thiserror::Error)]
#[error("past its time limit")]
pub(super) struct PastDeadline;

/// What happens when a call is running while the epoch ticks: it ends if it is too late or unwanted, else
/// it gives its thread back once.
pub(super) fn on_tick(mut store: StoreContextMut<'_, State>) -> wasmtime::Result<UpdateDeadline> {
    let state = store.data_mut();
    if state.flags.is_cancelled() || Nanos::now() >= state.deadline {
        return Err(PastDeadline.into());
    }
    state.flags.ticked.store(true, Ordering::Relaxed);
    Ok(UpdateDeadline::Yield(1))
}

impl ResourceLimiter for State {
    /// A guest that asks for too much traps at once: an allocator that is told "no" would trap a little
    /// later, with a message that hides the reason.
    fn memory_growing(&mut self, now: usize, desired: usize, own: Option<usize>) -> wasmtime::Result<bool> {
        if own.is_some_and(|own| desired > own) {
            // Beyond what the guest itself has said of this memory: it is told "no", as anywhere.
            return Ok(false);
        }
        if self.memory.grow(now, desired, self.setup.limits.memory_bytes_max) {
            return Ok(true);
        }
        self.memory_refused = true;
        Err(wasmtime::Error::msg("past its memory limit"))
    }

    fn table_growing(&mut self, _: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        Ok(desired <= TABLE_ELEMENTS_MAX)
    }
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl types::Host for State {}

impl config::Host for State {
    fn service(&mut self) -> String {
        self.setup.service.to_string()
    }

    fn get(&mut self, key: String) -> Option<String> {
        self.setup.config.get(&key).cloned()
    }
}

/// Offers a cell what it may import.
///
/// # Errors
/// wasmtime's, if two interfaces of the same name are added.
pub(super) fn add_imports(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    wasmtime_wasi::p2::add_to_linker_async(linker)?;
    config::add_to_linker::<_, HasSelf<_>>(linker, |state| state)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All memories of an instance share its limit, and give everything back with it.
    #[test]
    fn memories_share_the_limit() {
        let of_cell = MemoryInUse::default();
        let mut held = MemoryHeld { of_cell: of_cell.clone(), bytes: 0 };
        assert!(held.grow(0, 60, 100) && held.grow(0, 30, 100));
        assert!(!held.grow(60, 71, 100), "the other has 30");
        assert!(held.grow(60, 70, 100));
        assert_eq!(of_cell.bytes(), 100);
        drop(held);
        assert_eq!(of_cell.bytes(), 0);
    }
}
