//! What is to be run: a file, and what the command line says on top of it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::log::Log;
use crate::places::{self, Placement};
use crate::process::{Ended, until};
use crate::{Node, cells_dir};

/// With the folder of the compiled cells for `{cells}`.
pub(crate) fn app_text(toml: &str) -> String {
    toml.replace("{cells}", cells_dir().to_str().expect("a path that is text"))
}

/// What the environment of a test would say to the program.
const FOREIGN: [&str; 10] = [
    "RUST_LOG",
    "CELLMESH_LOG_FORMAT",
    "CELLMESH_LISTEN",
    "CELLMESH_LANES",
    "CELLMESH_CACHE_DIR",
    "CELLMESH_SOCKET",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "OTEL_TRACES_SAMPLER",
    "OTEL_TRACES_SAMPLER_ARG",
];

/// An application that is about to be run.
#[derive(Debug)]
pub struct Run {
    dir: TempDir,
    file: PathBuf,
    cache_dir: PathBuf,
    listen: SocketAddr,
    args: Vec<String>,
    /// Services of each worker when it is split; one with all of them if there are none.
    workers: Vec<Vec<String>>,
    /// Where workers can be asked, one after the other.
    worker_admins: Vec<SocketAddr>,
    /// Whatever the placement under test is.
    split: bool,
    /// Lanes and admin port of a DPU in a process of its own; without it a node is DPU and DPA.
    dpu: Option<(u16, SocketAddr)>,
    descriptors_max: Option<u32>,
    environment: Vec<(String, String)>,
}

impl Run {
    /// An `app.toml`. In its text `{cells}` stands for the folder of the compiled cells.
    #[must_use]
    pub fn app(toml: &str) -> Self {
        Self::file("app.toml", &app_text(toml))
    }

    /// A muBench work model.
    #[must_use]
    pub fn model(model: &Value) -> Self {
        let mut workers = vec![Vec::new(); 2];
        for (index, service) in model.as_object().into_iter().flat_map(|model| model.keys()).enumerate() {
            workers[index % 2].push(service.clone());
        }
        workers.retain(|services| !services.is_empty());
        Self { workers, ..Self::file("workmodel.json", &format!("{model:#}")) }
    }

    /// Any file.
    #[must_use]
    pub fn file(name: &str, text: &str) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let file = dir.path().join(name);
        std::fs::write(&file, text).expect("a file in a temporary folder");
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        Self {
            dir,
            file,
            cache_dir: places::shared_cache_dir(),
            listen,
            args: Vec::new(),
            workers: Vec::new(),
            worker_admins: Vec::new(),
            split: false,
            dpu: None,
            descriptors_max: None,
            environment: Vec::new(),
        }
    }

    /// With another file beside the first.
    #[must_use]
    pub fn with_file(self, name: &str, bytes: impl AsRef<[u8]>) -> Self {
        std::fs::write(self.dir.path().join(name), bytes).expect("a file in a temporary folder");
        self
    }

    /// Another file than the one that was written, by its path from there.
    #[must_use]
    pub fn instead(mut self, name: &str) -> Self {
        self.file = self.dir.path().join(name);
        self
    }

    /// With its own artifact cache instead of that of all tests.
    #[must_use]
    pub fn cache_dir(mut self, dir: &Path) -> Self {
        dir.clone_into(&mut self.cache_dir);
        self
    }

    /// On this address instead of a free port.
    #[must_use]
    pub fn listen(mut self, address: SocketAddr) -> Self {
        self.listen = address;
        self
    }

    /// With so many lanes.
    #[must_use]
    pub fn lanes(self, lanes: u16) -> Self {
        self.arg("--lanes").arg(&lanes.to_string())
    }

    /// Split in any case, with so many workers that each host everything.
    #[must_use]
    pub fn replicas(mut self, count: usize) -> Self {
        self.workers = vec![Vec::new(); count];
        self.split = true;
        self
    }

    /// Split in any case, with a worker for each of these lists of services.
    #[must_use]
    pub fn workers(mut self, services: &[&[&str]]) -> Self {
        self.workers = services.iter().map(|names| names.iter().map(ToString::to_string).collect()).collect();
        self.split = true;
        self
    }

    /// Split in any case, with DPA and DPU in processes of their own. `admin`: where the DPU can be asked; the file's is for others.
    #[must_use]
    pub fn dpu_lanes(mut self, lanes: u16, admin: SocketAddr) -> Self {
        self.dpu = Some((lanes, admin));
        self.split = true;
        self
    }

    /// With admin ports of the workers, if there are any.
    #[must_use]
    pub fn worker_admins(mut self, admins: &[SocketAddr]) -> Self {
        self.worker_admins = admins.to_vec();
        self
    }

    /// With no more than so many descriptors.
    #[must_use]
    pub fn descriptors_max(mut self, count: u32) -> Self {
        self.descriptors_max = Some(count);
        self
    }

    /// The folder of the file, where the socket is too (`dpa.sock`).
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// With this in its environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// With another argument.
    #[must_use]
    pub fn arg(mut self, arg: &str) -> Self {
        self.args.push(arg.to_owned());
        self
    }

    /// Starts it, and waits until it serves.
    #[must_use]
    pub fn start(self) -> Node {
        if places::placement() == Placement::CoHosted && !self.split {
            let child = self.spawn("run");
            return Node::serving(child, self.dir);
        }
        let (node, dpa) = match self.dpu {
            None => (self.spawn("node"), None),
            Some((lanes, admin)) => {
                let [lanes, admin] = [lanes.to_string(), admin.to_string()];
                let dpu = self.spawn_with(self.command("dpu").args(["--lanes", &lanes, "--admin", &admin]));
                (dpu, Some(self.spawn("dpa")))
            }
        };
        let all = [Vec::new()];
        let workers = if self.workers.is_empty() { &all[..] } else { &self.workers };
        let mut admins = self.worker_admins.iter();
        let workers = workers.iter().map(|services| {
            let names = services.iter().flat_map(|name| ["--service", name]);
            let admin = admins.next().map(|admin| ["--admin".to_owned(), admin.to_string()]);
            self.spawn_with(self.command("worker").args(names).args(admin.into_iter().flatten()))
        });
        // A DPA attaches to nobody, and so does a node; a DPU does.
        let workers = workers.chain(dpa).collect();
        Node::serving(node, self.dir).with_workers(workers)
    }

    /// Starts it in one process in any case, compiling its cells anew, and waits until it serves. While it starts, when it has
    /// read its file, that is replaced by `toml`, and it is sent SIGHUP.
    #[must_use]
    pub fn start_hung_up(self, toml: &str) -> Node {
        let cache = self.dir.path().join("cells");
        let run = self.cache_dir(&cache);
        let child = run.spawn("run");
        // Compiled cells are looked for once the file is read.
        until("a process that compiles", || cache.exists());
        std::fs::write(&run.file, app_text(toml)).expect("a file in a temporary folder");
        crate::node::send(&child, Signal::HUP);
        Node::serving(child, run.dir)
    }

    /// Runs it to its end, which has to come by itself.
    #[must_use]
    pub fn end(self) -> Ended {
        self.command_end("run")
    }

    /// Only checks the file.
    #[must_use]
    pub fn check(self) -> Ended {
        self.command_end("check")
    }

    /// Tells it to end as soon as it hears signals; it compiles its cells anew, and so does not serve by then.
    #[must_use]
    pub fn end_at_start(self) -> Ended {
        let cache = tempfile::tempdir().expect("a temporary folder");
        let run = self.cache_dir(&cache.path().join("cells"));
        let start = Instant::now();
        let child = run.spawn("run");
        // A set of signals in hexadecimal digits, SIGTERM is the 15th. Source: proc_pid_status(5).
        let status = format!("/proc/{}/status", child.id());
        let hears = |line: &str| {
            let caught = u64::from_str_radix(line.strip_prefix("SigCgt:")?.trim(), 16).ok()?;
            Some(caught & 1 << 14 != 0)
        };
        until("a process that hears SIGTERM", || {
            let text = std::fs::read_to_string(&status).expect("the process lives");
            text.lines().find_map(hears) == Some(true)
        });
        crate::node::send(&child, Signal::TERM);
        Self::ended(child, start)
    }

    fn command_end(self, command: &str) -> Ended {
        Self::ended(self.spawn(command), Instant::now())
    }

    fn ended(mut child: Child, start: Instant) -> Ended {
        let stdout = Log::of(child.stdout.take().expect("stdout is piped"));
        let stderr = Log::of(child.stderr.take().expect("stderr is piped"));
        let child = std::cell::RefCell::new(child);
        until("the end of a program that cannot run", || {
            child.borrow_mut().try_wait().expect("our child").is_some()
        });
        let code = child.borrow_mut().wait().expect("our child").code();
        Ended { code, stdout: stdout.whole(), stderr: stderr.whole(), took: start.elapsed() }
    }

    fn spawn(&self, command: &str) -> Child {
        self.spawn_with(&mut self.command(command))
    }

    fn spawn_with(&self, command: &mut Command) -> Child {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().expect("cellmesh can be started")
    }

    fn command(&self, command: &str) -> Command {
        let mut program = match self.descriptors_max {
            None => Command::new(places::program()),
            Some(most) => {
                let mut shell = Command::new("sh");
                shell
                    .args(["-c", "ulimit -n \"$0\"; exec \"$@\""])
                    .arg(most.to_string())
                    .arg(places::program());
                shell
            }
        };
        for name in FOREIGN {
            program.env_remove(name);
        }
        program.envs(self.environment.iter().map(|(name, value)| (name, value)));
        program.arg(command).arg(&self.file).arg("--listen").arg(self.listen.to_string());
        program.arg("--cache-dir").arg(&self.cache_dir).arg("--cells-dir").arg(cells_dir()).args(&self.args);
        program.arg("--socket").arg(self.dir.path().join("dpa.sock"));
        program
    }
}
