//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::config::Overrides;

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
    /// Read and check an app.toml or a workmodel.json; serve nothing.
    Check(Run),
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
    /// Address to listen on [default: 127.0.0.1:5005, or what the file says].
    #[arg(long, env = "CELLMESH_LISTEN")]
    pub listen: Option<SocketAddr>,
    /// Threads that serve requests [default: one for each processor].
    #[arg(long, env = "CELLMESH_LANES", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub lanes: Option<u16>,
    /// Folder for compiled cells [default: ~/.cache/cellmesh].
    #[arg(long, env = "CELLMESH_CACHE_DIR")]
    pub cache_dir: Option<PathBuf>,
    /// Folder with the cells that come with cellmesh [default: beside the program].
    #[arg(long, env = "CELLMESH_CELLS")]
    pub cells_dir: Option<PathBuf>,
}

impl Run {
    /// What the command line says on top of the file.
    #[must_use]
    pub fn overrides(&self) -> Overrides {
        Overrides {
            listen: self.listen,
            lanes: self.lanes.map(usize::from),
            cache_dir: self.cache_dir.clone(),
            cells_dir: self.cells_dir.clone(),
        }
    }
}
