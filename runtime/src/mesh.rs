//! What all lanes of a process that hosts cells share: loaded cells, the thread pool, the ticker.

use cellmesh_dpu::Routes;
use cellmesh_shm::ids::ServiceId;

use anyhow::Context;

use crate::config::{App, RuntimeSettings, ServiceSpec};
use crate::host::{ArtifactCache, Cell, CompileLimits, Compiler, EngineLimits, HostEngine, Ticker};
use crate::pool::Pool;
use crate::worker::ServiceCell;

/// Loaded cells and where they run.
pub struct Mesh {
    /// In the order of the services that were asked for.
    pub services: Vec<ServiceCell>,
    /// Where long guest calls run.
    pub pool: Pool,
    _ticker: Ticker,
}

impl Mesh {
    /// Loads the cells of `services`, compiling those that are not in the artifact cache.
    ///
    /// # Errors
    /// When a cell does not load.
    pub fn load(services: &[&ServiceSpec], settings: &RuntimeSettings, lanes: usize) -> anyhow::Result<Self> {
        let compiler = Compiler::this_program(CompileLimits::default())?;
        let cache = ArtifactCache::open(&settings.cache_dir, compiler)?;
        let engine = HostEngine::serving(engine_limits(services, lanes), Some(cache.for_engine()?))?;
        Ok(Self {
            services: load_cells(services, lanes, &engine, &cache)?,
            pool: Pool::start(settings.pool_threads)?,
            _ticker: Ticker::start(&engine, settings.epoch_tick)?,
        })
    }
}

fn load_cells(
    specs: &[&ServiceSpec],
    lanes: usize,
    engine: &HostEngine,
    cache: &ArtifactCache,
) -> anyhow::Result<Vec<ServiceCell>> {
    let mut services = Vec::with_capacity(specs.len());
    for spec in specs {
        let cell = Cell::load(engine, cache, spec.setup.clone())?;
        if cell.was_compiled() {
            tracing::info!(component = %spec.setup.component.display(), "compiled");
        }
        services.push(ServiceCell { cell, instances_max: per_lane(spec.instances_max, lanes) });
    }
    if engine.compiled_here() > 0 {
        tracing::warn!(
            components = engine.compiled_here(),
            "compiled in this process: the artifact cache was not used"
        );
    }
    Ok(services)
}

/// A service's instances are shared out to the lanes, at least one each.
fn per_lane(instances_max: u32, lanes: usize) -> usize {
    (instances_max as usize).div_ceil(lanes)
}

fn engine_limits(services: &[&ServiceSpec], lanes: usize) -> EngineLimits {
    let instances: usize =
        services.iter().map(|service| per_lane(service.instances_max, lanes) * lanes).sum();
    EngineLimits {
        instances_max: u32::try_from(instances).unwrap_or(u32::MAX),
        memory_bytes_max: services
            .iter()
            .map(|service| service.setup.limits.memory_bytes_max)
            .max()
            .unwrap_or(0),
    }
}

/// Names and entry of all services of an application.
///
/// # Errors
/// When they cannot be routed to.
pub fn routes(app: &App) -> anyhow::Result<Routes> {
    let names =
        app.services.iter().map(|service| service.setup.service.parse()).collect::<Result<Vec<_>, _>>()?;
    let entry = ServiceId(u16::try_from(app.entry).context("too many services")?);
    Ok(Routes::new(names, entry)?)
}
