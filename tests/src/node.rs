//! A running cellmesh.

use std::net::SocketAddr;
use std::process::{Child, ExitStatus};
use std::sync::Mutex;
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::log::Log;
use crate::process::{Ended, Usage, until};
use crate::{Reply, Wire};

/// `cellmesh run`, serving. Killed when it is dropped; its log is printed when the test has failed.
#[derive(Debug)]
pub struct Node {
    address: SocketAddr,
    child: Mutex<Child>,
    stdout: Log,
    log: Log,
    _dir: TempDir,
}

impl Node {
    /// Waits until `child` says where it serves.
    pub(crate) fn serving(mut child: Child, dir: TempDir) -> Self {
        let stdout = Log::of(child.stdout.take().expect("stdout is piped"));
        let log = Log::of(child.stderr.take().expect("stderr is piped"));
        let child = Mutex::new(child);
        until("the first line of cellmesh", || {
            let ended = child.lock().expect("no panic under it").try_wait().expect("our child");
            assert!(ended.is_none(), "cellmesh ended ({ended:?}):\n{}", log.whole());
            stdout.text().contains("serving;")
        });
        let text = stdout.text();
        let address = text.split_once("services on http://").and_then(|(_, rest)| rest.lines().next());
        let address = address.and_then(|address| address.parse().ok());
        let address = address.unwrap_or_else(|| panic!("no address in the first line: {text}"));
        Self { address, child, stdout, log, _dir: dir }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it said at the start.
    #[must_use]
    pub fn greeting(&self) -> String {
        self.stdout.text()
    }

    /// Its log.
    #[must_use]
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// A new connection.
    #[must_use]
    pub fn connect(&self) -> Wire {
        Wire::connect(self.address)
    }

    /// A `GET` of a service, over a connection of its own.
    #[must_use]
    pub fn get(&self, service: &str, target: &str) -> Reply {
        self.connect().get(service, target)
    }

    /// A `POST` to a service, over a connection of its own.
    #[must_use]
    pub fn post(&self, service: &str, target: &str, body: impl AsRef<[u8]>) -> Reply {
        self.connect().post(service, target, body)
    }

    /// Asks, and leaves the answer to be read.
    #[must_use]
    pub fn start_get(&self, service: &str, target: &str) -> Wire {
        let mut wire = self.connect();
        wire.ask("GET", service, target);
        wire
    }

    /// Sends one object over the JSON bridge and reads to the end.
    #[must_use]
    pub fn bridge(&self, object: &Value) -> Value {
        let mut wire = self.connect();
        wire.send(object.to_string());
        let answer = wire.rest();
        serde_json::from_slice(&answer)
            .unwrap_or_else(|error| panic!("{error}: {:?}", String::from_utf8_lossy(&answer)))
    }

    /// What it uses now.
    #[must_use]
    pub fn usage(&self) -> Usage {
        Usage::of(self.child.lock().expect("no panic under it").id())
    }

    /// Waits until `condition` holds; for what there is no event for.
    pub fn until(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        until(what, || condition(self));
    }

    /// Waits until so many deeds of the unruly cell that take long have begun.
    pub fn until_begun(&self, count: usize) {
        let begun = || self.log.lines().iter().filter(|line| line["message"] == "begun").count();
        until("the beginning of all deeds", || begun() >= count);
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let child = self.child.lock().expect("no panic under it");
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).expect("a process id");
        kill_process(pid, signal).expect("our child runs");
    }

    /// SIGTERM, and how it ended.
    #[must_use]
    pub fn stop(self) -> Ended {
        self.signal(Signal::TERM);
        self.ended()
    }

    /// Waits until it has ended.
    #[must_use]
    pub fn ended(self) -> Ended {
        let start = Instant::now();
        until("the end of cellmesh", || self.exit_status().is_some());
        let code = self.exit_status().and_then(|status| status.code());
        Ended { code, stdout: self.stdout.whole(), stderr: self.log.whole(), took: start.elapsed() }
    }

    fn exit_status(&self) -> Option<ExitStatus> {
        self.child.lock().expect("no panic under it").try_wait().expect("our child")
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the log of the node on {}:\n{}\n---", self.address, self.log.text());
        }
        if let Ok(child) = self.child.get_mut() {
            // One that has ended already is what we want.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
