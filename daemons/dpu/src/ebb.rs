//! Gives back to the system what a wave of connections has left, once it has ebbed.
//!
//! - mimalloc 3 looks for pages that can go while it is asked for memory: each 10,000th time that it is asked for a block that is not small
//!   (`generic_collect`), and what has been empty for a second goes then (`purge_delay`). A lane that nobody asks any more would keep what
//!   thousands of connections had.
//! - So a lane that has lost many asks for a little, some times, and then no more: a lane without clients sleeps.
//! - Another allocator makes this useless and harmless.

use std::cell::Cell;
use std::hint::black_box;
use std::rc::Rc;
use std::time::Duration;

/// It is worth it when so many connections have ended since the last time: half a megabyte where their bodies were slow.
const WAVE: u32 = 32;
/// Between two sweeps of a lane.
const PAUSE: Duration = Duration::from_millis(500);
/// Sweeps of a round: two of them make mimalloc look, and the last two come when its second is over. While a wave lasts there is
/// round after round.
const SWEEPS: u32 = 5;
/// Parts of a sweep, between which the lane does other things, blocks that each of them asks for, and bytes of each: more than mimalloc calls small.
const PARTS: usize = 5;
const BLOCKS: usize = 1000;
const BYTES: usize = 2048;

/// Of one lane. A cheap handle, for one thread.
#[derive(Debug, Clone)]
pub(crate) struct Ebb {
    /// Between two sweeps.
    pause: Duration,
    ended: Rc<Ended>,
}

#[derive(Debug, Default)]
struct Ended {
    /// Since the last round began.
    connections: Cell<u32>,
    is_sweeping: Cell<bool>,
}

impl Default for Ebb {
    fn default() -> Self {
        Self::new(PAUSE)
    }
}

impl Ebb {
    fn new(pause: Duration) -> Self {
        Self { pause, ended: Rc::default() }
    }

    /// A connection of this lane has ended. To be called on its tasks.
    pub(crate) fn connection_ended(&self) {
        let ended = self.ended.connections.get().saturating_add(1);
        self.ended.connections.set(ended);
        if ended >= WAVE && !self.ended.is_sweeping.replace(true) {
            tokio::task::spawn_local(self.clone().sweeps());
        }
    }

    async fn sweeps(self) {
        while self.ended.connections.get() >= WAVE {
            self.ended.connections.set(0);
            for _ in 0..SWEEPS {
                tokio::time::sleep(self.pause).await;
                for _ in 0..PARTS {
                    sweep();
                    tokio::task::yield_now().await;
                }
            }
        }
        self.ended.is_sweeping.set(false);
    }
}

/// cost: some 50 us.
fn sweep() {
    for _ in 0..BLOCKS {
        drop(black_box(Vec::<u8>::with_capacity(BYTES)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn is_over(ebb: &Ebb) {
        let until_over = async {
            while ebb.ended.is_sweeping.get() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), until_over).await.expect("an end");
        assert_eq!(Rc::strong_count(&ebb.ended), 1);
    }

    /// Few connections start nothing; a wave starts one round of sweeps, which ends when it has ebbed, and the next wave another.
    #[tokio::test]
    async fn sweeps_end_with_the_wave() {
        let ebb = Ebb::new(Duration::from_millis(1));
        tokio::task::LocalSet::new()
            .run_until(async {
                for _ in 0..2 {
                    (1..WAVE).for_each(|_| ebb.connection_ended());
                    assert!(!ebb.ended.is_sweeping.get());
                    (0..WAVE).for_each(|_| ebb.connection_ended());
                    assert!(ebb.ended.is_sweeping.get());
                    assert_eq!(Rc::strong_count(&ebb.ended), 2, "one round");
                    is_over(&ebb).await;
                    assert_eq!(ebb.ended.connections.get(), 0);
                }
            })
            .await;
    }

    /// What ends during a round has another, if that is a wave, and counts for the next one else.
    #[tokio::test]
    async fn sweeps_last_as_long_as_the_wave() {
        let ebb = Ebb::new(Duration::from_millis(1));
        tokio::task::LocalSet::new()
            .run_until(async {
                for (more, left) in [(WAVE, 0), (WAVE - 1, WAVE - 1)] {
                    (0..WAVE).for_each(|_| ebb.connection_ended());
                    while ebb.ended.connections.get() > 0 {
                        tokio::task::yield_now().await;
                    }
                    (0..more).for_each(|_| ebb.connection_ended());
                    is_over(&ebb).await;
                    assert_eq!(ebb.ended.connections.get(), left);
                }
            })
            .await;
    }
}
