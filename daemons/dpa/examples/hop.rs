//! What a call between two co-hosted workers costs, next to a TCP round trip over loopback in the same run.
//!
//! `cargo run --release -p cellmesh-dpa --example hop [-- <body bytes>...]`
//!
//! Prints medians. A call is: worker port, DPA, worker port, and the answer back the same way, all pumped by one
//! thread; a hop is half of it.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use bytes::Bytes;
use cellmesh_dpa::{Dpa, DpaConfig};
use cellmesh_shm::clock::Nanos;
use cellmesh_shm::ids::ServiceId;
use cellmesh_shm::link::Link;
use cellmesh_shm::message::{Fault, RequestMessage, ResponseMessage};
use cellmesh_shm::port::{Arrived, Port, PortConfig};

const SERVICE: ServiceId = ServiceId(0);
/// Calls per sample: a sample is long against the clock's own cost.
const BATCH: u32 = 100;
const SAMPLES: usize = 501;
const TCP_ROUND_TRIPS: usize = 2_000;

fn main() {
    println!("{:>10}  {:>12}  {:>12}  {:>14}  {:>9}", "body", "call", "hop", "TCP round trip", "TCP/hop");
    let asked: Vec<usize> =
        std::env::args().skip(1).map(|arg| arg.parse().expect("a number of bytes")).collect();
    let sizes = if asked.is_empty() { vec![64, 1 << 10, 8 << 10, 64 << 10, 1 << 20] } else { asked };
    for body_bytes in sizes {
        let call = median_call(body_bytes);
        let tcp = median_tcp(body_bytes);
        let ratio = tcp.as_secs_f64() / (call.as_secs_f64() / 2.0);
        println!("{body_bytes:>8} B  {call:>12.2?}  {:>12.2?}  {tcp:>14.2?}  {ratio:>9.0}", call / 2);
    }
}

struct Lane {
    dpa: Dpa,
    caller: Port,
    callee: Port,
    now: Nanos,
}

impl Lane {
    fn new() -> Self {
        let config = DpaConfig::default();
        let mut dpa = Dpa::new(config);
        let open = |fds| Port::new(Link::open(fds).expect("its own link"), PortConfig::default());
        let mut sidecar = open(dpa.attach_sidecar(config.profile).expect("memory"));
        let caller = open(dpa.attach_worker(&[], config.profile).expect("memory"));
        let callee = open(dpa.attach_worker(&[SERVICE], config.profile).expect("memory"));
        let mut lane = Self { dpa, caller, callee, now: Nanos::now() };
        lane.install_flow(&mut sidecar);
        lane
    }

    /// The first call, which a sidecar decides about.
    fn install_flow(&mut self, sidecar: &mut Port) {
        self.caller.call(request(Bytes::new())).expect("one call at a time");
        self.caller.flush();
        self.dpa.pump(self.now);
        let Ok(Some(Arrived::Request { slot, .. })) = sidecar.poll() else { panic!("the slow path") };
        sidecar.install_flow(slot);
        sidecar.respond(slot, response(Bytes::new()));
        sidecar.flush();
        self.dpa.pump(self.now);
        assert!(matches!(self.caller.poll(), Ok(Some(Arrived::Response { .. }))));
    }

    /// A call whose answer is its body.
    fn call(&mut self, body: Bytes) {
        self.caller.call(request(body)).expect("one call at a time");
        loop {
            self.caller.flush();
            self.dpa.pump(self.now);
            while let Some(arrived) = self.callee.poll().expect("an honest DPA") {
                let Arrived::Request { slot, message } = arrived else {
                    panic!("not a request: {arrived:?}")
                };
                self.callee.respond(slot, response(message.body));
            }
            self.callee.flush();
            self.dpa.pump(self.now);
            if let Some(arrived) = self.caller.poll().expect("an honest DPA") {
                assert!(
                    matches!(arrived, Arrived::Response { ref message, .. } if message.fault == Fault::None)
                );
                return;
            }
        }
    }
}

fn request(body: Bytes) -> RequestMessage {
    RequestMessage {
        service: SERVICE,
        deadline: Nanos::MAX,
        hops: 0,
        method_len: 0,
        target_len: 0,
        head: Bytes::new(),
        body,
    }
}

fn response(body: Bytes) -> ResponseMessage {
    ResponseMessage { status: 200, fault: Fault::None, head: Bytes::new(), body }
}

fn median_call(body_bytes: usize) -> Duration {
    let mut lane = Lane::new();
    let body = Bytes::from(vec![7; body_bytes]);
    let samples = if body_bytes > 100_000 { SAMPLES / 10 } else { SAMPLES };
    let sample = |_| {
        let start = Instant::now();
        (0..BATCH).for_each(|_| lane.call(body.clone()));
        start.elapsed() / BATCH
    };
    median((0..samples).map(sample).collect())
}

fn median_tcp(body_bytes: usize) -> Duration {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    std::thread::spawn(move || echo(listener.accept().expect("one client").0, body_bytes));
    let mut stream = TcpStream::connect(address).expect("the listener above");
    stream.set_nodelay(true).expect("TCP");
    let mut body = vec![7; body_bytes];
    let round_trip = |_| {
        let start = Instant::now();
        stream.write_all(&body).expect("the echo");
        stream.read_exact(&mut body).expect("the echo");
        start.elapsed()
    };
    median((0..TCP_ROUND_TRIPS).map(round_trip).collect())
}

/// Reads whole bodies before it answers, as a service does. Ends with its client.
fn echo(mut stream: TcpStream, body_bytes: usize) {
    stream.set_nodelay(true).expect("TCP");
    let mut body = vec![0; body_bytes];
    while stream.read_exact(&mut body).is_ok() && stream.write_all(&body).is_ok() {}
}

fn median(mut samples: Vec<Duration>) -> Duration {
    samples.sort_unstable();
    samples[samples.len() / 2]
}
