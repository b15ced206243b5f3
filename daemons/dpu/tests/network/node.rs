//! A node on one lane: the DPU under test, a DPA, and a worker that follows a script.
//!
//! Services `s0` (the entry) and `s1` are served by the worker, `idle` by nobody. The worker answers
//! by target, see [`script`].

use std::cell::RefCell;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cellmesh_dpa::{Dpa, DpaConfig};
use cellmesh_dpu::{Dpu, DpuConfig, Routes, ServiceName, serve_connection};
use cellmesh_shm::clock::Nanos;
use cellmesh_shm::head::HeadBuilder;
use cellmesh_shm::ids::{CallId, EndpointId, ServiceId, SlotId};
use cellmesh_shm::link::Link;
use cellmesh_shm::message::{Fault, RequestMessage, ResponseMessage};
use cellmesh_shm::port::{Arrived, Port, PortConfig, Progress};
use cellmesh_shm::profile::RingProfile;
use tokio::net::TcpListener;

use crate::client::soon;

const BIG: usize = 16 * 1024 * 1024;

/// A request as the worker saw it.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) service: ServiceId,
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }
}

/// The scripted worker and what it has seen.
pub(crate) struct Worker {
    pub(crate) port: Port,
    endpoint: EndpointId,
    seen: Vec<Seen>,
    /// Requests that it was told never to answer.
    held: Vec<SlotId>,
    cancelled: usize,
    /// Answers to its own calls.
    pub(crate) answers: Vec<(CallId, ResponseMessage)>,
}

pub(crate) struct Node {
    pub(crate) addr: SocketAddr,
    pub(crate) dpu: Dpu,
    dpa: Rc<RefCell<Dpa>>,
    pub(crate) worker: Rc<RefCell<Worker>>,
}

/// Runs `test` on a node with default limits.
pub(crate) fn check(test: impl AsyncFnOnce(Node)) {
    check_with(DpuConfig::default(), test);
}

/// Runs `test` on a node, and checks afterwards that nothing of it is left.
pub(crate) fn check_with(config: DpuConfig, test: impl AsyncFnOnce(Node)) {
    assert_eq!(config.validate(), []);
    on_lane(async {
        let node = Node::start(config).await;
        let dpu = node.dpu.clone();
        test(node).await;
        let stats = dpu.stats();
        let ended = stats.answered + stats.refused + stats.abandoned;
        assert_eq!(stats.received, ended + stats.in_flight, "{stats:?}");
    });
}

/// Runs `test` where a lane runs.
pub(crate) fn on_lane(test: impl Future<Output = ()>) {
    on_lane_boxed(Box::pin(test));
}

/// Tokio's part of it is compiled once, not for each test.
fn on_lane_boxed(test: Pin<Box<dyn Future<Output = ()> + '_>>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    tokio::task::LocalSet::new().block_on(&runtime, test);
}

pub(crate) fn routes() -> Arc<Routes> {
    let services = ["s0", "s1", "idle"].map(|name| name.parse().expect("a name")).to_vec();
    Arc::new(Routes::new(services, ServiceId(0)).expect("valid routes"))
}

/// A DPU at the far end of `link`, whose DPA knows the services by the same numbers.
pub(crate) fn attached(link: Link, config: DpuConfig) -> Dpu {
    let dpu = Dpu::new(routes(), config);
    attach(&dpu, link);
    dpu
}

fn attach(dpu: &Dpu, link: Link) {
    dpu.attach(link, u32::MAX, routes().services().iter().map(ServiceName::as_str));
}

/// A DPA, and the far end of its sidecar.
fn dpa() -> (Dpa, Link) {
    let mut dpa = Dpa::new(DpaConfig::default());
    let sidecar = dpa.attach_sidecar(RingProfile::default()).expect("memory");
    (dpa, Link::open(sidecar).expect("fresh descriptors"))
}

impl Node {
    pub(crate) async fn start(config: DpuConfig) -> Self {
        let (mut dpa, sidecar) = dpa();
        let worker = Rc::new(RefCell::new(Worker::attached(&mut dpa)));
        let dpu = attached(sidecar, config);
        let dpa = Rc::new(RefCell::new(dpa));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let addr = listener.local_addr().expect("bound");
        tokio::task::spawn_local(accept(listener, dpu.clone()));
        tokio::task::spawn_local(pump(Rc::clone(&dpa), dpu.clone(), Rc::clone(&worker)));
        Self { addr, dpu, dpa, worker }
    }

    /// The worker dies, and another comes.
    pub(crate) fn replace_worker(&self) {
        let (worker, dpa) = (&mut *self.worker.borrow_mut(), &mut *self.dpa.borrow_mut());
        dpa.detach(worker.endpoint);
        *worker = Worker::attached(dpa);
        self.dpu.work().notify_one();
    }

    /// The DPA dies and its worker with it, and others come.
    pub(crate) fn replace_dpa(&self) {
        self.dpu.detach();
        let (mut dpa, sidecar) = dpa();
        *self.worker.borrow_mut() = Worker::attached(&mut dpa);
        *self.dpa.borrow_mut() = dpa;
        attach(&self.dpu, sidecar);
    }

    pub(crate) fn seen_count(&self) -> usize {
        self.worker.borrow().seen.len()
    }

    pub(crate) fn last_seen(&self) -> Seen {
        self.worker.borrow().seen.last().expect("the worker has seen a request").clone()
    }

    pub(crate) fn cancelled_count(&self) -> usize {
        self.worker.borrow().cancelled
    }

    /// Answers every request that was held, also those that nobody waits for any more.
    pub(crate) fn answer_all_held(&self) {
        let worker = &mut *self.worker.borrow_mut();
        for slot in worker.held.drain(..) {
            worker.port.respond(slot, answer(200, Bytes::from_static(b"late")));
        }
        self.dpu.work().notify_one();
    }

    /// Waits until `condition` holds.
    pub(crate) async fn until(&self, condition: impl Fn(&Self) -> bool) {
        soon("condition", async {
            while !condition(self) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
        .await;
    }

    /// Waits until the node holds nothing of any client.
    pub(crate) async fn settled(&self) {
        self.until(|node| {
            let stats = node.dpu.stats();
            (stats.in_flight, stats.connections_open, stats.buffered_bytes, stats.dispatched) == (0, 0, 0, 0)
        })
        .await;
    }
}

pub(crate) async fn accept(listener: TcpListener, dpu: Dpu) {
    loop {
        let (tcp, _) = listener.accept().await.expect("accepts");
        tokio::task::spawn_local(serve_connection(dpu.clone(), tcp));
    }
}

/// What a co-hosting lane does: everything in a circle until nothing moves, then sleep.
async fn pump(dpa: Rc<RefCell<Dpa>>, dpu: Dpu, worker: Rc<RefCell<Worker>>) {
    loop {
        let now = Nanos::now();
        let mut progress = dpu.pump(now);
        progress |= dpa.borrow_mut().pump(now);
        progress |= worker.borrow_mut().pump();
        if progress.moved() {
            tokio::task::yield_now().await;
            continue;
        }
        let next = [dpa.borrow().next_deadline(), dpu.next_deadline()].into_iter().flatten().min();
        let wait = next.map_or(Duration::from_secs(3600), |next| next.saturating_since(Nanos::now()));
        tokio::select! {
            () = dpu.work().notified() => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
}

impl Worker {
    fn attached(dpa: &mut Dpa) -> Self {
        let fds = dpa.attach_worker(&[ServiceId(0), ServiceId(1)], RingProfile::default()).expect("memory");
        let (endpoint, link) = (fds.spec.endpoint, Link::open(fds).expect("fresh descriptors"));
        let message_bytes_max = u32::try_from(BIG + 64 * 1024).expect("fits");
        let config = PortConfig {
            calls_max: 64,
            message_bytes_max,
            assembly_bytes_max: u64::from(message_bytes_max) * 4,
        };
        Self {
            port: Port::new(link, config),
            endpoint,
            seen: Vec::new(),
            held: Vec::new(),
            cancelled: 0,
            answers: Vec::new(),
        }
    }

    fn pump(&mut self) -> Progress {
        let mut progress = Progress::Idle;
        while let Some(arrived) = self.port.poll().expect("an honest DPA") {
            progress = Progress::Moved;
            match arrived {
                Arrived::Request { slot, message } => self.on_request(slot, message),
                Arrived::Response { call, message } => self.answers.push((call, message)),
                Arrived::Cancelled { .. } => self.cancelled += 1,
            }
        }
        progress |= self.port.flush();
        progress
    }

    fn on_request(&mut self, slot: SlotId, message: RequestMessage) {
        message
            .headers()
            .check(cellmesh_shm::head::HeadLimits::with_added())
            .expect("the DPU sends good heads");
        self.seen.push(seen(&message));
        match script(&message) {
            Some(answer) => self.port.respond(slot, answer),
            None => self.held.push(slot),
        }
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn seen(message: &RequestMessage) -> Seen {
    Seen {
        service: message.service,
        method: text(message.method()),
        target: text(message.target()),
        headers: message.headers().iter().map(|(name, value)| (name.to_owned(), text(value))).collect(),
        body: message.body.to_vec(),
    }
}

/// What the worker answers; `None`: nothing, until told to.
fn script(message: &RequestMessage) -> Option<ResponseMessage> {
    let target = text(message.target());
    let status = target.strip_prefix("/status/").and_then(|status| status.parse().ok());
    Some(match target.split('?').next().unwrap_or_default() {
        "/never" => return None,
        "/hello" => answer(200, Bytes::from_static(b"hello")),
        "/echo" => answer(200, message.body.clone()),
        "/big" => answer(200, vec![b'x'; BIG].into()),
        "/bytes" => answer(200, Bytes::from_static(b"a\xffb")),
        "/answer-head" => ResponseMessage {
            status: 200,
            fault: Fault::None,
            head: message.body.clone(),
            body: Bytes::from_static(b"head"),
        },
        _ if status.is_some() => answer(status.unwrap_or_default(), Bytes::from_static(b"status")),
        _ => answer(200, target.into()),
    })
}

fn answer(status: u16, body: Bytes) -> ResponseMessage {
    let mut head = HeadBuilder::response();
    head.push("content-type", b"text/plain").expect("a header");
    ResponseMessage { status, fault: Fault::None, head: head.finish(), body }
}
