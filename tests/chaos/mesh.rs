//! The processes of one node.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime};

use cellmesh_tests::upstream::nobody;
use cellmesh_tests::{Log, Usage, cells_dir, program, shared_cache_dir, until};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

/// Processes that serve each service.
pub(crate) const REPLICAS: usize = 3;

/// The application. Nobody serves `spare` or asks for it.
const APP: &str = r#"
name = "chaos"
[dpa]
stall_timeout = "{stall_timeout}ms"
reattach_delay = "1ms"
[dpu]
request_timeout = "5s"
[runtime]
drain_timeout = "5s"
pool_threads = 1
[[cell]]
component = "{cells}/fanout.wasm"
services = ["offers"]
handler_timeout = "5s"
[cell.config]
"fanout.price" = "http://price/price"
"fanout.stock" = "http://stock/stock"
"fanout.delivery" = "http://price/delivery"
[[cell]]
component = "{cells}/fanout.wasm"
services = ["price", "stock"]
handler_timeout = "5s"
[[cell]]
component = "{cells}/unruly.wasm"
services = ["echo", "spare"]
handler_timeout = "5s"
"#;

/// A DPA, a DPU and workers, each a process.
pub(crate) struct Mesh {
    pub(crate) address: SocketAddr,
    pub(crate) dpa: Process,
    pub(crate) dpu: Process,
    pub(crate) workers: Vec<Process>,
    /// Admin ports of the DPU and the DPA.
    pub(crate) admins: [SocketAddr; 2],
    dir: TempDir,
    shared_memory: Vec<PathBuf>,
}

/// A process that can be killed and started again.
pub(crate) struct Process {
    args: Vec<String>,
    child: Child,
    log: Log,
}

impl Mesh {
    /// Starts all of it, in no particular order, and waits until everybody has found everybody.
    pub(crate) fn start(stall_timeout: Duration) -> Self {
        let shared_memory = listing(Path::new("/dev/shm"));
        let dir = tempfile::tempdir().expect("a temporary folder");
        let file = dir.path().join("app.toml");
        let text = APP
            .replace("{cells}", cells_dir().to_str().expect("a path that is text"))
            .replace("{stall_timeout}", &stall_timeout.as_millis().to_string());
        std::fs::write(&file, text).expect("a file in a temporary folder");
        let address = nobody();
        let start = |command: &str, more: &[&str]| {
            let (file, socket) =
                (file.display().to_string(), dir.path().join("dpa.sock").display().to_string());
            let cache = shared_cache_dir().display().to_string();
            let mut args: Vec<String> =
                [command, &file, "--socket", &socket, "--cache-dir", &cache].map(str::to_owned).to_vec();
            args.extend(more.iter().map(ToString::to_string));
            Process::start(args)
        };
        let workers = ["offers", "price", "stock", "echo"].into_iter();
        let workers = workers.flat_map(|service| std::iter::repeat_n(service, REPLICAS));
        let workers = workers.map(|service| start("worker", &["--service", service])).collect();
        let admins = [nobody(), nobody()];
        let [of_dpu, of_dpa] = admins.map(|admin| admin.to_string());
        let dpu = start("dpu", &["--listen", &address.to_string(), "--admin", &of_dpu]);
        let dpa = start("dpa", &["--admin", &of_dpa]);
        let mesh = Self { address, dpa, dpu, workers, admins, dir, shared_memory };
        mesh.until_attached(0);
        mesh
    }

    /// The DPA's socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("dpa.sock")
    }

    /// Waits until everybody has attached more than `before` times, in the life that their process has now.
    pub(crate) fn until_attached(&self, before: usize) {
        for process in self.attaching() {
            process.until_attached(before);
        }
    }

    fn attaching(&self) -> impl Iterator<Item = &Process> {
        self.workers.iter().chain([&self.dpu])
    }

    /// What each process uses.
    pub(crate) fn usage(&self) -> Vec<Usage> {
        self.attaching().chain([&self.dpa]).map(|process| Usage::of(process.child.id())).collect()
    }

    /// Nobody who waited for a bell was woken by the clock instead.
    pub(crate) fn assert_no_bell_missed(&self) {
        for process in self.attaching().chain([&self.dpa]) {
            let lines = process.log.lines();
            let missed = lines.iter().find(|line| line["missed_bells"].is_u64());
            assert!(missed.is_none(), "{:?}: {missed:?}", process.args);
        }
    }

    /// Ends everything in order, and checks that nothing of it is left: no file, no shared memory with a name, no request
    /// in the DPA's custody, and books that balance.
    pub(crate) fn end(mut self) {
        for process in self.workers.iter_mut().chain([&mut self.dpu, &mut self.dpa]) {
            process.stop();
        }
        let books = self.dpa.log.wait_for("the DPA's books", |line| line["message"] == "ended");
        assert_eq!((&books["live"], &books["balanced"]), (&Value::from(0), &Value::from(true)), "{books}");
        assert_eq!(listing(self.dir.path()), [self.dir.path().join("app.toml")]);
        assert_eq!(listing(Path::new("/dev/shm")), self.shared_memory);
    }
}

impl Process {
    fn start(args: Vec<String>) -> Self {
        let (child, log) = spawn(&args);
        Self { args, child, log }
    }

    /// SIGKILL, and waits until it is gone.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("our child");
        self.child.wait().expect("our child");
    }

    /// Starts it again after it was killed.
    pub(crate) fn restart(&mut self) {
        (self.child, self.log) = spawn(&self.args);
    }

    /// Starts another like it; when that has attached, tells the old one to end, which it does without an error.
    pub(crate) fn replace(&mut self) {
        let mut new = Self::start(self.args.clone());
        new.until_attached(0);
        std::mem::swap(self, &mut new);
        new.stop();
    }

    /// Its number.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).expect("a process id");
        kill_process(pid, signal).expect("our child runs");
    }

    /// How often it has attached since it was started.
    pub(crate) fn attached(&self) -> usize {
        self.attached_at().len()
    }

    /// When it has attached since it was started.
    pub(crate) fn attached_at(&self) -> Vec<SystemTime> {
        let lines = self.log.lines();
        let is_it = |line: &&Value| line["message"] == "attached" && line["socket"].is_string();
        lines.iter().filter(is_it).map(Log::time_of).collect()
    }

    /// Waits until it has attached more than `before` times since it was started.
    pub(crate) fn until_attached(&self, before: usize) {
        until("a process attaches", || self.attached() > before);
    }

    /// What it has logged.
    pub(crate) fn log(&self) -> &Log {
        &self.log
    }

    /// SIGTERM; it has to end without an error.
    fn stop(&mut self) {
        self.signal(Signal::TERM);
        let status = self.child.wait().expect("our child");
        assert!(status.success(), "{:?} ended with {status}:\n{}", self.args, self.log.text());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- {}:\n{}\n---", self.args.join(" "), self.log.text());
        }
        // One that has ended already is what we want.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(args: &[String]) -> (Child, Log) {
    let mut command = Command::new(program());
    for name in [
        "RUST_LOG",
        "CELLMESH_ADMIN",
        "CELLMESH_LISTEN",
        "CELLMESH_LANES",
        "CELLMESH_CACHE_DIR",
        "CELLMESH_SOCKET",
    ] {
        command.env_remove(name);
    }
    command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("cellmesh can be started");
    let log = Log::of(child.stderr.take().expect("stderr is piped"));
    (child, log)
}

fn listing(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("a folder").path()).collect();
    files.sort();
    files
}
