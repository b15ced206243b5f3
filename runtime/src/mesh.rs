//! What a process that hosts cells has for its lanes: for each an engine with the cells loaded into it; for all of them the
//! artifact cache, the thread pool and the ticker.

use std::sync::Arc;

use cellmesh_dpu::Routes;
use cellmesh_shm::ids::ServiceId;

use anyhow::Context;

use crate::config::{App, RuntimeSettings, ServiceSpec};
use crate::host::{
    self, ArtifactCache, Cell, CompileLimits, Compiler, EngineLimits, HostEngine, LoadError, Ticker,
};
use crate::pool::Pool;
use crate::worker::{ServiceCell, StepNames};

/// Loaded cells and where they run.
pub struct Mesh {
    /// For each lane, in the order of the services that were asked for.
    pub lanes: Vec<Vec<ServiceCell>>,
    /// Where long guest calls run.
    pub pool: Pool,
    /// Instances that may wait for calls on one lane, of all services together.
    pub idle_instances_max: usize,
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
        let cache = cache.with_registry(settings.registry.clone());
        let (limits, pulse) = (engine_limits(services, lanes), Arc::default());
        let engine = |_| anyhow::Ok(HostEngine::serving(limits, Some(cache.for_engine()?), &pulse)?);
        let engines = (0..lanes).map(engine).collect::<anyhow::Result<Vec<_>>>()?;
        Ok(Self {
            lanes: load_cells(services, &engines, &cache)?,
            pool: Pool::start(settings.pool_threads)?,
            idle_instances_max: host::idle_instances_max(lanes),
            _ticker: Ticker::start(&engines, &pulse, settings.epoch_tick)?,
        })
    }
}

fn load_cells(
    specs: &[&ServiceSpec],
    engines: &[HostEngine],
    cache: &ArtifactCache,
) -> anyhow::Result<Vec<Vec<ServiceCell>>> {
    let mut lanes = vec![Vec::with_capacity(specs.len()); engines.len()];
    pull(specs, cache)?;
    for spec in specs {
        let cells = Cell::load(engines, cache, spec.setup.clone())?;
        if cells.iter().any(Cell::was_compiled) {
            tracing::info!(component = %spec.setup.component, "compiled");
        }
        let instances_max = per_lane(spec.instances_max, engines.len());
        let step_names = StepNames::default();
        for (lane, cell) in lanes.iter_mut().zip(cells) {
            lane.push(ServiceCell { cell, instances_max, step_names: step_names.clone() });
        }
    }
    let components: usize = engines.iter().map(HostEngine::compiled_here).sum();
    if components > 0 {
        tracing::warn!(components, "compiled in this process: the artifact cache was not used");
    }
    Ok(lanes)
}

/// All that come from registries, before anything is compiled: what cannot be had is told soon.
fn pull(specs: &[&ServiceSpec], cache: &ArtifactCache) -> Result<(), LoadError> {
    let mut of_registries = specs.iter().filter(|spec| spec.setup.component.file().is_none());
    of_registries.try_for_each(|spec| Cell::read(&spec.setup.component, cache).map(drop))
}

/// A service's instances are shared out to the lanes, at least one each.
fn per_lane(instances_max: u32, lanes: usize) -> usize {
    (instances_max as usize).div_ceil(lanes)
}

/// What one lane's engine must have room for.
pub(crate) fn engine_limits(services: &[&ServiceSpec], lanes: usize) -> EngineLimits {
    let instances: usize = services.iter().map(|service| per_lane(service.instances_max, lanes)).sum();
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
    let routes = Routes::new(names, entry)?;
    Ok(match &app.namespace {
        Some(namespace) => routes.in_namespace(namespace),
        None => routes,
    })
}
