//! What config comes to: an application that can be run.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use cellmesh_dpu::config::DpuConfig;

use super::Overrides;
use crate::host::CellSetup;

/// A checked application.
#[derive(Debug, Clone)]
pub struct App {
    /// Its name, for messages.
    pub name: String,
    /// Its services; a service's number is its place here.
    pub services: Vec<ServiceSpec>,
    /// The service that gets requests that name no other: a place in `services`.
    pub entry: usize,
    /// Where clients connect.
    pub listen: SocketAddr,
    /// Limits of the ingress.
    pub dpu: DpuConfig,
    /// Everything else.
    pub runtime: RuntimeSettings,
    /// What the user should be told at the start.
    pub notes: Vec<String>,
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

/// Settings of the process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuntimeSettings {
    /// Lanes: threads that serve requests from accept to response.
    pub lanes: usize,
    /// Threads for internal steps that last longer than a tick.
    pub pool_threads: usize,
    /// How often long guest calls give their thread back.
    pub epoch_tick: Duration,
    /// Time that requests in flight get to finish when the process is told to stop.
    pub drain_timeout: Duration,
    /// Folder of the artifact cache.
    pub cache_dir: PathBuf,
}

impl Default for RuntimeSettings {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self {
            lanes: cores,
            pool_threads: cores,
            epoch_tick: Duration::from_millis(2),
            drain_timeout: Duration::from_secs(30),
            cache_dir: default_cache_dir(),
        }
    }
}

impl App {
    /// Takes what the command line says over what the file says.
    pub(super) fn apply(&mut self, overrides: &Overrides) {
        if let Some(listen) = overrides.listen {
            self.listen = listen;
        }
        if let Some(lanes) = overrides.lanes {
            self.runtime.lanes = lanes.max(1);
        }
        if let Some(dir) = &overrides.cache_dir {
            self.runtime.cache_dir.clone_from(dir);
        }
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
