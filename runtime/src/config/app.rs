//! What config comes to: an application that can be run.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cellmesh_dpa::DpaConfig;
use cellmesh_dpu::config::DpuConfig;
use cellmesh_dpu::egress::hosts::HostPattern;
use cellmesh_shm::outlier::OutlierRule;
use cellmesh_shm::profile::RingProfile;

use super::Overrides;
use super::deploy::Deploy;
use super::problems::{Problem, Problems};
use crate::host::{CellSetup, RegistrySettings};
use crate::trace::TraceSettings;

/// A checked application.
#[derive(Debug, Clone)]
pub struct App {
    /// Its name, for messages.
    pub name: String,
    /// The namespace of a cluster that its services are in, where it is known.
    pub namespace: Option<String>,
    /// Its services; a service's number is its place here.
    pub services: Vec<ServiceSpec>,
    /// The service that gets requests that name no other: a place in `services`.
    pub entry: usize,
    /// Where clients connect.
    pub listen: SocketAddr,
    /// Where the admin port of the process is that clients come to, if there is one.
    pub admin: Option<SocketAddr>,
    /// Where the admin port of this process is, whatever it is: several processes may read one file.
    pub own_admin: Option<SocketAddr>,
    /// Limits of the ingress.
    pub dpu: DpuConfig,
    /// How its processes find each other, when there are several.
    pub node: NodeSettings,
    /// Everything else.
    pub runtime: RuntimeSettings,
    /// What is kept of single requests.
    pub trace: TraceSettings,
    /// What services ask of a cluster, by name.
    pub deploy: BTreeMap<String, Deploy>,
    /// What the user should be told at the start.
    pub notes: Vec<String>,
    /// What all this comes from.
    pub origin: Origin,
}

/// Where an application comes from.
#[derive(Debug, Clone, Default)]
pub struct Origin {
    /// The file.
    pub path: PathBuf,
    /// What it said.
    pub text: String,
    /// What the work model said that it names, or is.
    pub model: Option<String>,
    /// What the command line says on top of it.
    pub overrides: Overrides,
}

/// One service.
#[derive(Debug, Clone)]
pub struct ServiceSpec {
    /// The cell that serves it.
    pub setup: CellSetup,
    /// Instances at once, all lanes together.
    pub instances_max: u32,
    /// A path to try it with.
    pub path: String,
}

impl ServiceSpec {
    /// What the network side lets through: it knows callers by their node, not by their cell.
    #[must_use]
    pub fn allowed_to_any(services: &[Self]) -> Vec<HostPattern> {
        let mut allow = Vec::new();
        for pattern in services.iter().flat_map(|spec| &spec.setup.egress_allow) {
            if !allow.contains(pattern) {
                allow.push(pattern.clone());
            }
        }
        allow
    }
}

/// How the processes of a node find each other and what they may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeSettings {
    /// Where the DPA listens for workers of any service, and for sidecars.
    pub socket: PathBuf,
    /// More sockets, each for workers of some services only.
    pub worker_sockets: Vec<WorkerSocket>,
    /// An endpoint that takes nothing for so long, although frames wait for it, is taken for dead.
    pub stall_timeout: Duration,
    /// How long a process that broke a rule waits before it may attach again, at first.
    pub reattach_delay: Duration,
    /// When workers of a service get no requests for a while, by the service's name.
    pub outliers: BTreeMap<String, OutlierRule>,
    /// Where a worker attaches, if not at `socket`.
    pub worker_socket: Option<PathBuf>,
    /// Shape of a worker's rings, if not the DPA's own.
    pub worker_ring: Option<RingProfile>,
    /// Services that a worker hosts; all if none are named.
    pub worker_services: Option<Vec<String>>,
}

/// A socket of the DPA for workers of some services.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerSocket {
    /// Its path.
    pub path: PathBuf,
    /// Services that may be served by those who come in here.
    pub services: Vec<String>,
}

impl Default for NodeSettings {
    fn default() -> Self {
        Self {
            socket: PathBuf::from("/run/cellmesh/dpa.sock"),
            worker_sockets: Vec::new(),
            stall_timeout: DpaConfig::default().stall_timeout,
            reattach_delay: DpaConfig::default().reattach_delay,
            outliers: BTreeMap::new(),
            worker_socket: None,
            worker_ring: None,
            worker_services: None,
        }
    }
}

impl NodeSettings {
    /// Where a worker attaches.
    #[must_use]
    pub fn socket_of_worker(&self) -> &PathBuf {
        self.worker_socket.as_ref().unwrap_or(&self.socket)
    }
}

/// Settings of the process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuntimeSettings {
    /// Lanes: threads that serve requests from accept to response. Each command has its own default.
    pub lanes: Option<usize>,
    /// Threads for internal steps that last longer than a tick.
    pub pool_threads: usize,
    /// How often long guest calls give their thread back.
    pub epoch_tick: Duration,
    /// How long a lane whose work comes from other processes looks for it before it sleeps; zero: not at all.
    pub spin: Duration,
    /// From the order to stop to the beginning of the drain: the process serves on and says that it is not ready.
    pub drain_delay: Duration,
    /// Time that requests in flight get to finish when the drain has begun.
    pub drain_timeout: Duration,
    /// Folder of the artifact cache.
    pub cache_dir: PathBuf,
    /// How registries are spoken to that cells come from.
    pub registry: RegistrySettings,
    /// Whether the file is read again when it changes.
    pub watch: bool,
}

impl Default for RuntimeSettings {
    fn default() -> Self {
        Self {
            lanes: None,
            pool_threads: cores(),
            epoch_tick: Duration::from_millis(2),
            spin: Duration::ZERO,
            drain_delay: Duration::ZERO,
            drain_timeout: Duration::from_secs(30),
            cache_dir: default_cache_dir(),
            registry: RegistrySettings::default(),
            watch: true,
        }
    }
}

impl RuntimeSettings {
    /// Lanes, or as many as there are processors.
    #[must_use]
    pub fn lanes_or_cores(&self) -> usize {
        self.lanes_or(cores())
    }

    /// Lanes, or so many.
    #[must_use]
    pub fn lanes_or(&self, default: usize) -> usize {
        self.lanes.unwrap_or(default).max(1)
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

impl App {
    /// What a worker hosts.
    pub fn worker_services(&self) -> impl Iterator<Item = &ServiceSpec> {
        let wanted = self.node.worker_services.as_ref();
        self.services.iter().filter(move |spec| {
            wanted.is_none_or(|wanted| wanted.iter().any(|name| *name == *spec.setup.service))
        })
    }

    /// Takes what the command line and the environment say over what the file says.
    ///
    /// # Errors
    /// A service that is named there and not in the file; a variable that cannot be used.
    pub(super) fn apply(&mut self, path: &Path, overrides: &Overrides) -> Result<(), Problems> {
        let traced = self.trace.clone().with_environment(|name| std::env::var(name).ok());
        self.trace = traced.map_err(|wrong| {
            Problems::one(Problem::of_file(path, &wrong, "set it so, or take it out of the environment"))
        })?;
        if let Some(socket) = &overrides.socket {
            self.node.socket.clone_from(socket);
            self.node.worker_socket = None;
        }
        if let Some(services) = &overrides.worker_services {
            for name in services {
                if !self.services.iter().any(|spec| *spec.setup.service == **name) {
                    let known: Vec<&str> = self.services.iter().map(|spec| &*spec.setup.service).collect();
                    let right = format!("name one of: {}", known.join(", "));
                    let wrong = format!("--service {name} is no service of this file");
                    return Err(Problems::one(Problem::of_file(path, &wrong, &right)));
                }
            }
            self.node.worker_services = Some(services.clone());
        }
        if let Some(listen) = overrides.listen {
            self.listen = listen;
        }
        self.own_admin = overrides.admin;
        if let Some(lanes) = overrides.lanes {
            self.runtime.lanes = Some(lanes);
        }
        if let Some(dir) = &overrides.cache_dir {
            self.runtime.cache_dir.clone_from(dir);
        }
        Ok(())
    }
}

/// `$XDG_CACHE_HOME/cellmesh`, else `~/.cache/cellmesh`, else a folder of this user under the temporary one.
fn default_cache_dir() -> PathBuf {
    let from = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    from("XDG_CACHE_HOME")
        .or_else(|| from("HOME").map(|home| home.join(".cache")))
        .map(|cache| cache.join("cellmesh"))
        .unwrap_or_else(|| {
            std::env::temp_dir().join(format!("cellmesh-{}", rustix::process::getuid().as_raw()))
        })
}
