use std::fmt::Debug;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use cellmesh_shm::attach::{Attached, Received};
use cellmesh_shm::frame::{FrameHeader, FrameKind};
use cellmesh_shm::ids::{CallId, SlotId};
use cellmesh_shm::link::Link;
use cellmesh_shm::message::{Fault, ResponseMessage};
use cellmesh_shm::peer::Hostile;
use cellmesh_shm::port::{Arrived, Port, PortConfig};
use tokio::task::{LocalSet, yield_now};
use tracing::field::Field;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

use super::*;
use crate::testing::{answer, request};

const S0: ServiceId = ServiceId(0);

/// A node with the services `s0` and `s1`, and two sockets: one for everybody, one for workers of `s1` only.
struct Node {
    host: DpaHost,
    folder: tempfile::TempDir,
}

/// A process, as far as the DPA sees it.
struct Process {
    channel: Channel,
    ports: Vec<Port>,
    welcome: Welcome,
}

/// Runs `test` where a lane runs, beside the lane's own loop.
fn check(test: impl AsyncFnOnce(&Node)) {
    check_with(DpaConfig::default(), test);
}

fn check_with(config: DpaConfig, test: impl AsyncFnOnce(&Node)) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    // Boxed: tokio's part of it is compiled once, not for each test.
    let whole: Pin<Box<dyn Future<Output = ()>>> = Box::pin(async {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let host = DpaHost::new(config, vec!["s0".into(), "s1".into()]).expect("descriptors");
        let node = Node { host: host.clone(), folder };
        let all = Admission { services: None, sidecars: true };
        let some = Admission { services: Some(["s1".to_owned()].into()), sidecars: false };
        for (path, admission) in [(node.socket(), all), (node.narrow_socket(), some)] {
            let listener = AttachListener::bind(&path).expect("a free path");
            tokio::task::spawn_local(host.clone().serve(listener, admission));
        }
        tokio::task::spawn_local(lane(host.clone()));
        timeout(Duration::from_secs(30), test(&node)).await.expect("it does not hang");
        let stats = host.stats();
        assert!(stats.is_balanced(), "{stats:?}");
    });
    LocalSet::new().block_on(&runtime, whole);
}

/// Pumps as a daemon does: sleeps on the bells when nothing moves.
async fn lane(host: DpaHost) {
    loop {
        if host.pump(Nanos::now()).moved() {
            yield_now().await;
            continue;
        }
        host.announce_sleep();
        if !host.pump(Nanos::now()).moved() {
            let alarm = host.next_deadline().map(|at| at.saturating_since(Nanos::now()));
            drop(timeout(alarm.unwrap_or(Duration::from_secs(3600)), host.woken()).await);
        }
        host.wake();
    }
}

impl Node {
    fn socket(&self) -> PathBuf {
        self.folder.path().join("dpa.sock")
    }

    fn narrow_socket(&self) -> PathBuf {
        self.folder.path().join("s1.sock")
    }

    async fn attach(&self, hello: Hello) -> Process {
        Process::attach(&self.socket(), hello).await.expect("admitted")
    }

    async fn until(&self, what: &str, condition: impl Fn(&DpaStats) -> bool) {
        for _ in 0..5000 {
            if condition(&self.host.stats()) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        panic!("never: {what}: {:?}", self.host.stats());
    }
}

fn worker(services: &[&str], lanes: u16) -> Hello {
    let services = services.iter().map(ToString::to_string).collect();
    Hello { name: "w".into(), role: Role::Worker, services, lanes, profile: None }
}

fn sidecar() -> Hello {
    Hello { role: Role::Sidecar, ..worker(&[], 1) }
}

async fn received(channel: &Channel) -> Result<Received, ChannelError> {
    loop {
        match channel.receive_from_dpa() {
            Err(error) if error.would_block() => tokio::time::sleep(Duration::from_millis(1)).await,
            received => return received,
        }
    }
}

impl Process {
    async fn attach(path: &std::path::Path, hello: Hello) -> Result<Self, String> {
        let channel = Channel::connect(path).expect("the DPA listens");
        channel.send_to_dpa(&ToDpa::Hello(hello)).expect("room");
        match received(&channel).await.map_err(|error| error.to_string())? {
            Received::Attached(attached) => Ok(Self::of(channel, *attached)),
            Received::Said(FromDpa::Refused { why }) => Err(why),
            Received::Said(other) => panic!("{other:?}"),
        }
    }

    fn of(channel: Channel, attached: Attached) -> Self {
        let Attached { welcome, links } = attached;
        let config = PortConfig { calls_max: welcome.calls_max, ..PortConfig::default() };
        let port = |fds| Port::new(Link::open(fds).expect("right segments"), config);
        Self { channel, ports: links.into_iter().map(port).collect(), welcome }
    }

    fn call(&mut self, service: ServiceId) -> CallId {
        let call = self.ports[0].call(request(service, Bytes::new())).expect("few calls");
        self.ports[0].flush();
        call
    }

    async fn next(&mut self) -> Arrived {
        loop {
            for port in &mut self.ports {
                if let Some(arrived) = port.poll().expect("the DPA breaks no rules") {
                    port.flush();
                    return arrived;
                }
                port.flush();
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    async fn next_slot(&mut self) -> SlotId {
        match self.next().await {
            Arrived::Request { slot, .. } => slot,
            other @ (Arrived::Response { .. } | Arrived::Cancelled { .. }) => {
                panic!("a request was expected, not {other:?}")
            }
        }
    }

    async fn next_response(&mut self) -> ResponseMessage {
        match self.next().await {
            Arrived::Response { message, .. } => message,
            other @ (Arrived::Request { .. } | Arrived::Cancelled { .. }) => {
                panic!("a response was expected, not {other:?}")
            }
        }
    }

    fn respond(&mut self, slot: SlotId) {
        self.ports[0].respond(slot, answer(Bytes::from_static(b"hi")));
        self.ports[0].flush();
    }
}

/// A request goes from one process through the DPA to another, and its answer back; a sleeping DPA is woken for both.
#[test]
fn processes_talk_through_the_dpa() {
    check(async |node| {
        let mut caller = node.attach(sidecar()).await;
        let mut callee = node.attach(worker(&["s0"], 1)).await;
        assert_eq!(caller.welcome.services, ["s0", "s1"]);
        for _ in 0..10 {
            caller.call(S0);
            let slot = callee.next_slot().await;
            callee.respond(slot);
            assert_eq!(caller.next_response().await.body, "hi");
        }
    });
}

/// The end of a worker's socket ends what is in flight on it at once, and gives all that it had back.
#[test]
fn death_is_noticed_by_the_socket() {
    check(async |node| {
        let mut caller = node.attach(sidecar()).await;
        let mut callee = node.attach(worker(&["s0"], 2)).await;
        node.until("three endpoints", |stats| stats.endpoints == 3).await;
        caller.call(S0);
        callee.next_slot().await;
        drop(callee);
        assert_eq!(caller.next_response().await.fault, Fault::WorkerLost);
        node.until("one endpoint", |stats| stats.endpoints == 1 && stats.live == 0).await;
        caller.call(S0);
        assert_eq!(caller.next_response().await.fault, Fault::NoWorker);
        assert_eq!(node.host.0.peers.borrow().len(), 1);
        let mut again = node.attach(worker(&["s0"], 1)).await;
        caller.call(S0);
        let slot = again.next_slot().await;
        again.respond(slot);
        assert_eq!(caller.next_response().await.fault, Fault::None);
    });
}

/// A worker that wants to end gets nothing new, keeps what it has, and is told when nothing more will come.
#[test]
fn leaving_worker_finishes() {
    check(async |node| {
        let mut caller = node.attach(sidecar()).await;
        let mut leaving = node.attach(worker(&["s0"], 1)).await;
        caller.call(S0);
        let slot = leaving.next_slot().await;
        leaving.channel.send_to_dpa(&ToDpa::Leave).expect("room");
        let left = received(&leaving.channel).await.expect("an answer");
        assert!(matches!(left, Received::Said(FromDpa::Left)), "{left:?}");
        caller.call(S0);
        assert_eq!(caller.next_response().await.fault, Fault::NoWorker);
        leaving.respond(slot);
        assert_eq!(caller.next_response().await.body, "hi");
    });
}

/// Which socket a process came in on says what it may serve; what is refused is told why.
#[test]
fn admission_is_by_socket() {
    check(async |node| {
        let refused = async |path: PathBuf, hello: Hello, part: &str| {
            let why = Process::attach(&path, hello).await.err().expect("not admitted");
            assert!(why.contains(part), "{why}");
        };
        refused(node.narrow_socket(), worker(&["s0"], 1), "\"s0\" may not be served through this socket")
            .await;
        refused(node.narrow_socket(), sidecar(), "sidecars may not attach").await;
        refused(node.socket(), worker(&["s9"], 1), "\"s9\" is not known here; known: s0, s1").await;
        let profile = Some(RingProfile { chunk_bytes: 8192, ..RingProfile::default() });
        refused(node.socket(), Hello { profile, ..worker(&["s0"], 1) }, "chunk_bytes = 8192: must be 16384")
            .await;
        let profile = Some(RingProfile { small_bytes: 16 << 20, ..RingProfile::default() });
        refused(node.socket(), Hello { profile, ..worker(&["s0"], 1) }, "must be at most 4194304").await;
        drop(Process::attach(&node.narrow_socket(), worker(&["s1"], 1)).await.expect("admitted"));
        node.until("nobody", |stats| stats.endpoints == 0).await;
    });
}

/// A peer of another release is told both versions; one that talks nonsense, or says nothing, is let go.
#[test]
fn handshake_garbage_is_refused() {
    check(async |node| {
        let mut old = ToDpa::Hello(worker(&["s0"], 1)).encode();
        old[8] = 77;
        for (packet, part) in [
            (old, "version 77 of the attach protocol, this is version 2"),
            (b"GET / HTTP/1.1".to_vec(), "not of cellmesh"),
            (ToDpa::Leave.encode(), "before its hello"),
        ] {
            let channel = Channel::connect(&node.socket()).expect("the DPA listens");
            channel.send(&packet, &[]).expect("room");
            match received(&channel).await.expect("an answer") {
                Received::Said(FromDpa::Refused { why }) => assert!(why.contains(part), "{why}"),
                other @ (Received::Attached(_) | Received::Said(_)) => panic!("{other:?}"),
            }
            assert!(matches!(received(&channel).await, Err(ChannelError::Ended)));
        }
        let silent = Channel::connect(&node.socket()).expect("the DPA listens");
        assert!(matches!(received(&silent).await, Err(ChannelError::Ended)));
    });
}

/// What is logged while it is the subscriber of a thread: the text of each warning.
#[derive(Debug, Clone, Default)]
struct Warnings(Arc<Mutex<Vec<String>>>);

impl Subscriber for Warnings {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && *metadata.level() == Level::WARN
    }

    fn event(&self, event: &Event<'_>) {
        let mut text = String::new();
        event.record(&mut |field: &Field, value: &dyn Debug| _ = write!(text, "{field}={value:?} "));
        self.0.lock().expect("no panic under it").push(text);
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// A process that comes again and again to where it may not is told why each time; the log is told once for each reason.
#[test]
fn repeated_refusal_is_logged_once() {
    let warnings = Warnings::default();
    let _logging = tracing::subscriber::set_default(warnings.clone());
    check(async |node| {
        for (service, part) in [("s0", "\"s0\" may not be served"), ("s9", "\"s9\" is not known here")] {
            for _ in 0..50 {
                let why = Process::attach(&node.narrow_socket(), worker(&[service], 1)).await.err();
                assert!(why.as_ref().is_some_and(|why| why.contains(part)), "{why:?}");
            }
        }
    });
    let told = warnings.0.lock().expect("no panic under it");
    let pid = format!("pid={} ", std::process::id());
    assert_eq!(told.len(), 2, "{told:#?}");
    for (text, part) in told.iter().zip(["\"s0\" may not be served", "\"s9\" is not known here"]) {
        assert!(text.contains(part) && text.contains(&pid) && text.contains("peer=\"w\""), "{text}");
    }
}

/// A worker that takes nothing is let go, its caller is told, and its process sees the end of its socket.
#[test]
fn stalled_worker_is_let_go() {
    let config = DpaConfig { stall_timeout: Duration::from_millis(100), ..DpaConfig::default() };
    check_with(config, async |node| {
        let mut caller = node.attach(sidecar()).await;
        let stalled = node.attach(worker(&["s0"], 1)).await;
        caller.call(S0);
        assert_eq!(caller.next_response().await.fault, Fault::WorkerLost);
        assert!(matches!(received(&stalled.channel).await, Err(ChannelError::Ended)));
        let stats = node.host.stats();
        assert_eq!((stats.stalled, stats.closed(), stats.endpoints), (1, 1, 1), "{stats:?}");
    });
}

/// Who broke a rule waits before it may attach again, and is told for how long; afterwards it is served as before. Who was
/// only slow does not wait.
#[test]
fn offender_waits_before_it_comes_back() {
    let config = DpaConfig { reattach_delay: Duration::from_secs(2), ..DpaConfig::default() };
    check_with(config, async |node| {
        let mut caller = node.attach(sidecar()).await;
        let (channel, mut hostile) = attach_hostile(node).await;
        let header = FrameHeader::new(FrameKind::FlowRemove, 0);
        assert_eq!(hostile.forge(&header), Ok(true));
        hostile.link.publish();
        assert!(matches!(received(&channel).await, Err(ChannelError::Ended)));
        let why = Process::attach(&node.socket(), worker(&["s0"], 1)).await.err().expect("it has to wait");
        assert!(why.contains("broke a rule 1 times lately, and may attach 2s after"), "{why}");
        caller.call(S0);
        assert_eq!(caller.next_response().await.fault, Fault::NoWorker);
        drop(Process::attach(&node.narrow_socket(), worker(&["s1"], 1)).await.expect("another socket"));
        let mut again = loop {
            if let Ok(attached) = Process::attach(&node.socket(), worker(&["s0"], 1)).await {
                break attached;
            }
        };
        caller.call(S0);
        let slot = again.next_slot().await;
        again.respond(slot);
        assert_eq!(caller.next_response().await.fault, Fault::None);
    });
}

/// A peer that rings more often than the DPA sleeps is let go.
#[test]
fn peer_that_rings_for_nothing_is_let_go() {
    let config = DpaConfig { reattach_delay: Duration::ZERO, ..DpaConfig::default() };
    check_with(config, async |node| {
        let mut caller = node.attach(sidecar()).await;
        let (_channel, hostile) = attach_hostile(node).await;
        // A full bell wakes nobody: it is others that make the DPA wake, and sleep again.
        while node.host.stats().closed() == 0 {
            (0..10).for_each(|_| hostile.ring());
            caller.call(ServiceId(1));
            assert_eq!(caller.next_response().await.fault, Fault::NoWorker);
        }
        let stats = node.host.stats();
        assert_eq!((stats.violations, stats.closed(), stats.endpoints), (1, 1, 1), "{stats:?}");
    });
}

async fn attach_hostile(node: &Node) -> (Channel, Hostile) {
    let channel = Channel::connect(&node.socket()).expect("the DPA listens");
    channel.send_to_dpa(&ToDpa::Hello(worker(&["s0"], 1))).expect("room");
    match received(&channel).await.expect("an answer") {
        Received::Attached(attached) => {
            let link = attached.links.into_iter().next().expect("one lane was asked for");
            (channel, Hostile::open(link).expect("right segments"))
        }
        Received::Said(other) => panic!("{other:?}"),
    }
}

/// A slow worker is none that stalls: it takes its requests, however long it works on them.
#[test]
fn slow_worker_is_not_stalled() {
    let config = DpaConfig { stall_timeout: Duration::from_millis(50), ..DpaConfig::default() };
    check_with(config, async |node| {
        let mut caller = node.attach(sidecar()).await;
        let mut slow = node.attach(worker(&["s0"], 1)).await;
        caller.call(S0);
        let slot = slow.next_slot().await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        slow.respond(slot);
        assert_eq!(caller.next_response().await.body, "hi");
    });
}

/// Coming and going a thousand times leaves no endpoint, peer or descriptor behind.
#[test]
fn coming_and_going_leaves_nothing() {
    let descriptors = || std::fs::read_dir("/proc/self/fd").expect("Linux").count();
    check(async |node| {
        let settled = async || node.until("nobody", |stats| stats.endpoints == 0).await;
        drop(node.attach(worker(&["s0", "s1"], 2)).await);
        settled().await;
        let before = descriptors();
        for _ in 0..100 {
            let mut attached = Vec::new();
            for _ in 0..10 {
                attached.push(node.attach(worker(&["s0", "s1"], 2)).await);
            }
            drop(attached);
        }
        settled().await;
        // Other tests of this process come and go too.
        assert!(descriptors() < before + 100, "{} after {before}", descriptors());
        assert!(node.host.0.peers.borrow().is_empty() && node.host.0.leaving.borrow().is_empty());
    });
}

/// A process may say that it serves a thousand services, and one of them a thousand times: its log lines are short.
#[test]
fn listed_services_are_few() {
    let names = |count: usize| (0..count).map(|name| format!("s{name:03}")).collect::<Vec<_>>();
    assert_eq!(listed(&names(2)), "s000, s001");
    assert_eq!(listed(&names(8)).matches(", ").count(), 7);
    assert!(listed(&names(1000)).ends_with("s006, s007 and 992 more"));
    assert_eq!(listed(&vec!["s".to_owned(); 1000]), "s");
}
