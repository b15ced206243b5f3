//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::config::{Overrides, Part};
use crate::inspect::{graph, top};
use crate::{k8s, load, replay};

/// A WebAssembly service cell runtime.
#[derive(Debug, Parser)]
#[command(name = "cellmesh", version, about, arg_required_else_help = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve an application: an app.toml, or a muBench workmodel.json.
    Run(Run),
    /// Serve with workers in processes of their own: the daemon of a node, DPA and DPU in one.
    Node(Run),
    /// Host the cells of an application, or some of them, attached to the DPA of this node.
    Worker(Worker),
    /// Only the DPA of a node: moves frames between workers and DPUs that attach to it.
    Dpa(Run),
    /// Only the DPU of a node: the network side, attached to a DPA.
    Dpu(Run),
    /// Ask a server at a constant rate and say how long each answer took from when it was due.
    Load(load::Options),
    /// Show what a process does now: cells, who calls whom, rates and times. Needs its admin port.
    Top(top::Options),
    /// Write the graph of a request as text, Mermaid or SVG: from a process, or from a recording.
    Graph(graph::Options),
    /// Run a recorded request again, against the cell as it is now, and say what differs.
    Replay(replay::Options),
    /// Look at a file, and at what serving it needs of this machine: cells, sockets, permissions, ports, kernel. Serve
    /// nothing.
    Check(Check),
    /// Render the manifests of an application, for `kubectl apply -f -`.
    K8s(k8s::Options),
    /// Compile one component; started by `run` with limits.
    #[command(hide = true)]
    CompileCell {
        /// Folder for the artifact.
        dir: PathBuf,
        /// Limit on processor time.
        cpu_seconds_max: u64,
        /// Limit on address space.
        memory_bytes_max: u64,
    },
}

/// What to serve, and how.
#[derive(Debug, Args)]
pub struct Run {
    /// The application: app.toml or workmodel.json.
    pub file: PathBuf,
    /// Address to listen on, of run, node and dpu [default: 127.0.0.1:5005, or what the file says].
    #[arg(long, env = "CELLMESH_LISTEN")]
    pub listen: Option<SocketAddr>,
    /// Unix socket where processes of a node meet [default: /run/cellmesh/dpa.sock, or what the file says].
    #[arg(long, env = "CELLMESH_SOCKET")]
    pub socket: Option<PathBuf>,
    /// Address of the admin port, with /livez and /readyz [default: none; of run and node what the file says].
    #[arg(long, env = "CELLMESH_ADMIN")]
    pub admin: Option<SocketAddr>,
    /// Threads that serve requests [default: one for each processor; one of a daemon or a worker].
    #[arg(long, env = "CELLMESH_LANES", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub lanes: Option<u16>,
    /// Folder for compiled cells [default: ~/.cache/cellmesh].
    #[arg(long, env = "CELLMESH_CACHE_DIR")]
    pub cache_dir: Option<PathBuf>,
    /// Folder with the cells that come with cellmesh [default: beside the program].
    #[arg(long, env = "CELLMESH_CELLS")]
    pub cells_dir: Option<PathBuf>,
}

/// Which of the services a worker hosts.
#[derive(Debug, Args)]
pub struct Worker {
    /// What to serve, and how.
    #[command(flatten)]
    pub run: Run,
    /// A service to host; may be given several times [default: what the file says, else all].
    #[arg(long = "service", value_name = "NAME")]
    pub services: Vec<String>,
}

/// What to look at.
#[derive(Debug, Args)]
pub struct Check {
    /// What would be served, and how.
    #[command(flatten)]
    pub run: Run,
    /// The command that would be started here.
    #[arg(long, value_enum, default_value_t = CheckPart::Run)]
    pub part: CheckPart,
    /// A service that a worker would host; may be given several times [default: what the file says, else all].
    #[arg(long = "service", value_name = "NAME")]
    pub services: Vec<String>,
    /// Compile the cells too, as the first start does, into the cache folder.
    #[arg(long)]
    pub compile: bool,
    /// Say also what is right.
    #[arg(long, short)]
    pub verbose: bool,
}

/// A command that serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum CheckPart {
    /// All in one process.
    Run,
    /// The daemon of a node.
    Node,
    /// The DPA alone.
    Dpa,
    /// The DPU alone.
    Dpu,
    /// Cells, attached to a DPA.
    Worker,
}

impl Check {
    /// What the command line says on top of the file.
    #[must_use]
    pub fn overrides(&self) -> Overrides {
        let part = match self.part {
            CheckPart::Run => Part::Whole,
            CheckPart::Node | CheckPart::Dpu => Part::Daemon,
            CheckPart::Dpa => Part::Dpa,
            CheckPart::Worker => Part::Worker,
        };
        let services = (!self.services.is_empty()).then(|| self.services.clone());
        Overrides { worker_services: services, ..self.run.overrides(part) }
    }
}

impl Worker {
    /// What the command line says on top of the file.
    #[must_use]
    pub fn overrides(&self) -> Overrides {
        let services = (!self.services.is_empty()).then(|| self.services.clone());
        Overrides { worker_services: services, ..self.run.overrides(Part::Worker) }
    }
}

impl Run {
    /// What the command line says on top of the file.
    #[must_use]
    pub fn overrides(&self, part: Part) -> Overrides {
        Overrides {
            part,
            runs: false,
            socket: self.socket.clone(),
            admin: self.admin,
            worker_services: None,
            listen: self.listen,
            lanes: self.lanes.map(usize::from),
            cache_dir: self.cache_dir.clone(),
            cells_dir: self.cells_dir.clone(),
        }
    }
}
