//! Calls of workers that have a task of their own, by the slot that waits for them.

use std::cell::RefCell;
use std::collections::HashMap;

use cellmesh_shm::ids::SlotId;
use tokio::task::AbortHandle;

/// Tasks of one kind. One that nobody waits for any more is stopped.
#[derive(Debug, Default)]
pub(super) struct Tasks(RefCell<HashMap<SlotId, AbortHandle>>);

impl Tasks {
    pub(super) fn open(&self) -> usize {
        self.0.borrow().len()
    }

    pub(super) fn begin(&self, slot: SlotId, task: AbortHandle) {
        self.0.borrow_mut().insert(slot, task);
    }

    /// The task for `slot` has ended. Whether anybody still waits for it.
    pub(super) fn end(&self, slot: SlotId) -> bool {
        self.0.borrow_mut().remove(&slot).is_some()
    }

    /// Nobody waits for the answer any more.
    pub(super) fn cancel(&self, slot: SlotId) {
        if let Some(task) = self.0.borrow_mut().remove(&slot) {
            task.abort();
        }
    }

    /// Nobody waits for any answer any more.
    pub(super) fn cancel_all(&self) {
        self.0.borrow_mut().drain().for_each(|(_, task)| task.abort());
    }
}
