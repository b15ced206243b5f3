//! A lane: one thread that pumps modules, and sleeps when none of them has anything to do.
//!
//! ```text
//!          +------------------ one thread, one single-threaded runtime -----------------+
//! client --| ingress tasks --> DPU --ring--> DPA --ring--> worker --> guest calls       |    co-hosted
//!          |                    ^-----ring---- ^------ring----'                         |
//!          +----------------------------------------------------------------------------+
//! ```
//!
//! - [`run`] pumps the modules in a circle until nothing moves, then sleeps in the runtime's reactor until a
//!   connection, a bell, a guest call that ended on another thread or a deadline wakes it.
//! - Before it sleeps it says so to those who could ring for it, and pumps once more: what they published before they
//!   could know is found by that.
//! - Between saying nothing and sleeping a lane may spin for a while, if config says so (`Spin`).
//! - Between co-hosted modules nothing is ever woken: a frame that one pushes is there when the next is pumped.
//! - Lanes share nothing on the way of a request.
//! - Not here: which modules there are and how they are wired (each placement's own [`Modules`]).

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use cellmesh_shm::clock::Nanos;
use cellmesh_shm::port::Progress;
use tokio::time::{Instant, Sleep};

/// Circles without a look at the network. A busy mesh must not starve the sockets that feed it; a circle that
/// moves something takes some microseconds.
const CIRCLES_MAX: u32 = 16;

/// Longest sleep while requests are in flight: if a bell were ever missed, this is how late it would be found.
const BACKSTOP: Duration = Duration::from_millis(100);

/// Longest time between two looks of a lane that spins, unless somebody else ran on its core meanwhile.
const LOOK_MAX: Duration = Duration::from_micros(50);

/// How long a lane does not spin after it saw that somebody else needs its core.
const CORE_TAKEN_PAUSE: Duration = Duration::from_millis(100);

/// Spins in a row that found nothing before spinning pauses, and for how long.
const MISSES_MAX: u32 = 8;
const MISSED_PAUSE: Duration = Duration::from_millis(10);

/// What is pumped on one lane.
pub trait Modules {
    /// One circle through all of them. Never waits.
    ///
    /// # Errors
    /// When the lane cannot go on.
    fn pump(&mut self, now: Nanos) -> anyhow::Result<Progress>;

    /// When [`Modules::pump`] must be called at the latest.
    fn next_deadline(&self) -> Option<Nanos>;

    /// Waits for whatever else is a reason to pump.
    fn woken(&self) -> impl Future<Output = ()>;

    /// Tells those in other processes that they have to ring from now on. Returns whether there are any.
    fn announce_sleep(&mut self) -> bool {
        false
    }

    /// Tells them that they need not.
    fn wake(&mut self) {}

    /// Whether something is in flight to or from another process, so that a missed bell would be felt.
    fn awaits_bell(&self) -> bool {
        false
    }

    /// Whether there is nothing left to do, for ever.
    fn is_done(&self) -> bool {
        false
    }
}

/// Turns of a busy lane between two looks at whether it is to end: some microseconds each.
const ORDERS_EVERY: u32 = 64;

/// Whether a future is ready; else its task is woken when it is.
async fn is_ready(mut future: Pin<&mut impl Future<Output = ()>>) -> bool {
    poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx).is_ready())).await
}

/// Pumps until `until` is ready or the modules are done. `spin`: how long to look for work before a sleep; zero: not at
/// all.
///
/// # Errors
/// When a module cannot go on.
pub async fn run(
    modules: &mut impl Modules,
    spin: Duration,
    until: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let mut until = pin!(until);
    let mut alarm = Alarm::new();
    let mut spin = Spin::new(spin);
    let mut missed = MissedBells::default();
    let mut turns: u32 = 0;
    loop {
        // Orders are heard in each sleep, and by a lane that never sleeps too.
        turns = turns.wrapping_add(1);
        if turns.is_multiple_of(ORDERS_EVERY) && is_ready(until.as_mut()).await {
            return Ok(());
        }
        if pump(modules)?.moved() {
            // Still moving: let the other tasks run, then go on.
            tokio::task::yield_now().await;
            continue;
        }
        if modules.is_done() {
            return Ok(());
        }
        if spin.found(modules).await? {
            continue;
        }
        if modules.announce_sleep() && modules.pump(Nanos::now())?.moved() {
            modules.wake();
            continue;
        }
        let deadline = modules.next_deadline();
        let backstop = modules.awaits_bell().then(|| Nanos::now().saturating_add(BACKSTOP));
        let backstop = backstop.filter(|at| deadline.is_none_or(|deadline| *at < deadline));
        alarm.set(backstop.or(deadline));
        let rung_by_alarm = tokio::select! {
            biased;
            () = modules.woken() => false,
            () = alarm.ring() => true,
            () = &mut until => return Ok(()),
        };
        modules.wake();
        if !rung_by_alarm {
            missed.heard();
        } else if backstop.is_some() {
            missed.not_heard(modules.pump(Nanos::now())?);
        }
    }
}

/// Bells that should have rung and did not: there must be none, and each is said in the log.
///
/// - The backstop found something that nobody had rung for. Whoever published it may be between that and ringing, so
///   it counts only when the next sleep ends without a bell too.
#[derive(Debug, Default)]
struct MissedBells {
    count: u64,
    is_suspected: bool,
}

impl MissedBells {
    fn heard(&mut self) {
        self.is_suspected = false;
    }

    /// `found`: what a look after the backstop found.
    fn not_heard(&mut self, found: Progress) {
        if self.is_suspected {
            self.count += 1;
            tracing::error!(missed_bells = self.count, "a bell was missed, the backstop found its frames");
        }
        self.is_suspected = found.moved();
    }
}

/// Circles until nothing moves, or long enough.
fn pump(modules: &mut impl Modules) -> anyhow::Result<Progress> {
    for _ in 0..CIRCLES_MAX {
        if !modules.pump(Nanos::now())?.moved() {
            return Ok(Progress::Idle);
        }
    }
    Ok(Progress::Moved)
}

/// Looking for work instead of sleeping: a wake-up across cores costs a hundred times what a look does.
///
/// - Only where a core is free: time that is missing between two looks was somebody else's, and ends the spinning for a
///   while. Two threads that spin on one core keep each other from what they wait for.
/// - Only where it helps: after some spins in vain it pauses, so an idle lane uses no processor time.
struct Spin {
    most: Duration,
    misses: u32,
    paused_until: Nanos,
}

impl Spin {
    fn new(most: Duration) -> Self {
        Self { most, misses: 0, paused_until: Nanos(0) }
    }

    /// Whether something moved while it spun.
    async fn found(&mut self, modules: &mut impl Modules) -> anyhow::Result<bool> {
        if self.most.is_zero() {
            return Ok(false);
        }
        let start = Nanos::now();
        if start < self.paused_until {
            return Ok(false);
        }
        let mut last = start;
        loop {
            if modules.pump(last)?.moved() {
                self.misses = 0;
                return Ok(true);
            }
            // Sockets and timers have their turn too.
            tokio::task::yield_now().await;
            let now = Nanos::now();
            if now.saturating_since(last) > LOOK_MAX {
                self.paused_until = now.saturating_add(CORE_TAKEN_PAUSE);
                return Ok(false);
            }
            if now.saturating_since(start) > self.most {
                self.miss(now);
                return Ok(false);
            }
            last = now;
        }
    }

    fn miss(&mut self, now: Nanos) {
        self.misses += 1;
        if self.misses >= MISSES_MAX {
            self.misses = 0;
            self.paused_until = now.saturating_add(MISSED_PAUSE);
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Always has something to do.
    struct Busy;

    impl Modules for Busy {
        fn pump(&mut self, _: Nanos) -> anyhow::Result<Progress> {
            Ok(Progress::Moved)
        }

        fn next_deadline(&self) -> Option<Nanos> {
            None
        }

        async fn woken(&self) {
            unreachable!("it never sleeps");
        }
    }

    /// A lane that never sleeps hears that it is to end.
    #[tokio::test(flavor = "current_thread")]
    async fn busy_lane_hears_its_orders() {
        let (told, to_end) = tokio::sync::oneshot::channel();
        tokio::task::LocalSet::new()
            .run_until(async {
                tokio::task::spawn_local(async move { told.send(()) });
                run(&mut Busy, Duration::ZERO, async { to_end.await.expect("it is told") }).await
            })
            .await
            .expect("nothing fails");
    }

    /// One look that found something may have come between publishing and ringing; two in a row may not.
    #[test]
    fn bells_count_as_missed_when_they_never_ring() {
        let mut missed = MissedBells::default();
        missed.not_heard(Progress::Moved);
        missed.heard();
        missed.not_heard(Progress::Moved);
        assert_eq!(missed.count, 0);
        missed.not_heard(Progress::Idle);
        assert_eq!(missed.count, 1);
        missed.not_heard(Progress::Idle);
        assert_eq!(missed.count, 1);
    }
}
