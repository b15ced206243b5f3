//! Chaos: a node of many processes under steady load, of which one after the other is killed, stopped or turned hostile.
//!
//! ```text
//! clients --> dpu --> dpa --> offers x3 --> price x3, stock x3        small requests, each with its own number
//!         '---------------> echo x3                                  16 MiB there and back, meanwhile
//! ```
//!
//! - Every request ends, with the right answer or with a clear error, and errors only where something had just been done
//!   to a process, and only of the kind that this explains.
//! - After each round the service is back, without anybody's help but that of whoever restarts processes; at the end
//!   nothing is left over: descriptors, memory, files, requests in custody.
//! - A short version runs with all tests. `cargo xtask chaos` runs the long one, with the numbers that
//!   `docs/reliability.md` quotes.

mod books;
mod load;
mod mesh;
mod rounds;

use rounds::{Deed, chaos};

/// A worker that dies costs what was in flight on it; its twins take everything else.
#[test]
fn killed_workers_cost_what_was_in_flight_on_them() {
    chaos(Deed::KillWorker, 15, 1000);
}

/// All workers of a service die: what needs it is refused until one is back.
#[test]
fn killed_service_is_back_when_a_worker_is() {
    chaos(Deed::KillService, 4, 200);
}

/// A new worker comes, the old one is told to end: nobody notices anything.
#[test]
fn replaced_workers_cost_nothing() {
    chaos(Deed::ReplaceWorker, 12, 400);
}

/// A DPA that dies costs what was in flight; everybody comes back by themselves when there is a new one.
#[test]
fn killed_dpa_is_found_again_by_everybody() {
    chaos(Deed::KillDpa, 4, 200);
}

/// A DPU that dies costs its connections; workers notice nothing.
#[test]
fn killed_dpu_costs_its_connections() {
    chaos(Deed::KillDpu, 4, 200);
}

/// A worker that stands still is let go when its ring does not move, and is taken back when it goes on.
#[test]
fn stopped_worker_is_let_go_and_taken_back() {
    chaos(Deed::StopWorker, 3, 100);
}

/// A DPA that stands still delays what it has, up to the deadlines; nobody is let go for it, and all is well when it goes on.
#[test]
fn stopped_dpa_delays_requests_up_to_their_deadlines() {
    chaos(Deed::StopDpa, 4, 40);
}

/// A worker that writes garbage into its ring is let go, at no cost to anybody else.
#[test]
fn garbage_in_a_ring_costs_only_who_wrote_it() {
    chaos(Deed::Garbage, 20, 1000);
}
