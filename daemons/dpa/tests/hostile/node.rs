//! A DPA on its lane, with a sidecar that makes calls, and processes that attach to it.

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use cellmesh_dpa::{Admission, DpaConfig, DpaHost, DpaStats};
use cellmesh_shm::attach::AttachListener;
use cellmesh_shm::clock::Nanos;
use cellmesh_shm::ids::{CallId, ServiceId};
use cellmesh_shm::message::{Fault, RequestMessage, ResponseMessage};
use cellmesh_shm::port::{Arrived, Port, PortConfig};
use tokio::sync::{Notify, oneshot};
use tokio::task::{LocalSet, yield_now};
use tokio::time::{sleep, timeout};

use crate::Task;

pub(crate) const HONEST: ServiceId = ServiceId(0);
pub(crate) const HOSTILE: ServiceId = ServiceId(1);
pub(crate) const HONEST_NAME: &str = "honest";
pub(crate) const HOSTILE_NAME: &str = "hostile";

/// Ends a hang: far more than any test takes on a machine with other work.
const HANG: Duration = Duration::from_secs(120);

const ROLE: &str = "CELLMESH_ROLE";
const SOCKET: &str = "CELLMESH_ROLE_SOCKET";
const NUMBERS: &str = "CELLMESH_ROLE_NUMBERS";

/// How many times as much is done as by default.
pub(crate) fn scale() -> u64 {
    let scale = std::env::var("CELLMESH_HOSTILE_SCALE");
    scale.map_or(1, |scale| scale.parse().expect("CELLMESH_HOSTILE_SCALE is a number"))
}

/// Plays the role of this process, if it has one.
pub(crate) fn play(play: impl FnOnce(&str, &Task<'_>)) {
    let Ok(role) = std::env::var(ROLE) else { return };
    let socket = PathBuf::from(std::env::var_os(SOCKET).expect("goes with the role"));
    let numbers = std::env::var(NUMBERS).expect("goes with the role");
    let numbers: Vec<u64> =
        numbers.split_terminator(',').map(|number| number.parse().expect("a number")).collect();
    play(&role, &Task { socket: &socket, numbers: &numbers });
}

/// A DPA that knows the services [`HONEST`] and [`HOSTILE`], its socket, and its sidecar.
pub(crate) struct Node {
    pub(crate) host: DpaHost,
    folder: tempfile::TempDir,
    sidecar: RefCell<Port>,
    waiting: RefCell<HashMap<CallId, oneshot::Sender<ResponseMessage>>>,
    called: Notify,
}

/// Peers here come back as soon as they are let go: what is tested is the letting go.
pub(crate) fn config() -> DpaConfig {
    DpaConfig { reattach_delay: Duration::ZERO, ..DpaConfig::default() }
}

/// Runs `test` beside the lane of a node; afterwards the books of its DPA must balance.
pub(crate) fn check(config: DpaConfig, test: impl AsyncFnOnce(&Node)) {
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let hang = HANG * u32::try_from(scale()).expect("a scale that ends");
    // Boxed: tokio's part of it is compiled once, not for each test.
    let whole: Pin<Box<dyn Future<Output = ()>>> = Box::pin(async {
        let node = Node::new(config);
        let listener = AttachListener::bind(&node.socket()).expect("a free path");
        tokio::select! {
            () = node.lane() => unreachable!("a lane does not end"),
            served = node.host.clone().serve(listener, Admission::default()) => panic!("{served:?}"),
            done = timeout(hang, test(&node)) => done.expect("it does not hang"),
        }
        let stats = node.host.stats();
        assert!(stats.is_balanced(), "{stats:?}");
    });
    LocalSet::new().block_on(&runtime, whole);
}

impl Node {
    fn new(config: DpaConfig) -> Self {
        let services = vec![HONEST_NAME.to_owned(), HOSTILE_NAME.to_owned()];
        let host = DpaHost::new(config, services).expect("descriptors");
        let sidecar = host.attach_sidecar_here(config.profile).expect("memory and descriptors");
        let sidecar = Port::new(sidecar, PortConfig::default());
        Self {
            host,
            folder: tempfile::tempdir().expect("a temporary folder"),
            sidecar: RefCell::new(sidecar),
            waiting: RefCell::default(),
            called: Notify::new(),
        }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.path("dpa.sock")
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Pumps as a daemon does: sleeps on the bells when nothing moves.
    async fn lane(&self) {
        loop {
            if self.turn() {
                yield_now().await;
                continue;
            }
            self.host.announce_sleep();
            if !self.host.pump(Nanos::now()).moved() {
                let alarm = self.host.next_deadline().map(|at| at.saturating_since(Nanos::now()));
                tokio::select! {
                    () = self.host.woken() => {}
                    () = self.called.notified() => {}
                    () = sleep(alarm.unwrap_or(HANG)) => {}
                }
            }
            self.host.wake();
        }
    }

    fn turn(&self) -> bool {
        let moved = self.host.pump(Nanos::now());
        let mut sidecar = self.sidecar.borrow_mut();
        while let Some(arrived) = sidecar.poll().expect("the DPA breaks no rules") {
            match arrived {
                Arrived::Response { call, message } => {
                    let waiting = self.waiting.borrow_mut().remove(&call).expect("one outcome for each call");
                    // A test that has ended waits for nothing.
                    let _ = waiting.send(message);
                }
                // Only hostile peers call here.
                Arrived::Request { slot, .. } => {
                    sidecar.respond(slot, ResponseMessage::faulted(Fault::Unroutable))
                }
                Arrived::Cancelled { .. } => {}
            }
        }
        (moved | sidecar.flush()).moved()
    }

    /// Calls, and gives what to await the outcome with.
    pub(crate) fn call(
        &self,
        service: ServiceId,
        body: Bytes,
        within: Duration,
    ) -> oneshot::Receiver<ResponseMessage> {
        let message = RequestMessage {
            service,
            deadline: Nanos::now().saturating_add(within),
            hops: 0,
            method_len: 0,
            target_len: 0,
            head: Bytes::new(),
            body,
        };
        let call = self.sidecar.borrow_mut().call(message).expect("tests wait for their calls");
        let (tell, told) = oneshot::channel();
        self.waiting.borrow_mut().insert(call, tell);
        self.called.notify_one();
        told
    }

    /// Calls the honest service with bodies of many sizes at once: each is answered with itself.
    pub(crate) async fn assert_honest_serve(&self, round: u64) {
        let bodies: Vec<Bytes> =
            [16, 100, 1000, 4000, 20_000].into_iter().map(|len| pattern(len, round)).collect();
        let calls: Vec<_> = bodies.iter().map(|body| self.call(HONEST, body.clone(), HANG)).collect();
        for (call, body) in calls.into_iter().zip(bodies) {
            let answer = call.await.expect("every call has an outcome");
            assert_eq!((answer.fault, answer.status), (Fault::None, 200), "{:?}", self.host.stats());
            assert!(answer.body == body, "another answer than its own");
        }
    }

    pub(crate) async fn until(&self, what: &str, condition: impl Fn(&DpaStats) -> bool) {
        let waited = async {
            while !condition(&self.host.stats()) {
                sleep(Duration::from_millis(1)).await;
            }
        };
        let waited = timeout(HANG / 2, waited).await;
        waited.unwrap_or_else(|_| panic!("never: {what}: {:?}", self.host.stats()));
    }

    /// Starts a process that plays this role, and waits until the DPA has attached it.
    pub(crate) async fn attached(&self, role: &str) -> Child {
        let before = self.host.stats().endpoints;
        let child = self.spawn(role, &[]);
        self.until("it is attached", |stats| stats.endpoints > before).await;
        child
    }

    /// Starts a process that plays this role.
    pub(crate) fn spawn(&self, role: &str, numbers: &[u64]) -> Child {
        Child::spawn(role, &self.socket(), numbers)
    }
}

/// A process that plays a role; killed when this is dropped.
pub(crate) struct Child(std::process::Child);

impl Child {
    pub(crate) fn spawn(role: &str, socket: &Path, numbers: &[u64]) -> Self {
        let numbers: Vec<String> = numbers.iter().map(ToString::to_string).collect();
        let child = Command::new(std::env::current_exe().expect("this test"))
            .args(["--exact", "role", "--nocapture"])
            .env(ROLE, role)
            .env(SOCKET, socket)
            .env(NUMBERS, numbers.join(","))
            .stdout(Stdio::null())
            .spawn();
        Self(child.expect("this test, once more"))
    }

    /// Waits until it has done all that its role asks for; what it asserts is asserted here.
    pub(crate) async fn succeeded(mut self) {
        loop {
            if let Some(status) = self.0.try_wait().expect("our child") {
                return assert!(status.success(), "the role failed: {status}, see above");
            }
            sleep(Duration::from_millis(1)).await;
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // One that has ended by itself cannot be killed, only waited for.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What this process holds of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Holdings {
    pub(crate) descriptors: usize,
    pub(crate) segments: usize,
    pub(crate) resident_kib: u64,
}

impl Holdings {
    pub(crate) fn now() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("Linux");
        let resident = resident.trim().trim_end_matches(" kB").parse().expect("a number");
        let maps = std::fs::read_to_string("/proc/self/maps").expect("Linux");
        Self {
            descriptors: std::fs::read_dir("/proc/self/fd").expect("Linux").count(),
            segments: maps.lines().filter(|line| line.contains("cellmesh-segment")).count(),
            resident_kib: resident,
        }
    }

    /// No more resident memory than `before` and what an allocator may keep: 1 %, and 2 MiB on top because the process
    /// is small.
    pub(crate) fn assert_flat(self, before: Self) {
        let most = before.resident_kib + before.resident_kib / 100 + 2048;
        assert!(self.resident_kib <= most, "{self:?} after {before:?}");
    }
}

/// Bytes that differ from place to place and from seed to seed, so that another's body is seen.
pub(crate) fn pattern(len: usize, seed: u64) -> Bytes {
    let words = (0..len.div_ceil(8) as u64)
        .flat_map(|n| ((n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (seed + len as u64)).to_le_bytes());
    words.take(len).collect::<Vec<u8>>().into()
}
