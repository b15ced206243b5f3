//! Rolling restart: a process takes the place of another while clients go on over connections that they keep. Short here; a
//! long one: `CELLMESH_ROUNDS=20`.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use cellmesh_tests::{H2, Node, Run, SetOnDrop, Wire};
use http::Method;
use rustix::process::Signal;

/// Clients of each protocol.
const CLIENTS: usize = 3;

/// What a balancer tells: where new connections go.
struct Place(Mutex<SocketAddr>);

impl Place {
    fn now(&self) -> SocketAddr {
        *self.0.lock().expect("no panic under it")
    }
}

struct Work<'a> {
    place: &'a Place,
    stop: &'a AtomicBool,
    /// Requests that were answered whole.
    answered: &'a AtomicU64,
    /// Connections that were given up because the node said so.
    moved: &'a AtomicU64,
}

impl Work<'_> {
    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    fn count(&self, counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Keeps a connection until an answer says that it is the last one there.
    fn over_http1(&self, body: &[u8]) {
        let mut wire = Wire::connect(self.place.now());
        while self.goes_on() {
            let reply = wire.post("s0", "/echo", body);
            assert_eq!((reply.status, reply.body == body), (200, true), "{reply:?}");
            self.count(self.answered);
            if reply.header("connection") == Some("close") {
                self.count(self.moved);
                wire = Wire::connect(self.place.now());
            }
        }
    }

    /// Keeps a connection until it takes no requests any more.
    fn over_http2(&self, body: &Bytes) {
        let mut h2 = H2::connect(self.place.now());
        while self.goes_on() {
            match h2.finish(h2.start(Method::POST, "s0", "/echo", body.clone())) {
                Ok(reply) => {
                    assert_eq!((reply.status, reply.body == *body), (200, true), "{reply:?}");
                    self.count(self.answered);
                }
                // It was not sent.
                Err(error) if error.is_canceled() || error.is_closed() => {
                    self.count(self.moved);
                    h2 = H2::connect(self.place.now());
                }
                Err(error) => panic!("{error:?}"),
            }
        }
    }
}

fn node() -> Node {
    let app = r#"
        [runtime]
        drain_delay = "1s"
        [[cell]]
        component = "{cells}/unruly.wasm"
        services = ["s0"]
        "#;
    Run::app(app).start()
}

/// A new process is started, new connections go there, the old one is told to end: no request fails or is cut, over connections
/// that are kept and by clients that do as they are told.
#[test]
fn nothing_fails_while_processes_are_replaced() {
    let rounds = std::env::var("CELLMESH_ROUNDS").map_or(2, |rounds| rounds.parse().expect("a number"));
    let mut old = node();
    let place = Place(Mutex::new(old.address()));
    let (stop, answered, moved) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let work = || Work { place: &place, stop: &stop, answered: &answered, moved: &moved };
        let clients: Vec<_> = (0..2 * CLIENTS)
            .map(|number| {
                let (work, body) = (work(), vec![b'a' + u8::try_from(number).expect("few"); 700 * number]);
                scope.spawn(move || {
                    if number < CLIENTS { work.over_http1(&body) } else { work.over_http2(&body.into()) }
                })
            })
            .collect();
        let _stopped = SetOnDrop(&stop);
        for round in 0..rounds {
            let new = node();
            *place.0.lock().expect("no panic under it") = new.address();
            old.signal(Signal::TERM);
            let ended = std::mem::replace(&mut old, new).ended();
            assert_eq!(ended.code, Some(0), "round {round}: {}", ended.stderr);
            assert!(clients.iter().all(|client| !client.is_finished()), "a client has failed");
        }
    });
    let (answered, moved) = (answered.into_inner(), moved.into_inner());
    assert!(moved >= 2 * CLIENTS as u64 * rounds, "{moved} times another connection");
    println!("{rounds} processes replaced: {answered} requests answered, {moved} times another connection");
}
