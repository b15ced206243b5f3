//! The round trip of one cache line between two cores: the limit for two threads that spin.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

const TRIPS: u64 = 20_000;

/// On a line of its own.
#[repr(align(128))]
#[derive(Default)]
struct Line(AtomicU64);

/// ns for one round trip, the mean of many.
pub(crate) fn round_trip() -> f64 {
    let (ping, pong) = (Line::default(), Line::default());
    std::thread::scope(|threads| {
        threads.spawn(|| {
            for trip in 1..=TRIPS {
                wait_for(&ping, trip);
                pong.0.store(trip, Ordering::Release);
            }
        });
        let start = Instant::now();
        for trip in 1..=TRIPS {
            ping.0.store(trip, Ordering::Release);
            wait_for(&pong, trip);
        }
        start.elapsed().as_secs_f64() * 1e9 / TRIPS as f64
    })
}

fn wait_for(line: &Line, value: u64) {
    let mut looks = 0u32;
    while line.0.load(Ordering::Acquire) != value {
        looks += 1;
        // Where both threads share a core, spinning without end keeps the other from its turn.
        if looks.is_multiple_of(4096) {
            std::thread::yield_now();
        }
        std::hint::spin_loop();
    }
}
