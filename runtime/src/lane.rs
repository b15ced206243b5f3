//! A lane: one thread that carries a request from accept to response.
//!
//! ```text
//!          +------------------ one thread, one single-threaded runtime -----------------+
//! client --| ingress tasks --> DPU --ring--> DPA --ring--> worker --> guest calls       |
//!          |                    ^-----ring---- ^------ring----'                         |
//!          +----------------------------------------------------------------------------+
//! ```
//!
//! - [`run`] pumps the modules in a circle until nothing moves, then sleeps in the runtime's reactor until a
//!   connection, a guest call that ended on another thread or a deadline wakes it.
//! - Between co-hosted modules nothing is ever woken: a frame that one pushes is there when the next is pumped.
//! - Lanes share nothing on the way of a request.
//! - Not here: which modules there are and how they are wired ([`crate::cohost`]).

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use cellmesh_dpu::Dpu;
use cellmesh_shm::clock::Nanos;
use cellmesh_shm::port::Progress;
use tokio::sync::{Barrier, Notify, watch};
use tokio::time::{Instant, Sleep};

use crate::cohost::Cohosted;

/// Circles without a look at the network. A busy mesh must not starve the sockets that feed it; a circle that
/// moves something takes some microseconds.
const CIRCLES_MAX: u32 = 16;

/// What a lane is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Serve.
    Serve,
    /// Finish what is in flight, refuse what is new.
    Drain,
    /// End, whatever is in flight.
    Stop,
}

/// Serves until told to stop, or told to drain and done with it.
///
/// - `wake`: wakes the lane for what other threads sent it.
/// - `drained`: where the lanes of a process meet when they are done with their drains.
///
/// # Errors
/// When a module cannot go on.
pub async fn run(
    mut modules: Cohosted,
    wake: Arc<Notify>,
    phase: watch::Receiver<Phase>,
    drained: Arc<Barrier>,
) -> anyhow::Result<()> {
    let dpu = modules.dpu().clone();
    let mut ended = pin!(until_ended(dpu.clone(), phase, drained));
    let mut alarm = Alarm::new();
    loop {
        if pump(&mut modules)?.moved() {
            // Still moving: let the ingress tasks run, then go on.
            tokio::task::yield_now().await;
            continue;
        }
        alarm.set(modules.next_deadline());
        tokio::select! {
            biased;
            () = dpu.work().notified() => {}
            () = wake.notified() => {}
            () = alarm.ring() => {}
            () = &mut ended => return Ok(()),
        }
    }
}

/// Circles until nothing moves, or long enough.
fn pump(modules: &mut Cohosted) -> anyhow::Result<Progress> {
    for _ in 0..CIRCLES_MAX {
        if !modules.pump(Nanos::now())?.moved() {
            return Ok(Progress::Idle);
        }
    }
    Ok(Progress::Moved)
}

/// Ends when the lane is to stop: at once, or after a drain in which every connection was closed. A lane that
/// is done before the others still tells new clients that it drains: they may be given to any lane.
async fn until_ended(dpu: Dpu, mut phase: watch::Receiver<Phase>, drained: Arc<Barrier>) {
    // A sender that is gone means that nobody waits for this lane any more.
    if phase.wait_for(|phase| *phase != Phase::Serve).await.is_ok_and(|phase| *phase == Phase::Drain) {
        let all_drained = async {
            dpu.drain().await;
            drained.wait().await;
            dpu.drain().await;
        };
        tokio::select! {
            () = all_drained => {}
            _ = phase.wait_for(|phase| *phase == Phase::Stop) => {}
        }
    }
}

/// A timer that is set again and again, mostly to a time that is not earlier: then it is left as it is, and one ring too
/// many is cheaper than a timer moved with every request.
struct Alarm {
    at: Option<Nanos>,
    sleep: Pin<Box<Sleep>>,
}

impl Alarm {
    fn new() -> Self {
        Self { at: None, sleep: Box::pin(tokio::time::sleep(Duration::ZERO)) }
    }

    fn set(&mut self, deadline: Option<Nanos>) {
        let Some(deadline) = deadline else { return };
        if self.at.is_some_and(|at| at <= deadline) {
            return;
        }
        self.at = Some(deadline);
        self.sleep.as_mut().reset(Instant::now() + deadline.saturating_since(Nanos::now()));
    }

    async fn ring(&mut self) {
        if self.at.is_none() {
            return std::future::pending().await;
        }
        self.sleep.as_mut().await;
        self.at = None;
    }
}
