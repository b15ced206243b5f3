//! The deeds: `name` or `name:number`.

use std::hint::black_box;
use std::time::{Duration, Instant};

use cellmesh_guest::prelude::*;

/// Does `deed` and, if it comes back, says so.
///
/// | deed | what it does |
/// |---|---|
/// | `trap` | panics |
/// | `loop` | writes `begun` to standard output, then computes for ever |
/// | `memory` | allocates for ever |
/// | `stack` | calls itself for ever |
/// | `exit` | ends the program |
/// | `spin:n` | computes for n milliseconds |
/// | `sleep:n` | writes `begun`, then sleeps for n milliseconds |
/// | `big:n` | answers with n bytes |
/// | `slept:n` | sleeps, then writes `slept` |
/// | `log:n` | writes n lines to standard output |
/// | `status:n` | answers with that status |
/// | `error` | returns an error |
/// | anything else | nothing |
pub(crate) fn commit(deed: &str) -> Result<Response, String> {
    let (name, number) = deed.split_once(':').unwrap_or((deed, ""));
    let number: u32 = number.parse().unwrap_or_default();
    let time = Duration::from_millis(number.into());
    match name {
        "trap" => panic!("as asked"),
        "loop" => {
            println!("begun");
            spin(Duration::MAX);
        }
        "memory" => grow(),
        "stack" => return Ok(Response::text(recurse(u64::from(number)).to_string())),
        "exit" => std::process::exit(1),
        "spin" => spin(time),
        "sleep" => {
            println!("begun");
            std::thread::sleep(time);
        }
        "slept" => {
            std::thread::sleep(time);
            println!("slept");
        }
        "big" => return Ok(Response::bytes(vec![b'x'; number as usize])),
        "log" => (0..number).for_each(|line| println!("line {line}")),
        "status" => return Ok(Response::new(u16::try_from(number).unwrap_or(0))),
        "error" => return Err("an error, as asked".to_owned()),
        _ => {}
    }
    Ok(Response::text("done\n"))
}

fn spin(time: Duration) {
    let start = Instant::now();
    let mut turns = 0_u64;
    while start.elapsed() < time {
        // Mostly computing: a host call in each turn would be a place to stop at.
        for _ in 0..10_000 {
            turns = black_box(turns.wrapping_mul(3).wrapping_add(1));
        }
    }
}

fn grow() {
    let mut all = Vec::new();
    loop {
        all.push(black_box(vec![1_u8; 1 << 20]));
    }
}

/// Not a tail call, so that no compiler makes a loop of it.
#[allow(unconditional_recursion, reason = "that is what is asked for")]
fn recurse(depth: u64) -> u64 {
    black_box([depth; 8])[3].wrapping_add(recurse(depth + 1))
}
