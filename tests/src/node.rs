//! A running cellmesh.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ExitStatus};
use std::sync::Mutex;
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::log::Log;
use crate::process::{Ended, Usage, until};
use crate::run::app_text;
use crate::{Reply, Wire};

/// A cellmesh that serves: one process, or, split, a node and its workers. Killed when it is dropped; its log is
/// printed when the test has failed.
#[derive(Debug)]
pub struct Node {
    address: SocketAddr,
    /// The one that clients connect to.
    child: Mutex<Child>,
    workers: Mutex<Vec<Child>>,
    stdout: Log,
    log: Log,
    dir: TempDir,
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
        Self { address, child, workers: Mutex::default(), stdout, log, dir }
    }

    /// Waits until these have attached to it.
    pub(crate) fn with_workers(self, workers: Vec<Child>) -> Self {
        let count = workers.len();
        for mut worker in workers {
            // What a worker says is not what a node says.
            drop(Log::of(worker.stdout.take().expect("stdout is piped")));
            self.log.add(worker.stderr.take().expect("stderr is piped"));
            self.workers.lock().expect("no panic under it").push(worker);
        }
        let attached = |line: &Value| line["message"] == "attached" && line["socket"].is_string();
        self.until("all workers attached", |node| {
            let mut workers = node.workers.lock().expect("no panic under it");
            let ended = workers.iter_mut().find_map(|worker| worker.try_wait().expect("our child"));
            assert!(ended.is_none(), "a worker ended ({ended:?}):\n{}", node.log.text());
            node.log.lines().iter().filter(|line| attached(line)).count() == count
        });
        self
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it speaks TLS.
    #[must_use]
    pub fn tls_address(&self) -> SocketAddr {
        let text = self.stdout.text();
        let address =
            text.split_once("with TLS on https://").and_then(|(_, rest)| rest.split([',', '\n']).next());
        let address = address.and_then(|address| address.parse().ok());
        address.unwrap_or_else(|| panic!("no address with TLS: {text}"))
    }

    /// The folder of its config and of the files beside it.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
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

    /// What all its processes use now.
    #[must_use]
    pub fn usage(&self) -> Usage {
        let workers = self.workers.lock().expect("no panic under it");
        let own = Usage::of(self.child.lock().expect("no panic under it").id());
        workers.iter().fold(own, |sum, worker| sum + Usage::of(worker.id()))
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

    /// Sends a signal to the process that clients connect to.
    pub fn signal(&self, signal: Signal) {
        send(&self.child.lock().expect("no panic under it"), signal);
    }

    /// Puts another app.toml in the place of the one that it was started with; text as for [`crate::Run::app`].
    pub fn replace_app(&self, toml: &str) {
        let new = self.dir.path().join("app.toml.new");
        std::fs::write(&new, app_text(toml)).expect("a file in a temporary folder");
        std::fs::rename(new, self.dir.path().join("app.toml")).expect("a file in a temporary folder");
    }

    /// Writes another text into its app.toml.
    pub fn write_app(&self, toml: &str) {
        std::fs::write(self.dir.path().join("app.toml"), app_text(toml))
            .expect("a file in a temporary folder");
    }

    /// Sends a signal to one of its workers.
    pub fn signal_worker(&self, index: usize, signal: Signal) {
        send(&self.workers.lock().expect("no panic under it")[index], signal);
    }

    /// Waits until one of its workers has ended by itself, without an error.
    pub fn worker_ended(&self, index: usize) {
        let mut worker = self.workers.lock().expect("no panic under it").remove(index);
        let status = worker.wait().expect("our child");
        assert!(status.success(), "a worker ended with {status}:\n{}", self.log.text());
    }

    /// SIGKILL to one of its workers, and waits until that is gone.
    pub fn kill_worker(&self, index: usize) {
        let mut workers = self.workers.lock().expect("no panic under it");
        let mut worker = workers.remove(index);
        worker.kill().expect("our child");
        worker.wait().expect("our child");
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
        let took = start.elapsed();
        self.end_workers();
        Ended { code, stdout: self.stdout.whole(), stderr: self.log.whole(), took }
    }

    /// SIGTERM to each worker, and SIGINT for one that would serve on for a while; it ends without an error.
    fn end_workers(&self) {
        for mut worker in self.workers.lock().expect("no panic under it").drain(..) {
            send(&worker, Signal::TERM);
            send(&worker, Signal::INT);
            let status = worker.wait().expect("our child");
            assert!(status.success(), "a worker ended with {status}:\n{}", self.log.text());
        }
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
        let workers = self.workers.get_mut().into_iter().flatten();
        for child in self.child.get_mut().into_iter().chain(workers) {
            // One that has ended already is what we want.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

pub(crate) fn send(child: &Child, signal: Signal) {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).expect("a process id");
    kill_process(pid, signal).expect("our child runs");
}
