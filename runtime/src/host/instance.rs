//! An instance of a cell, and one call of it.

use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use cellmesh_graph::{BuiltRequests, Plan};
use cellmesh_shm::clock::Nanos;
use wasmtime::Store;

use super::bindings::Cell as Exports;
use super::cell::Cell;
use super::convert;
use super::guest_log::Cause;
pub use super::state::CallFlags;
use super::state::{PastDeadline, State, on_tick};

/// What is asked of a cell.
#[derive(Debug)]
pub enum GuestCall {
    /// To answer a request. The arena is `method | target | headers | body`.
    Handle {
        /// The request's head and body, contiguous.
        arena: Bytes,
        /// Length of the method.
        method_len: u32,
        /// Length of the target.
        target_len: u32,
        /// Length of the header lines.
        headers_len: u32,
    },
    /// To run an internal step.
    RunStep(StepCall),
    /// To make the requests of an egress step.
    BuildRequests(StepCall),
}

/// A function of the cell and what it is given.
#[derive(Debug)]
pub struct StepCall {
    /// The cell's own number for the function.
    pub function: u32,
    /// Arguments fixed when the graph was made.
    pub args: Bytes,
    /// Results of earlier steps.
    pub inputs: Vec<StepInput>,
}

/// A step result as an input.
#[derive(Debug)]
pub struct StepInput {
    /// Name of the step.
    pub id: Bytes,
    /// Its status.
    pub status: u16,
    /// Why it failed; none if it did not.
    pub error: Option<Box<str>>,
    /// Header lines.
    pub headers: Bytes,
    /// The body, if it was asked for.
    pub body: Option<Bytes>,
}

/// What a cell gave back: head, and where its body is.
#[derive(Debug)]
pub struct Returned {
    /// Status, unchecked.
    pub status: u16,
    /// Why a step failed; none if it did not.
    pub error: Option<Box<str>>,
    /// Header lines, unchecked.
    pub headers: Bytes,
    /// The body.
    pub body: ReturnedBody,
}

/// A body that a cell gave back.
#[derive(Debug)]
pub enum ReturnedBody {
    /// These bytes.
    Bytes(Bytes),
    /// The request's.
    OfRequest,
    /// An input's.
    OfInput(u32),
}

/// What a handler decided.
#[derive(Debug)]
pub enum Decision {
    /// This is the response.
    Response(Returned),
    /// This is to be done; not validated yet.
    Graph(Box<Plan>),
}

/// The result of a [`GuestCall`], of the same kind.
#[derive(Debug)]
pub enum GuestReturn {
    /// Of [`GuestCall::Handle`].
    Handled(Decision),
    /// Of [`GuestCall::RunStep`].
    Stepped(Returned),
    /// Of [`GuestCall::BuildRequests`]: the requests, or the error's text.
    Built(Result<BuiltRequests, Box<str>>),
}

/// Why a call did not return. The instance is gone in every case.
#[derive(Debug, thiserror::Error)]
pub enum CellFault {
    /// The guest trapped.
    #[error("the cell trapped: {0}")]
    Trap(String),
    /// It took too long, or its request was given up.
    #[error("the cell was stopped: past its time limit")]
    Deadline,
    /// It wanted more memory than it may have.
    #[error("the cell was stopped: past its memory limit of {memory_bytes_max} bytes")]
    Memory {
        /// The limit.
        memory_bytes_max: usize,
    },
    /// No instance could be made, for want of descriptors or memory, or all are busy.
    #[error("no instance of the cell: {0}")]
    Instance(String),
    /// What it returned breaks the contract.
    #[error("the cell broke its contract: {0}")]
    Contract(String),
}

impl CellFault {
    /// The status that answers for it: 504 when time was the reason, 503 when room was, else 500.
    #[must_use]
    pub fn status(&self) -> u16 {
        match self {
            Self::Deadline => 504,
            Self::Instance(_) => 503,
            Self::Trap(_) | Self::Memory { .. } | Self::Contract(_) => 500,
        }
    }

    /// What [`CellFault::kind`] can say.
    pub const KINDS: [&'static str; 5] = ["trap", "deadline", "memory", "instance", "contract"];

    /// One word for logs and metrics, of [`CellFault::KINDS`].
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Trap(_) => "trap",
            Self::Deadline => "deadline",
            Self::Memory { .. } => "memory",
            Self::Instance(_) => "instance",
            Self::Contract(_) => "contract",
        }
    }
}

/// An instance that is ready to be called. Dropping it gives its slot back to the pool.
pub struct Instance(Box<Parts>);

/// Boxed: an instance goes from hand to hand with each call.
struct Parts {
    cell: Cell,
    store: Store<State>,
    exports: Exports,
}

/// A call on its way: what became of its instance, and what it returned.
pub type CallFuture =
    Pin<Box<dyn Future<Output = (Option<Instance>, Result<GuestReturn, CellFault>)> + Send>>;

impl std::fmt::Debug for Instance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Instance").finish_non_exhaustive()
    }
}

impl Instance {
    /// Flags of this instance's calls.
    #[must_use]
    pub fn flags(&self) -> &Arc<CallFlags> {
        &self.0.store.data().flags
    }
}

impl Cell {
    /// Runs `call` on `instance`, or on a new one that gets `flags`, until `deadline`.
    ///
    /// - `headers`: those of the request that it is made for, for the log.
    ///
    /// The future yields at every tick (see [`CallFlags::take_ticked`]) and may be polled by another thread each time.
    ///
    /// # Errors
    /// [`CellFault`]; the instance is given back only with a clean return, and never when config says
    /// that every call gets a fresh one.
    pub fn call(
        &self,
        instance: Option<Instance>,
        flags: &Arc<CallFlags>,
        call: GuestCall,
        headers: Bytes,
        deadline: Nanos,
    ) -> CallFuture {
        if let Some(mut instance) = instance {
            instance.prepare(headers, deadline);
            return Box::pin(instance.call(call));
        }
        let (cell, flags) = (self.clone(), Arc::clone(flags));
        Box::pin(async move {
            match cell.instantiate(&flags, &headers, deadline).await {
                Ok(mut instance) => {
                    instance.prepare(headers, deadline);
                    instance.call(call).await
                }
                Err(fault) => (None, Err(fault)),
            }
        })
    }

    async fn instantiate(
        &self,
        flags: &Arc<CallFlags>,
        headers: &Bytes,
        deadline: Nanos,
    ) -> Result<Instance, CellFault> {
        let refused = |error: wasmtime::Error| CellFault::Instance(format!("{error:#}"));
        let limits = &self.setup().limits;
        let cause = Cause::default();
        cause.set(headers.clone());
        let mut state = State::new(self, self.wasi(&cause).map_err(refused)?, cause);
        state.flags = Arc::clone(flags);
        state.deadline = deadline;
        let mut store = Store::new(self.engine().wasmtime(), state);
        store.limiter(|state| state);
        store.epoch_deadline_callback(on_tick);
        store.set_epoch_deadline(1);
        store.set_hostcall_fuel(limits.lift_bytes_max);
        store.set_max_component_handles(COMPONENT_HANDLES_MAX);
        match self.pre().instantiate_async(&mut store).await {
            Ok(exports) => Ok(Instance(Box::new(Parts { cell: self.clone(), store, exports }))),
            Err(error) if error.is::<wasmtime::Trap>() || error.is::<PastDeadline>() => {
                Err(self.fault(&store, &error))
            }
            Err(error) => Err(refused(error)),
        }
    }

    fn fault(&self, store: &Store<State>, error: &wasmtime::Error) -> CellFault {
        if error.is::<PastDeadline>() {
            return CellFault::Deadline;
        }
        if store.data().memory_refused {
            return CellFault::Memory { memory_bytes_max: self.setup().limits.memory_bytes_max };
        }
        match error.downcast_ref::<wasmtime::Trap>() {
            Some(trap) => CellFault::Trap(trap.to_string()),
            None => CellFault::Trap(format!("{:#}", root_message(error))),
        }
    }
}

/// Handles (streams, pollables, files) that a guest may hold open.
const COMPONENT_HANDLES_MAX: usize = 1024;

/// The last cause: wasmtime puts a backtrace of the guest before it, which says little to a reader of a response.
fn root_message(error: &wasmtime::Error) -> String {
    error.root_cause().to_string()
}

impl Instance {
    /// Sets what holds for the next call: for which request it is, and when it has to end.
    fn prepare(&mut self, headers: Bytes, deadline: Nanos) {
        let Parts { cell, store, .. } = &mut *self.0;
        let state = store.data_mut();
        state.deadline = deadline;
        state.cause.set(headers);
        store.set_epoch_deadline(1);
        store.set_hostcall_fuel(cell.setup().limits.lift_bytes_max);
    }

    async fn call(mut self, call: GuestCall) -> (Option<Self>, Result<GuestReturn, CellFault>) {
        let returned = self.0.run(&call).await;
        let Parts { cell, store, .. } = &*self.0;
        match returned {
            Ok(returned) => {
                // An instance that waits keeps nothing of the request.
                store.data().cause.set(Bytes::new());
                let is_fresh = cell.setup().fresh_instances;
                ((!is_fresh).then_some(self), returned)
            }
            Err(error) => (None, Err(cell.fault(store, &error))),
        }
    }
}

impl Parts {
    /// What a step is given has to fit the memory of the cell, and a span. An input may be named many times, so its inputs can have
    /// more than any message.
    fn inputs_bytes_max(&self) -> usize {
        self.cell.setup().limits.memory_bytes_max.min(u32::MAX as usize)
    }

    async fn run(&mut self, call: &GuestCall) -> wasmtime::Result<Result<GuestReturn, CellFault>> {
        let handler = self.exports.cellmesh_cell_handler();
        match call {
            GuestCall::Handle { arena, method_len, target_len, headers_len } => {
                let request = convert::request(arena, *method_len, *target_len, *headers_len);
                let answer = handler.call_handle(&mut self.store, request, arena).await?;
                Ok(convert::decision(answer).map(GuestReturn::Handled))
            }
            GuestCall::RunStep(step) | GuestCall::BuildRequests(step)
                if convert::inputs_len(step) > self.inputs_bytes_max() =>
            {
                Ok(Err(CellFault::Memory { memory_bytes_max: self.cell.setup().limits.memory_bytes_max }))
            }
            GuestCall::RunStep(step) => {
                let (arena, args, inputs) = convert::step_inputs(step);
                let output =
                    handler.call_run_step(&mut self.store, step.function, args, &inputs, &arena).await?;
                Ok(convert::step_output(output).map(GuestReturn::Stepped))
            }
            GuestCall::BuildRequests(step) => {
                let (arena, args, inputs) = convert::step_inputs(step);
                let built = handler
                    .call_build_requests(&mut self.store, step.function, args, &inputs, &arena)
                    .await?;
                Ok(convert::built(built).map(GuestReturn::Built))
            }
        }
    }
}
