//! Internal thread pool: runs the guest calls that lasted longer than a tick.
//!
//! - A call runs for one tick at a time; then it goes behind the others that wait, so that short calls overtake long
//!   ones and no cell can take the pool from another.
//! - The queue holds at most as many calls as there are instances: each call holds one.
//! - A call that waits for the host goes back to its lane and holds no thread.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::call::{Call, Polled, ToLane};

/// The pool. Cheap to clone; its threads end when the last clone is gone.
#[derive(Debug, Clone)]
pub struct Pool {
    owner: Arc<Owner>,
}

/// Closes the queue when the last [`Pool`] is dropped.
#[derive(Debug)]
struct Owner(Arc<Queue>, usize);

#[derive(Debug, Default)]
struct Queue {
    calls: Mutex<Calls>,
    arrived: Condvar,
}

#[derive(Debug, Default)]
struct Calls {
    waiting: VecDeque<Call>,
    /// Threads that run a call.
    busy: usize,
    closed: bool,
}

impl Pool {
    /// Starts `threads` threads, at least one.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn start(threads: usize) -> io::Result<Self> {
        let threads = threads.max(1);
        let queue = Arc::new(Queue::default());
        let pool = Self { owner: Arc::new(Owner(Arc::clone(&queue), threads)) };
        for index in 0..threads {
            let queue = Arc::clone(&queue);
            std::thread::Builder::new().name(format!("pool-{index}")).spawn(move || run(&queue))?;
        }
        Ok(pool)
    }

    /// Calls that no thread runs now.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.owner.0.lock().waiting.len()
    }

    /// Threads that it has.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.owner.1
    }

    /// Of these, those that run a call.
    #[must_use]
    pub fn busy(&self) -> usize {
        self.owner.0.lock().busy
    }

    /// Queues a call behind the others.
    pub(crate) fn submit(&self, call: Call) {
        self.owner.0.push(call);
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.0.lock().closed = true;
        self.0.arrived.notify_all();
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Calls> {
        // Nothing that can panic runs under the lock.
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, call: Call) {
        self.lock().waiting.push_back(call);
        self.arrived.notify_one();
    }

    /// The next call; none when the pool is closed. `ended`: how many the thread has ended since it last asked, one at most.
    fn next(&self, ended: usize) -> Option<Call> {
        let mut calls = self.lock();
        calls.busy -= ended;
        loop {
            if let Some(call) = calls.waiting.pop_front() {
                calls.busy += 1;
                return Some(call);
            }
            if calls.closed {
                return None;
            }
            calls = self.arrived.wait(calls).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The call to run after `call` has had its turn: itself if nobody waits.
    fn take_turns(&self, call: Call) -> Call {
        let mut calls = self.lock();
        match calls.waiting.pop_front() {
            Some(next) => {
                calls.waiting.push_back(call);
                next
            }
            None => call,
        }
    }
}

fn run(queue: &Queue) {
    let mut ended = 0;
    while let Some(mut call) = queue.next(ended) {
        while let Some(ticked) = run_for_a_tick(call) {
            call = queue.take_turns(ticked);
        }
        ended = 1;
    }
}

/// Runs `call` until it ends, waits or a tick passes; returns it in the last case.
fn run_for_a_tick(call: Call) -> Option<Call> {
    let lane = call.lane();
    // Clocks and files that the guest asks for belong to its lane's runtime.
    let _runtime = lane.runtime().enter();
    match call.poll_on_pool() {
        Polled::Ticked(call) => return Some(call),
        Polled::Waiting(call) => lane.send(ToLane::Park(call)),
        Polled::Finished(finished) => lane.send(ToLane::Finished(finished)),
    }
    None
}
