//! One ring between a producer and a consumer, without a DPA: on one thread, two threads, two processes.
//!
//! - Frames are the product's, with headers that are checked. Beside them `rtrb`, a ring of the same depth between two
//!   threads that trust each other.
//! - Both sides spin, each pinned to a processor of its own: while a scheduler leaves both on one, what is moved never leaves
//!   its caches.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use cellmesh_shm::attach::AttachListener;
use cellmesh_shm::frame::{Frame, FrameHeader, FrameKind};
use cellmesh_shm::ids::EndpointId;
use cellmesh_shm::link::{Link, LinkSpec};
use cellmesh_shm::profile::{LINE_BYTES, RingProfile};
use cellmesh_shm::ring::Payload;
use clap::Args;

use super::engine::{on_two_processors, pin};
use super::handover;
use crate::turns::{Series, median_ratio, spread};

/// Bytes that one turn moves for each size, at least so many messages.
const BYTES_PER_TURN: usize = 64 << 20;
const MESSAGES_PER_TURN_MAX: usize = 1_000_000;

/// Bytes that the ring for chunks holds, of any size; the other one holds less.
const RING_BYTES: usize = 128 << 10;

/// Messages there and back in one turn.
const TRIPS_PER_TURN: usize = 20_000;

/// Processors of the two sides.
const NEAR: usize = 0;
const FAR: usize = 1;

const SIZES: [usize; 3] = [64, 1024, 64 * 1024];
const BATCHES: [usize; 2] = [1, 32];

/// The other side of a ring, in a process of its own.
#[derive(Debug, Args)]
pub(crate) struct RingPeer {
    /// Where it gets its side of the link.
    socket: PathBuf,
}

/// A link whose far side is somewhere.
struct Ring {
    link: Link,
    /// What a message of each size looks like.
    profile: RingProfile,
}

/// The far side.
enum Far {
    Thread(std::thread::JoinHandle<()>),
    Process(Child),
}

/// Throughput and round trips, in Markdown.
pub(super) fn report(report: &mut String, rounds: usize) -> Result<()> {
    writeln!(report, "## One ring, both sides spinning\n")?;
    on_two_processors(report, |report| tables(report, rounds))
}

fn tables(report: &mut String, rounds: usize) -> Result<()> {
    pin(NEAR)?;
    writeln!(
        report,
        "| bytes, batch | one thread, M/s | two threads, M/s | two processes, M/s | rtrb, two threads, M/s | processes to rtrb |\n\
         |---|---|---|---|---|---|"
    )?;
    for size in SIZES {
        for batch in BATCHES {
            throughput(report, rounds, size, batch)?;
        }
    }
    writeln!(report, "\n| bytes | there and back, two threads, ns | two processes, ns |\n|---|---|---|")?;
    for size in SIZES {
        let (mut threads, mut processes) = (Series::new(), Series::new());
        for round in 0..=rounds {
            let figures = [
                with_far(in_thread, |ring| trips(ring, size))?,
                with_far(in_process, |ring| trips(ring, size))?,
            ];
            if round > 0 {
                threads.push(figures[0]);
                processes.push(figures[1]);
            }
        }
        writeln!(report, "| {size} | {} | {} |", spread(&threads), spread(&processes))?;
    }
    writeln!(report)?;
    Ok(())
}

fn throughput(report: &mut String, rounds: usize, size: usize, batch: usize) -> Result<()> {
    let count = (BYTES_PER_TURN / size).min(MESSAGES_PER_TURN_MAX);
    let mut series = [const { Series::new() }; 4];
    for round in 0..=rounds {
        let figures = [
            one_thread(size, count, batch)?,
            with_far(in_thread, |ring| stream(ring, size, count, batch))?,
            with_far(in_process, |ring| stream(ring, size, count, batch))?,
            if size == 64 { rtrb_stream(count, batch)? } else { f64::NAN },
        ];
        if round > 0 {
            series.iter_mut().zip(figures).for_each(|(series, figure)| series.push(figure));
        }
    }
    let [one, threads, processes, rtrb] = &series;
    let (rtrb, ratio) = if size == 64 {
        (spread(rtrb), format!("{:.2} x", median_ratio(processes, rtrb)))
    } else {
        (String::new(), String::new())
    };
    writeln!(
        report,
        "| {size}, {batch} | {} | {} | {} | {rtrb} | {ratio} |",
        spread(one),
        spread(threads),
        spread(processes)
    )?;
    Ok(())
}

/// Millions of messages per second, filled and emptied in turns.
fn one_thread(size: usize, count: usize, batch: usize) -> Result<f64> {
    // Nobody takes anything until all of a batch is in the ring.
    let batch = batch.min(RING_BYTES / size);
    let (link, mut far) = Link::pair(Ring::spec())?;
    let mut ring = Ring { link, profile: RingProfile::default() };
    let payload = vec![7; size];
    let start = Instant::now();
    let (mut sent, mut taken) = (0, 0);
    while taken < count {
        sent += ring.push(&payload, batch.min(count - sent))?;
        ring.link.publish();
        taken += take_some(&mut far, size)?.0;
        far.publish();
    }
    Ok(rate(count, start))
}

/// Millions of messages per second to the far side, which says when it has all of them.
fn stream(ring: &mut Ring, size: usize, count: usize, batch: usize) -> Result<f64> {
    let payload = vec![7; size];
    let start = Instant::now();
    let (mut sent, mut idle) = (0, 0);
    while sent < count {
        let pushed = ring.push(&payload, batch.min(count - sent))?;
        sent += pushed;
        ring.link.publish();
        if pushed == 0 {
            relax(&mut idle);
        }
    }
    ring.ask(FrameKind::Cancel)?;
    Ok(rate(count, start))
}

/// ns for a message to the far side and a word back.
fn trips(ring: &mut Ring, size: usize) -> Result<f64> {
    let payload = vec![7; size];
    let start = Instant::now();
    for _ in 0..TRIPS_PER_TURN {
        ensure!(ring.push(&payload, 1)? == 1, "the ring is empty");
        ring.ask(FrameKind::Cancel)?;
    }
    Ok(start.elapsed().as_secs_f64() * 1e9 / TRIPS_PER_TURN as f64)
}

fn rtrb_stream(count: usize, batch: usize) -> Result<f64> {
    let depth = (RingProfile::default().small_bytes / LINE_BYTES) as usize;
    let (mut producer, mut consumer) = rtrb::RingBuffer::<[u64; 8]>::new(depth);
    let consuming = std::thread::spawn(move || {
        pin(FAR).expect("it was allowed");
        let (mut taken, mut idle) = (0, 0);
        while taken < count {
            let ready = consumer.slots().min(batch.max(1));
            if ready == 0 {
                relax(&mut idle);
                continue;
            }
            let chunk = consumer.read_chunk(ready).expect("they are there");
            taken += chunk
                .into_iter()
                .map(|entry| std::hint::black_box(entry)[0])
                .filter(|first| *first == 7)
                .count();
        }
    });
    let start = Instant::now();
    let (mut sent, mut idle) = (0, 0);
    while sent < count {
        let room = producer.slots().min(batch).min(count - sent);
        if room == 0 {
            relax(&mut idle);
            continue;
        }
        let chunk = producer.write_chunk_uninit(room).expect("there is room");
        sent += chunk.fill_from_iter(std::iter::repeat_n([7; 8], room));
    }
    consuming.join().ok().context("the consumer panicked")?;
    Ok(rate(count, start))
}

fn rate(count: usize, start: Instant) -> f64 {
    count as f64 / start.elapsed().as_secs_f64() / 1e6
}

impl Ring {
    fn new() -> Result<(Self, cellmesh_shm::link::LinkFds)> {
        let (link, fds) = Link::create(Self::spec())?;
        Ok((Self { link, profile: RingProfile::default() }, fds))
    }

    fn spec() -> LinkSpec {
        let profile = RingProfile::default();
        LinkSpec { endpoint: EndpointId(1), generation: 1, profile, message_bytes_max: 1 << 20 }
    }

    /// Up to `count` messages; how many found room.
    fn push(&mut self, payload: &[u8], count: usize) -> Result<usize> {
        for pushed in 0..count {
            if !self.push_one(payload)? {
                return Ok(pushed);
            }
        }
        Ok(count)
    }

    fn push_one(&mut self, payload: &[u8]) -> Result<bool> {
        let len = u32::try_from(payload.len())?;
        let header = FrameHeader { payload_len: len, ..FrameHeader::new(FrameKind::Request, 7) };
        // The smallest frame is its header: one line, which is what rtrb's entry is.
        if payload.len() <= 64 {
            return Ok(self.link.tx.small.push(&FrameHeader { payload_len: 0, ..header }, Payload::Empty)?);
        }
        if len <= self.profile.inline_bytes_max {
            return Ok(self
                .link
                .tx
                .small
                .push(&FrameHeader { frame_len: len, ..header }, Payload::Parts(&[], payload))?);
        }
        self.push_chunks(payload)
    }

    /// All chunks, as soon as each finds room.
    fn push_chunks(&mut self, payload: &[u8]) -> Result<bool> {
        for (seq, chunk) in (0..).zip(payload.chunks(self.profile.chunk_payload_bytes() as usize)) {
            let frame_len = u32::try_from(chunk.len())?;
            let header = FrameHeader { seq, frame_len, ..FrameHeader::new(FrameKind::RequestChunk, 7) };
            let mut idle = 0;
            while !self.link.tx.bulk.push(&header, Payload::Parts(&[], chunk))? {
                self.link.publish();
                relax(&mut idle);
            }
            self.link.publish();
        }
        Ok(true)
    }

    /// Says something that the far side answers when it has taken all before it.
    fn ask(&mut self, kind: FrameKind) -> Result<()> {
        let mut idle = 0;
        while !self.link.tx.small.push(&FrameHeader::new(kind, 7), Payload::Empty)? {
            relax(&mut idle);
        }
        self.link.publish();
        loop {
            self.link.rx.refresh()?;
            if let Some(answer) = self.link.rx.small.peek_frame()? {
                self.link.rx.small.release(&answer);
                self.link.publish();
                return Ok(());
            }
            relax(&mut idle);
        }
    }
}

/// Small frames that are taken before their room is given back, as in a turn of a DPA.
const FRAMES_PER_TURN: usize = 64;

/// Takes a turn's worth of what is there: whole messages of `size`, and whether a word is wanted back.
fn take_some(link: &mut Link, size: usize) -> Result<(usize, Option<FrameKind>)> {
    if !link.rx.has_seen() {
        link.rx.refresh()?;
    }
    let (mut bytes, mut count, mut asked) = (0, 0, None);
    let mut frame = Frame::EMPTY;
    while link.rx.bulk.peek(&mut frame)? {
        bytes += link.rx.bulk.payload(&frame).len();
        link.rx.bulk.release(&frame);
    }
    for _ in 0..FRAMES_PER_TURN {
        if !link.rx.small.peek(&mut frame)? {
            break;
        }
        std::hint::black_box(link.rx.small.payload(&frame));
        link.rx.small.release(&frame);
        if frame.kind() == FrameKind::Request {
            count += 1;
        } else {
            asked = Some(frame.kind());
        }
    }
    // Chunks are counted by their words.
    Ok((count + bytes * 8 / size.max(1), asked))
}

/// The far side: takes everything, answers what wants an answer, until it is told to end.
fn serve(mut link: Link) -> Result<()> {
    pin(FAR)?;
    let mut idle = 0;
    loop {
        let (count, asked) = take_some(&mut link, usize::MAX)?;
        match asked {
            Some(FrameKind::RequestCredit) => return Ok(()),
            Some(kind) => {
                ensure!(link.tx.small.push(&FrameHeader::new(kind, 7), Payload::Empty)?, "room for a word")
            }
            None => {}
        }
        if !link.publish() && count == 0 {
            relax(&mut idle);
        }
    }
}

fn relax(idle: &mut u32) {
    *idle = idle.wrapping_add(1);
    // Where both sides share a core, spinning without end keeps the other from its turn.
    if idle.is_multiple_of(16 * 1024) {
        std::thread::yield_now();
    }
    std::hint::spin_loop();
}

/// Runs `what` on a ring whose far side is made by `far`, and ends that.
fn with_far<T>(
    far: fn(cellmesh_shm::link::LinkFds) -> Result<Far>,
    what: impl FnOnce(&mut Ring) -> Result<T>,
) -> Result<T> {
    let (mut ring, fds) = Ring::new()?;
    let far = far(fds)?;
    ring.ask(FrameKind::Cancel)?;
    let result = what(&mut ring);
    let header = FrameHeader { credit: 1, ..FrameHeader::new(FrameKind::RequestCredit, 7) };
    while !ring.link.tx.small.push(&header, Payload::Empty)? {}
    ring.link.publish();
    match far {
        Far::Thread(thread) => thread.join().ok().context("the far side panicked")?,
        Far::Process(mut child) => ensure!(child.wait()?.success(), "the far side failed"),
    }
    result
}

fn in_thread(fds: cellmesh_shm::link::LinkFds) -> Result<Far> {
    let link = Link::open(fds)?;
    Ok(Far::Thread(std::thread::spawn(move || serve(link).expect("an honest producer, and a processor"))))
}

fn in_process(fds: cellmesh_shm::link::LinkFds) -> Result<Far> {
    let dir = tempfile::tempdir()?;
    let socket = dir.path().join("ring.sock");
    let listener = AttachListener::bind(&socket)?;
    let program = std::env::current_exe()?;
    let child = Command::new(program).arg("ring-peer").arg(&socket).stdin(Stdio::null()).spawn()?;
    handover::offer(&listener, fds)?;
    Ok(Far::Process(child))
}

impl RingPeer {
    /// Serves until it is told to end.
    pub(crate) fn serve(&self) -> Result<()> {
        serve(Link::open(handover::take(&self.socket)?)?)
    }
}
