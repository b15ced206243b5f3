//! The epoch ticker: one thread that lets long guest calls notice that time has passed.
//!
//! ```text
//! ticker: sleep, tick; nobody beat the pulse for IDLE_TICKS ticks? say parked, look once more, park
//! lane:   beat the pulse, poll a guest call; the ticker was parked? unpark it
//! ```
//!
//! - A call that is running when the epoch ticks yields once (see [`crate::call`]) and beats again when it goes on: the
//!   ticker never parks while a guest runs. A tick costs running guests nothing but one load per loop iteration and
//!   function entry.
//! - Where nothing runs nothing ticks: an idle process is asleep.

use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::sync::{Arc, OnceLock};
use std::thread::{JoinHandle, Thread};
use std::time::Duration;

use super::HostEngine;

/// Ticks without a beat before the ticker parks: a park and its end cost more than some ticks.
const IDLE_TICKS: u32 = 16;

/// Longest time that the ticker is parked; it bounds what a beat that was missed could cost.
const PARKED_MAX: Duration = Duration::from_secs(1);

/// Says that guests run. Shared by all lanes.
#[derive(Debug, Default)]
pub struct Pulse {
    beaten: AtomicBool,
    parked: AtomicBool,
    ticker: OnceLock<Thread>,
}

impl Pulse {
    /// A guest is about to run.
    ///
    /// - cost: a load; once per tick a store and a fence, and once after a pause a system call.
    #[inline]
    pub fn beat(&self) {
        if !self.beaten.load(Ordering::Relaxed) {
            self.beat_first();
        }
    }

    #[cold]
    fn beat_first(&self) {
        self.beaten.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst); // Pairs with: Pulse::park.
        if self.parked.load(Ordering::Relaxed)
            && let Some(ticker) = self.ticker.get()
        {
            ticker.unpark();
        }
    }

    /// Parks this thread, the ticker's, unless there was a beat.
    fn park(&self) {
        self.parked.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst); // Pairs with: Pulse::beat_first.
        if !self.beaten.load(Ordering::Relaxed) {
            std::thread::park_timeout(PARKED_MAX);
        }
        self.parked.store(false, Ordering::Relaxed);
    }
}

/// Ticks the epochs of engines until it is dropped.
#[derive(Debug)]
pub struct Ticker {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Ticker {
    /// Starts ticking every `period` in which guests run.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn start(engines: &[HostEngine], pulse: &Arc<Pulse>, period: Duration) -> std::io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let engines: Vec<_> = engines.iter().map(|engine| engine.wasmtime().weak()).collect();
        let (stopped, pulse) = (Arc::clone(&stop), Arc::clone(pulse));
        let thread = std::thread::Builder::new().name("epoch-ticker".into()).spawn(move || {
            // The pulse's first ticker; another would keep its own time and need no unparking.
            let _ = pulse.ticker.set(std::thread::current());
            let mut idle = 0;
            while !stopped.load(Ordering::Relaxed) {
                std::thread::sleep(period);
                for engine in &engines {
                    let Some(engine) = engine.upgrade() else { return };
                    engine.increment_epoch();
                }
                idle = if pulse.beaten.swap(false, Ordering::Relaxed) { 0 } else { idle + 1 };
                if idle >= IDLE_TICKS {
                    pulse.park();
                }
            }
        })?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // The thread does nothing that can panic; if it did, there is nothing left to stop.
            let _ = thread.join();
        }
    }
}
