//! Hostile processes against a DPA that serves honest ones meanwhile: R-6 to R-12 of the threat model.
//!
//! ```text
//!   a test                                       its peers: this binary once more, one process each
//!   DpaHost and its lane   <---attach socket-->  a role: what `CELLMESH_ROLE` names
//!   the sidecar of the lane: makes the calls
//! ```
//!
//! - A peer has what the socket gave it and nothing else: no memory, no descriptor of the DPA.
//! - One test at a time: what is left behind is counted in descriptors and memory of the test's process.
//! - `CELLMESH_HOSTILE_SCALE=100 cargo test --release -p cellmesh-dpa --test hostile` does each of them so many times.
//! - Nothing here asserts how long something took: a bound on time only ends a hang. How much slower others become
//!   next to a hostile peer is for a benchmark.

mod comings;
mod forgeries;
mod memory;
mod node;
mod random;
mod starving;
mod versions;
mod writes;

use std::path::Path;

use cellmesh_shm::attach::{Channel, Hello, Role};
use cellmesh_shm::link::LinkFds;
use cellmesh_shm::peer::{AttachError, Hostile, Manner, attach};

/// What a role is given: where the DPA listens, and the numbers that its test has chosen.
struct Task<'a> {
    socket: &'a Path,
    numbers: &'a [u64],
}

/// Not a test: what the peers of the tests do. Passes at once in a process that has no role.
#[test]
fn role() {
    node::play(|role, task| match role {
        "answer" => starving::answer(task, Manner::Honest),
        "late" => starving::answer(task, Manner::Late(starving::LATE)),
        "silent" => starving::answer(task, Manner::Silent),
        "dead" => starving::answer(task, Manner::Dead),
        "scribble" => writes::scribble(task),
        "flip" => writes::flip(task),
        "forge" => forgeries::forge(task),
        "tricks" => memory::tricks(task),
        "punch" => memory::punch(task),
        "flood" => starving::flood(task),
        "mute" => starving::mute(task),
        "jam" => starving::jam(task),
        "come-and-go" => comings::come_and_go(task),
        "babble" => comings::babble(task),
        "speak-version" => versions::speak_version(task),
        "post-version" => versions::post_version(task),
        "meet-version" => versions::meet_version(task),
        other => panic!("no role is called {other}"),
    });
}

impl Task<'_> {
    /// Attaches as a worker of this service.
    fn attach(&self, service: &str) -> Result<(Channel, LinkFds), AttachError> {
        let (channel, attached) = attach(self.socket, &hello(service))?;
        let link = attached.links.into_iter().next().expect("one lane was asked for");
        Ok((channel, link))
    }

    /// Attaches as a hostile worker; none once the test is over.
    fn attach_hostile(&self) -> Option<(Channel, Hostile)> {
        let (channel, fds) = self.attach(node::HOSTILE_NAME).ok()?;
        Some((channel, Hostile::open(fds).expect("segments of the DPA")))
    }
}

fn hello(service: &str) -> Hello {
    Hello { name: "peer".into(), role: Role::Worker, services: vec![service.into()], lanes: 1, profile: None }
}
