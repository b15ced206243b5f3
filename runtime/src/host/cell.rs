//! A cell: a component that serves one service, ready to be instantiated.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use cellmesh_dpu::egress::hosts::HostPattern;
use wasmtime::component::Linker;
use wasmtime_wasi::{FsPerms, WasiCtx, WasiCtxBuilder};

use super::Pulse;
use super::artifacts::{ArtifactCache, ArtifactError};
use super::bindings::CellPre;
use super::engine::HostEngine;
use super::guest_log::{Cause, GuestLog};
use super::imports;
use super::inspect::{Unfit, inspect};
use super::oci::{OciError, Reference};
use super::scratch::{Scratch, ScratchFolder};
use super::source::ComponentSource;
use super::state::{self, MemoryInUse, State};
use crate::cpu::CpuUsed;

fn open_scratch(scratch: &Scratch) -> Result<ScratchFolder, LoadError> {
    ScratchFolder::open(scratch).map_err(|(path, source)| LoadError::Scratch { path, source })
}

/// Limits of one cell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CellLimits {
    /// Linear memory of one instance, bytes.
    pub memory_bytes_max: usize,
    /// Longest run of a handler or a request builder.
    pub handler_timeout: Duration,
    /// Longest run of an internal step; the request's deadline bounds it too.
    pub step_timeout: Duration,
    /// Bytes that one call may make the host allocate.
    pub lift_bytes_max: usize,
}

impl Default for CellLimits {
    /// Handlers only decide, so a second is ample even on a machine that is stalled by others; steps compute,
    /// and the request's deadline bounds them. One lift may be as large as two messages and their heads.
    fn default() -> Self {
        Self {
            memory_bytes_max: 128 << 20,
            handler_timeout: Duration::from_secs(1),
            step_timeout: Duration::from_secs(30),
            lift_bytes_max: 36 << 20,
        }
    }
}

/// What config allows a cell beyond computing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Grants {
    /// A folder that the cell sees as `/scratch` and may read and write.
    pub scratch: Option<Scratch>,
}

/// How a cell is to be run: everything that config says of one service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CellSetup {
    /// The service it serves.
    pub service: Arc<str>,
    /// Where its component is.
    pub component: ComponentSource,
    /// What `config.get` answers.
    pub config: BTreeMap<String, String>,
    /// What it may do.
    pub grants: Grants,
    /// Hosts beyond the services of its application that it may call.
    pub egress_allow: Vec<HostPattern>,
    /// What it may use.
    pub limits: CellLimits,
    /// A new instance for every call instead of one that is used again.
    pub fresh_instances: bool,
}

/// Why a component does not serve.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file cannot be read.
    #[error("cannot read the component {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// It was not had from its registry.
    #[error("cannot pull the component {reference}")]
    Pull {
        /// Its name there.
        reference: Reference,
        /// Why.
        #[source]
        source: Box<OciError>,
    },
    /// It cannot be compiled or kept.
    #[error("component {component}")]
    Artifact {
        /// Where it is.
        component: ComponentSource,
        /// Why.
        #[source]
        source: ArtifactError,
    },
    /// It is something else.
    #[error("component {component} {unfit}; build it for wasm32-wasip2 with the guest SDK")]
    NoComponent {
        /// Where it is.
        component: ComponentSource,
        /// What it is.
        unfit: Unfit,
    },
    /// It imports what cells do not get.
    #[error(
        "component {component} imports {import}: a cell may import cellmesh:cell/config@0.2 (one that was \
         built for another version has to be built again), wasi:cli, wasi:clocks, wasi:io, wasi:random and wasi:filesystem (with a granted folder)"
    )]
    Import {
        /// Where it is.
        component: ComponentSource,
        /// The first import that is not allowed.
        import: String,
    },
    /// It is no cell: an export is missing or has another type.
    #[error(
        "component {component} is no service cell: it must export cellmesh:cell/handler@0.2.0 as wit/cell.wit says"
    )]
    NoCell {
        /// Where it is.
        component: ComponentSource,
        /// What wasmtime missed.
        #[source]
        source: wasmtime::Error,
    },
    /// Its scratch folder cannot be opened.
    #[error("cannot open the scratch folder {path}")]
    Scratch {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
}

/// A loaded cell, for one engine. To clone it counts one reference.
#[derive(Clone)]
pub struct Cell(Arc<Loaded>);

struct Loaded {
    setup: Arc<CellSetup>,
    pre: CellPre<State>,
    engine: HostEngine,
    logs: (GuestLog, GuestLog),
    scratch: Option<Arc<ScratchFolder>>,
    compiled: bool,
    memory: MemoryInUse,
    pool_cpu: CpuUsed,
}

impl std::fmt::Debug for Cell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cell").field("setup", &self.0.setup).finish_non_exhaustive()
    }
}

impl Cell {
    /// Loads the component that `setup` names, from `cache` if it is there, once for each of `engines`. What config says
    /// is shared, the scratch folder too.
    ///
    /// - cost: a compilation in a child process when it is not in the cache; never on a lane.
    ///
    /// # Errors
    /// [`LoadError`], naming the file and what would be right.
    pub fn load(
        engines: &[HostEngine],
        cache: &ArtifactCache,
        setup: CellSetup,
    ) -> Result<Vec<Self>, LoadError> {
        let bytes = Self::read(&setup.component, cache)?;
        let scratch = setup.grants.scratch.as_ref().map(open_scratch).transpose()?.map(Arc::new);
        let setup = Arc::new(setup);
        let load = |engine| Self::load_one(engine, cache, &bytes, &setup, scratch.as_ref());
        engines.iter().map(load).collect()
    }

    /// The bytes of a component: read, or, if it is of a registry and not in `cache`, pulled.
    ///
    /// # Errors
    /// [`LoadError::Read`], [`LoadError::Pull`].
    pub fn read(component: &ComponentSource, cache: &ArtifactCache) -> Result<Vec<u8>, LoadError> {
        match component {
            ComponentSource::File(path) => {
                fs::read(path).map_err(|source| LoadError::Read { path: path.clone(), source })
            }
            ComponentSource::Registry(reference) => cache.pulled(reference).map_err(|source| {
                LoadError::Pull { reference: (**reference).clone(), source: source.into() }
            }),
        }
    }

    fn load_one(
        engine: &HostEngine,
        cache: &ArtifactCache,
        bytes: &[u8],
        setup: &Arc<CellSetup>,
        scratch: Option<&Arc<ScratchFolder>>,
    ) -> Result<Self, LoadError> {
        let component = || setup.component.clone();
        // Asked only once it is known that something is wrong: what there is compiled is good.
        let unusable = |source| match inspect(bytes, &setup.grants) {
            Err(unfit @ Unfit::NoComponent(_)) => LoadError::NoComponent { component: component(), unfit },
            _ => LoadError::Artifact { component: component(), source },
        };
        let loaded = cache.load(engine, bytes).map_err(unusable)?;
        let ty = loaded.component.component_type();
        let names: Vec<String> = ty.imports(engine.wasmtime()).map(|(name, _)| name.to_owned()).collect();
        if let Some(import) = imports::first_forbidden(names.iter().map(String::as_str), &setup.grants) {
            return Err(LoadError::Import { component: component(), import: import.to_owned() });
        }
        let no_cell = |source| LoadError::NoCell { component: component(), source };
        let mut linker = Linker::new(engine.wasmtime());
        state::add_imports(&mut linker).map_err(no_cell)?;
        let pre = linker.instantiate_pre(&loaded.component).and_then(CellPre::new).map_err(no_cell)?;
        Ok(Self(Arc::new(Loaded {
            logs: GuestLog::pair(&setup.service),
            setup: Arc::clone(setup),
            pre,
            engine: engine.clone(),
            scratch: scratch.cloned(),
            compiled: loaded.compiled,
            memory: MemoryInUse::default(),
            pool_cpu: CpuUsed::default(),
        })))
    }

    /// Whether its artifact was not in the cache when it was loaded.
    #[must_use]
    pub fn was_compiled(&self) -> bool {
        self.0.compiled
    }

    /// Linear memory of its instances.
    #[must_use]
    pub fn memory(&self) -> &MemoryInUse {
        &self.0.memory
    }

    /// Processor time of its calls on threads of the pool.
    #[must_use]
    pub fn pool_cpu(&self) -> &CpuUsed {
        &self.0.pool_cpu
    }

    pub(super) fn pre(&self) -> &CellPre<State> {
        &self.0.pre
    }

    pub(super) fn engine(&self) -> &HostEngine {
        &self.0.engine
    }

    /// How it is run.
    #[must_use]
    pub fn setup(&self) -> &Arc<CellSetup> {
        &self.0.setup
    }

    /// To be beaten whenever one of its calls is about to run.
    #[must_use]
    pub fn pulse(&self) -> &Arc<Pulse> {
        self.engine().pulse()
    }

    /// A WASI context for one instance: clocks, randomness, the log, and the scratch folder if there is one.
    pub(super) fn wasi(&self, cause: &Cause) -> wasmtime::Result<WasiCtx> {
        let mut wasi = WasiCtxBuilder::new();
        let (stdout, stderr) = &self.0.logs;
        wasi.stdout(stdout.of_instance(cause)).stderr(stderr.of_instance(cause));
        if let Some(folder) = &self.0.scratch {
            wasi.preopened_dir(folder.path(), "/scratch", FsPerms::ReadWrite)?;
        }
        Ok(wasi.build())
    }
}
