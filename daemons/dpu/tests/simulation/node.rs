//! A whole node in one thread: clients, sidecars, the DPA and workers, pumped in an order that is drawn from the seed,
//! on a clock that only the simulation moves.
//!
//! ```text
//!   round:   each part once, in any order, some left out; trouble between any two of them; new requests
//!   settle:  no more trouble; all comes to rest; nothing may be left; then everything is served at once
//! ```
//!
//! - When nothing moves, the clock jumps to the next instant at which something will.
//! - Sizes are drawn too: most nodes have rings and tables that are full all the time.

use std::time::Duration;

use cellmesh_dpa::{Dpa, DpaConfig, DpaStats};
use cellmesh_dpu::DpuConfig;
use cellmesh_dpu::units::ByteSize;
use cellmesh_shm::clock::Nanos;
use cellmesh_shm::ids::{EndpointId, ServiceId, SlotId};
use cellmesh_shm::message::Fault;
use cellmesh_shm::profile::RingProfile;

use crate::history::{HOSTILE_SEAT, SeatIndex};
use crate::hostile::Hostile;
use crate::lane::Lane;
use crate::ledger::Ledger;
use crate::plan::{HONEST, HOPS_MAX, HOSTILE, MESSAGE_BYTES_MAX, Name};
use crate::planted::Planted;
use crate::random::Random;
use crate::seat::Seat;
use crate::trouble::Trouble;

/// Short, so that some of those who stand still are expelled.
pub(crate) const STALL_TIMEOUT: Duration = Duration::from_millis(20);
/// Requests between two times of rest.
const EPOCH_REQUESTS: u64 = 2500;
/// Within this a node without trouble comes to rest: the longest deadline, the longest stall and some.
const REST_WITHIN: Duration = Duration::from_secs(2);
/// Within this a node at rest answers.
const SERVES_WITHIN: Duration = Duration::from_millis(5);
/// Clients of all lanes that wait at once: beyond, no new ones come.
const WAITING_MAX: usize = 160;

/// How large a node is.
#[derive(Debug, Clone, Copy)]
struct Size {
    profile: RingProfile,
    slots_max: u32,
    calls_max: u32,
    budget_per_turn: u32,
    requests_max: u32,
    relays_max: u32,
}

/// The smallest rings that there can be, rings that one chunked message fills, and roomy ones.
const PROFILES: [RingProfile; 3] = [
    RingProfile { small_bytes: 256, chunk_bytes: 128, bulk_chunks: 2, inline_bytes_max: 64 },
    RingProfile { small_bytes: 1024, chunk_bytes: 256, bulk_chunks: 4, inline_bytes_max: 448 },
    RingProfile { small_bytes: 16 << 10, chunk_bytes: 1024, bulk_chunks: 16, inline_bytes_max: 1024 },
];

impl Size {
    fn new(draw: &mut Random) -> Self {
        let roomy = !draw.once_in(3);
        Self {
            profile: draw.pick(&PROFILES),
            slots_max: if roomy { 4096 } else { draw.pick(&[16, 40, 100]) },
            calls_max: if roomy { 1024 } else { draw.pick(&[12, 40, 100]) },
            budget_per_turn: draw.pick(&[1, 3, 64]),
            requests_max: if roomy { 512 } else { draw.pick(&[8, 30, 60]) },
            relays_max: if roomy { 512 } else { draw.pick(&[2, 10, 30]) },
        }
    }

    fn dpa(&self, seed: u64) -> DpaConfig {
        DpaConfig {
            slots_max: self.slots_max,
            calls_max: self.calls_max,
            message_bytes_max: MESSAGE_BYTES_MAX,
            profile: self.profile,
            budget_per_turn: self.budget_per_turn,
            hops_max: HOPS_MAX,
            stall_timeout: STALL_TIMEOUT,
            seed,
            ..DpaConfig::default()
        }
    }

    fn dpu(&self) -> DpuConfig {
        DpuConfig {
            requests_max: self.requests_max,
            relays_max: self.relays_max,
            body_bytes_max: ByteSize(u64::from(MESSAGE_BYTES_MAX)),
            ..DpuConfig::default()
        }
    }
}

/// Who is pumped.
#[derive(Debug, Clone, Copy)]
enum Part {
    Dpa,
    Lane(usize),
    Seat(usize),
    Hostile,
}

pub(crate) struct Node {
    pub(crate) now: Nanos,
    pub(crate) draw: Random,
    pub(crate) ledger: Ledger,
    pub(crate) dpa: Dpa,
    pub(crate) lanes: Vec<Lane>,
    pub(crate) seats: Vec<Seat>,
    pub(crate) hostile: Option<Hostile>,
    pub(crate) dpa_resumes: Nanos,
    size: Size,
    config: DpaConfig,
    hostile_returns: Nanos,
    order: Vec<Part>,
    next_requests: Nanos,
    next_trouble: Nanos,
    planted: Option<Planted>,
}

impl Node {
    pub(crate) fn new(seed: u64, planted: Option<Planted>) -> Self {
        let mut draw = Random::new(seed);
        let size = Size::new(&mut draw);
        let config = size.dpa(seed);
        let lanes: Vec<Lane> =
            (0..=draw.below(2)).map(|_| Lane::new(size.dpu(), size.calls_max, planted)).collect();
        let seats = 0..4 + draw.index(3);
        let seats: Vec<Seat> = seats.map(|index| Seat::new(SeatIndex(index), services(&mut draw))).collect();
        let mut order = vec![Part::Dpa, Part::Dpa, Part::Hostile];
        order.extend((0..lanes.len()).map(Part::Lane));
        order.extend((0..seats.len()).map(Part::Seat));
        let now = Nanos(1_000_000_000);
        Self {
            now,
            draw,
            ledger: Ledger::new(seed, size.profile.inline_bytes_max),
            dpa: Dpa::new(config),
            lanes,
            seats,
            hostile: None,
            dpa_resumes: now,
            size,
            config,
            hostile_returns: now,
            order,
            next_requests: now,
            next_trouble: now,
            planted,
        }
    }

    /// Runs until so many requests have been made, and leaves the node at rest.
    pub(crate) fn run(&mut self, requests: u64) {
        while self.ledger.requests() < requests {
            let epoch = (self.ledger.requests() + EPOCH_REQUESTS).min(requests);
            while self.ledger.requests() < epoch {
                self.send_some();
                self.round(true);
            }
            self.settle();
            self.serve_at_once();
        }
        self.count_dpa();
    }

    /// An instant from now to `micros` later.
    pub(crate) fn soon(&mut self, micros: u64) -> Nanos {
        self.now.saturating_add(self.draw.micros(0, micros))
    }

    pub(crate) fn within(&mut self, from: Duration, to: Duration) -> Nanos {
        let micros = |span: Duration| u64::try_from(span.as_micros()).expect("less than a second");
        self.now.saturating_add(self.draw.micros(micros(from), micros(to)))
    }

    /// A burst of clients, if its time has come.
    fn send_some(&mut self) {
        if self.now < self.next_requests {
            return;
        }
        self.next_requests = self.soon(1000);
        for _ in 0..=self.draw.below(24) {
            let waiting: usize = self.lanes.iter().map(Lane::waiting).sum();
            if waiting >= WAITING_MAX {
                return;
            }
            let plan = self.ledger.open();
            let name = Name { serial: self.ledger.requests() - 1, node: 0 };
            let lane = self.draw.index(self.lanes.len());
            self.lanes[lane].send(plan, name, &mut self.ledger, self.now);
        }
    }

    /// Pumps each part once, or leaves it out; jumps to the next instant if there is nothing to do before. Whether that
    /// was so.
    fn round(&mut self, troubled: bool) -> bool {
        let (began, mut moved, mut all) = (self.now, false, true);
        let mut order = std::mem::take(&mut self.order);
        self.draw.shuffle(&mut order);
        for part in &order {
            self.now = self.now.saturating_add(Duration::from_nanos(self.draw.below(1500)));
            if troubled && self.now >= self.next_trouble {
                self.next_trouble = self.soon(6000);
                let trouble = self.draw.pick(&Trouble::DRAWN);
                self.trouble(trouble);
            }
            if self.draw.once_in(8) {
                all = false;
            } else {
                moved |= self.pump(*part);
            }
        }
        self.order = order;
        if all && !moved {
            if self.dpa_resumes <= began && self.lanes.iter().all(|lane| lane.resumes <= began) {
                let linked = self.lanes.iter_mut().filter(|lane| lane.sidecar.is_some());
                linked.for_each(Lane::on_idle);
            }
            self.jump(troubled);
        }
        all && !moved
    }

    fn pump(&mut self, part: Part) -> bool {
        match part {
            Part::Dpa => self.now >= self.dpa_resumes && self.pump_dpa(),
            Part::Lane(lane) => self.now >= self.lanes[lane].resumes && self.pump_lane(lane),
            Part::Seat(seat) => self.pump_seat(seat),
            Part::Hostile => self.pump_hostile(),
        }
    }

    fn pump_dpa(&mut self) -> bool {
        let before = self.dpa.stats();
        let moved = self.dpa.pump(self.now).moved();
        let stats = self.dpa.stats();
        assert!(stats.is_balanced(), "the DPA's books: {stats:?}");
        assert!(stats.live <= self.size.slots_max, "more than the DPA's slots: {stats:?}");
        let live_most = u64::from(before.live) + stats.received - before.received;
        let parked_most = before.parked_now as u64 + stats.parked - before.parked;
        if live_most >= u64::from(self.config.sidecar_slots_max())
            || parked_most >= self.config.parked_max() as u64
        {
            self.ledger.history.crowd(self.now);
        }
        while let Some(closed) = self.dpa.take_closed() {
            self.on_closed(closed.endpoint, &closed.rule);
        }
        moved
    }

    /// Only the hostile worker breaks rules; of the others only one that stood still for long may be closed.
    fn on_closed(&mut self, endpoint: EndpointId, rule: &str) {
        self.ledger.note("expelled", endpoint.0.into(), self.now);
        if self.hostile.as_ref().is_some_and(|hostile| hostile.endpoint == endpoint) {
            self.hostile = None;
            self.lose_hostile();
            return;
        }
        let notices = self.soon(2000);
        // One that moves again gets its credit behind what else waits for it, perhaps too late.
        let stood_still = |pumped: Nanos, still: Nanos| {
            let moves_again = still.saturating_add(STALL_TIMEOUT / 4) > self.now;
            pumped.saturating_add(STALL_TIMEOUT) <= self.now || moves_again
        };
        if let Some(seat) = self.seats.iter_mut().find(|seat| seat.is(endpoint)) {
            let worker = seat.worker().expect("it is this one");
            assert!(stood_still(worker.pumped, worker.still), "an honest worker was expelled: {rule}");
            seat.cut_off(&mut self.ledger, self.now, notices);
            return;
        }
        let lane = self.lanes.iter().position(|lane| lane.sidecar == Some(endpoint));
        let lane =
            lane.unwrap_or_else(|| panic!("endpoint {endpoint}, which is nobody, was expelled: {rule}"));
        let Lane { pumped, caller, .. } = &self.lanes[lane];
        assert!(stood_still(*pumped, caller.still), "a sidecar was expelled: {rule}");
        self.cut_lane(lane, notices);
    }

    fn lose_hostile(&mut self) {
        self.ledger.history.lose_worker(HOSTILE_SEAT, &[HOSTILE], self.now);
        self.ledger.history.retire_worker(&[HOSTILE], self.now);
        self.hostile_returns = self.soon(1000);
    }

    fn pump_lane(&mut self, lane: usize) -> bool {
        let (now, back) = (self.now, self.soon(1000));
        let lane = &mut self.lanes[lane];
        if lane.notices.take_if(|notices| *notices <= now).is_some() {
            lane.detach(now);
            lane.returns = back;
        }
        if !lane.is_attached() && now >= lane.returns {
            let fds = self.dpa.attach_sidecar(self.size.profile).expect("memory and descriptors");
            lane.attach(fds, now);
            self.ledger.history.add_sidecar(now);
        }
        lane.pump(&mut self.ledger, now)
    }

    /// The DPA has lost a sidecar, which does not know it before `notices`.
    pub(crate) fn cut_lane(&mut self, lane: usize, notices: Nanos) -> bool {
        let lane = &mut self.lanes[lane];
        let Some(sidecar) = lane.sidecar.take() else { return false };
        self.dpa.detach(sidecar);
        self.ledger.history.lose_sidecar(self.now);
        lane.notices = Some(notices);
        true
    }

    fn pump_seat(&mut self, seat: usize) -> bool {
        let back = self.soon(2000);
        let seat = &mut self.seats[seat];
        if !seat.wants_worker(self.now) {
            return seat.pump(&mut self.dpa, &mut self.ledger, self.now, back);
        }
        let fds = self.dpa.attach_worker(seat.services(), self.size.profile).expect("memory and descriptors");
        seat.attach(fds, self.size.calls_max, self.planted, &mut self.ledger, self.now);
        true
    }

    fn pump_hostile(&mut self) -> bool {
        let stolen = self.stolen();
        if let Some(hostile) = &mut self.hostile {
            let withholds = hostile.is_withholding();
            let moved = hostile.pump(&mut self.draw, stolen);
            if withholds {
                // What it has announced until now is waited for until it is expelled.
                let until = self.now.saturating_add(STALL_TIMEOUT * 2);
                self.ledger.history.still_worker(HOSTILE_SEAT, &[HOSTILE], until);
            }
            return moved;
        }
        if self.now >= self.hostile_returns {
            let fds = self.dpa.attach_worker(&[HOSTILE], self.size.profile).expect("memory and descriptors");
            self.hostile = Some(Hostile::new(fds));
            self.ledger.history.add_worker(&[HOSTILE], self.now);
        }
        false
    }

    /// The name of a request that an honest worker has.
    pub(crate) fn stolen(&mut self) -> Option<SlotId> {
        let seat = self.draw.index(self.seats.len());
        self.seats[seat].worker()?.any_slot()
    }

    pub(crate) fn replace_dpa(&mut self) -> bool {
        self.count_dpa();
        for seat in 0..self.seats.len() {
            let notices = self.soon(3000);
            self.seats[seat].cut_off(&mut self.ledger, self.now, notices);
        }
        for lane in 0..self.lanes.len() {
            let notices = self.soon(3000);
            self.cut_lane(lane, notices);
        }
        if self.hostile.take().is_some() {
            self.lose_hostile();
        }
        self.dpa = Dpa::new(self.config);
        self.dpa_resumes = self.now;
        self.ledger.history.still_node(self.now);
        true
    }

    /// Nothing happens before the next of these.
    fn jump(&mut self, troubled: bool) {
        let dpa = self.dpa.next_deadline().map(|due| due.max(self.dpa_resumes));
        let dpa = dpa.into_iter().chain((self.dpa_resumes > self.now).then_some(self.dpa_resumes));
        let lanes = self.lanes.iter().filter_map(|lane| {
            let back = (!lane.is_attached()).then_some(lane.returns);
            let due = lane.next_due().into_iter().chain(lane.notices).chain(back).min();
            let resumes = (lane.resumes > self.now).then_some(lane.resumes);
            due.map(|due| due.max(lane.resumes)).into_iter().chain(resumes).min()
        });
        let seats = self.seats.iter().filter_map(Seat::next_due);
        let planned = [self.next_requests, self.next_trouble].into_iter().filter(|_| troubled);
        let next = dpa.chain(lanes).chain(seats).chain(planned).min();
        self.now = self.now.saturating_add(Duration::from_micros(1)).max(next.unwrap_or(self.now));
    }

    /// Everybody moves and nothing new comes, until nothing is left.
    fn settle(&mut self) {
        if let Some(hostile) = self.hostile.take() {
            self.dpa.detach(hostile.endpoint);
            self.lose_hostile();
        }
        self.hostile_returns = Nanos::MAX;
        self.dpa_resumes = self.dpa_resumes.min(self.now);
        let now = self.now;
        self.seats.iter_mut().for_each(|seat| seat.resume(now));
        self.lanes.iter_mut().for_each(|lane| lane.resumes = lane.resumes.min(now));
        let last = self.now.saturating_add(REST_WITHIN);
        while !(self.round(false) && self.is_at_rest()) {
            assert!(self.now < last, "the node does not come to rest: {:?}", self.dpa.stats());
        }
        self.lanes.iter().for_each(Lane::assert_settled);
        self.ledger.assert_all_ended();
        self.ledger.note("settled", 0, self.now);
    }

    fn is_at_rest(&self) -> bool {
        let DpaStats { live, parked_now, reserved_now, .. } = self.dpa.stats();
        (live, parked_now, reserved_now) == (0, 0, 0)
            && self.seats.iter().all(Seat::is_settled)
            && self.lanes.iter().all(Lane::is_at_rest)
    }

    /// Every service that has a worker answers on every lane.
    fn serve_at_once(&mut self) {
        let (last, from) = (self.now.saturating_add(SERVES_WITHIN), self.ledger.requests());
        for service in (0..HONEST).map(ServiceId) {
            if !self.seats.iter().any(|seat| seat.services().contains(&service)) {
                continue;
            }
            for lane in &mut self.lanes {
                let name = Name { serial: self.ledger.requests(), node: 0 };
                let plan = self.ledger.open_probe(service);
                lane.send(plan, name, &mut self.ledger, self.now);
            }
        }
        while self.lanes.iter().any(|lane| lane.waiting() > 0) {
            assert!(self.now < last, "a node at rest does not answer at once");
            self.round(false);
        }
        self.ledger.assert_all_good(from);
        (self.hostile_returns, self.next_trouble, self.next_requests) = (self.now, self.now, self.now);
    }

    /// What the DPA has counted, before it is let go.
    fn count_dpa(&mut self) {
        let stats = self.dpa.stats();
        for (what, count) in [
            ("dpa: received", stats.received),
            ("dpa: slow path", stats.slow_path),
            ("dpa: redispatched", stats.redispatched),
            ("dpa: abandoned", stats.abandoned),
            ("dpa: frames", stats.frames),
            ("dpa: chunks", stats.chunks),
            ("dpa: parked (ring full)", stats.parked),
            ("dpa: late or stolen responses", stats.late_responses),
            ("dpa: late chunks", stats.late_chunks),
            ("dpa: late cancels", stats.late_cancels),
            ("dpa: rejected", stats.rejected.iter().sum()),
            ("dpa: violations", stats.violations),
            ("dpa: stalled", stats.stalled),
            ("dpa: overloaded", stats.faulted_for(Fault::Overloaded)),
        ] {
            self.ledger.add(what, count);
        }
    }
}

/// One to three of the honest services.
fn services(draw: &mut Random) -> Vec<ServiceId> {
    let mut all: Vec<ServiceId> = (0..HONEST).map(ServiceId).collect();
    draw.shuffle(&mut all);
    all.truncate(1 + draw.index(all.len()));
    all
}
