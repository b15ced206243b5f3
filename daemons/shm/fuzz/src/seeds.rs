//! Where fuzzing starts: what correct peers write, and mutations of it.
//!
//! - Made when they are wanted and never kept: `cargo run --example seeds`.
//! - The images are those of an honest port's segment, taken each time that it has published.

use std::io;
use std::path::Path;

use cellmesh_shm::attach::{FromDpa, Hello, LinkWelcome, Role, ToDpa, Welcome};
use cellmesh_shm::frame::{FrameHeader, FrameKind};
use cellmesh_shm::ids::ServiceId;
use cellmesh_shm::peer::Hostile;
use cellmesh_shm::port::{Arrived, Port};

use crate::node::{Node, port_config};
use crate::random::Random;
use crate::sides::{LARGE, Sides, request, response};
use crate::{IMAGES_MAX, PROFILE, SPEC};

/// Mutations of each seed.
const MUTATIONS: usize = 32;

/// A target.
struct Target {
    name: &'static str,
    run: fn(&[u8]),
    /// Where it starts.
    seeds: fn() -> Vec<Vec<u8>>,
}

const TARGETS: [Target; 5] = [
    Target { name: "frame", run: crate::frame, seeds: frames },
    Target { name: "packet", run: crate::packet, seeds: packets },
    Target { name: "ring", run: crate::ring, seeds: of_port },
    Target { name: "port", run: crate::port, seeds: of_port },
    Target { name: "pump", run: crate::pump, seeds: of_pump },
];

/// Which lengths of a header a kind uses.
pub(crate) struct Carries {
    /// `payload_len` and the parts of the head.
    pub(crate) payload: bool,
    /// `frame_len`, and bytes behind the header.
    pub(crate) behind: bool,
}

pub(crate) fn carries(kind: FrameKind) -> Carries {
    let whole = matches!(kind, FrameKind::Request | FrameKind::Response);
    let announced = matches!(kind, FrameKind::RequestAnnounce | FrameKind::ResponseAnnounce);
    Carries { payload: whole || announced, behind: whole || kind.is_chunk() }
}

/// Runs every target on its seeds and their mutations, and writes them to a folder for each target.
/// # Errors
/// Those of the file system.
pub fn write(corpus: &Path) -> io::Result<()> {
    for Target { name, run, seeds } in TARGETS {
        let folder = corpus.join(name);
        std::fs::create_dir_all(&folder)?;
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        for (number, seed) in seeds().into_iter().enumerate() {
            for variant in 0..=MUTATIONS {
                let bytes = if variant == 0 { seed.clone() } else { mutated(&seed, &mut random) };
                run(&bytes);
                std::fs::write(folder.join(format!("seed-{number}-{variant}")), bytes)?;
            }
        }
    }
    Ok(())
}

/// A few words or bytes changed; now and then cut short.
fn mutated(seed: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..=random.below(3) {
        let at = random.below(bytes.len());
        if let Some(word) = bytes.get_mut(at & !7..(at & !7) + 8).filter(|_| random.below(2) == 0) {
            word.copy_from_slice(&random.edge().to_le_bytes());
        } else {
            bytes[at] ^= 1 << random.below(8);
        }
    }
    if random.below(8) == 0 {
        bytes.truncate(1 + random.below(bytes.len()));
    }
    bytes
}

fn frames() -> Vec<Vec<u8>> {
    let header = |kind: FrameKind| {
        let carried = carries(kind);
        let payload_len = if carried.payload { 120 } else { 0 };
        let frame_len = if kind.is_chunk() { 64 } else { payload_len * u32::from(carried.behind) };
        let credit = u32::from(matches!(kind, FrameKind::RequestCredit | FrameKind::ResponseCredit));
        let generation = SPEC.generation;
        FrameHeader { status: 200, payload_len, frame_len, credit, generation, ..FrameHeader::new(kind, 5) }
    };
    let bytes = |kind: FrameKind| {
        let words = header(kind).encode();
        let ring = [u8::from(kind.is_chunk())];
        ring.into_iter().chain(words.into_iter().flat_map(u64::to_le_bytes)).collect()
    };
    FrameKind::ALL.into_iter().map(bytes).collect()
}

fn packets() -> Vec<Vec<u8>> {
    let services = vec!["s0".to_owned(), "s1".to_owned()];
    let worker = Hello {
        name: "w".into(),
        role: Role::Worker,
        services: services.clone(),
        lanes: 2,
        profile: Some(PROFILE),
    };
    let sidecar =
        Hello { role: Role::Sidecar, services: Vec::new(), lanes: 1, profile: None, ..worker.clone() };
    let link = LinkWelcome { endpoint: SPEC.endpoint.0, generation: SPEC.generation, profile: PROFILE };
    let welcome = Welcome { services, calls_max: 8, message_bytes_max: 1 << 16, links: vec![link; 2] };
    let to_dpa = [ToDpa::Hello(worker), ToDpa::Hello(sidecar), ToDpa::Leave];
    let from_dpa = [FromDpa::Welcome(welcome), FromDpa::Refused { why: "not today".into() }, FromDpa::Left];
    let to_dpa = to_dpa.iter().map(|message| [vec![0], message.encode()].concat());
    to_dpa.chain(from_dpa.iter().map(|message| [vec![1], message.encode()].concat())).collect()
}

/// The far side of a port's link.
fn of_port() -> Vec<Vec<u8>> {
    let seed = |own_call| {
        let (mut sides, far) = Sides::new();
        record(far, own_call, || sides.turn().expect("the rules are kept"))
    };
    OWN_CALLS.into_iter().map(seed).collect()
}

/// The far side of a worker's link.
fn of_pump() -> Vec<Vec<u8>> {
    let seed = |own_call| {
        let (mut node, far) = Node::new();
        record(far, own_call, || node.turn())
    };
    OWN_CALLS.into_iter().map(seed).collect()
}

/// What a correct peer does with its turns, beside answering: nothing, small calls, large ones. By length of the body.
const OWN_CALLS: [Option<usize>; 3] = [None, Some(10), Some(LARGE)];

/// The images that a correct peer leaves; `turn` is the other side's.
fn record(far: Hostile, own_call: Option<usize>, mut turn: impl FnMut()) -> Vec<u8> {
    let scratch = far.scratch();
    let mut port = Port::new(far.link, port_config());
    let mut images = Vec::new();
    for _ in 0..IMAGES_MAX {
        act(&mut port, own_call);
        images.extend(scratch.image());
        turn();
    }
    images
}

fn act(port: &mut Port, own_call: Option<usize>) {
    while let Some(arrived) = port.poll().expect("the rules are kept") {
        if let Arrived::Request { slot, message } = arrived {
            port.respond(slot, response(message.body));
        }
    }
    if let Some(len) = own_call
        && !port.is_busy()
    {
        port.call(request(ServiceId(0), len)).expect("not busy");
    }
    port.flush();
}
