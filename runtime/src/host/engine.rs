//! The wasmtime engine and its settings.
//!
//! The settings that won, with figures, are in `docs/decisions/0003-engine-settings.md`. One function makes
//! the settings that compiled code depends on, because the compiling child and the serving
//! process have to agree on them to the last bit.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use wasmtime::component::Component;
use wasmtime::{
    Cache, Config, Enabled, Engine, InstanceAllocationStrategy, OptLevel, PoolingAllocationConfig,
};

use super::Pulse;

/// Wasm stack of one call. Source: 512 KiB is wasmtime's own default and deep enough for
/// recursive guests; more would only let a runaway recursion cost more.
const WASM_STACK_BYTES: usize = 512 << 10;

/// Fiber stack of one call: the Wasm stack and the host functions on top of it.
const FIBER_STACK_BYTES: usize = 1 << 20;

/// Linear memory that a freed slot keeps resident. Source: a new store, instance and drop cost half
/// of what they cost without, if (and only if) the page map scan is on.
const MEMORY_KEEP_RESIDENT_BYTES: usize = 1 << 20;

/// Table memory that a freed slot keeps resident.
const TABLE_KEEP_RESIDENT_BYTES: usize = 64 << 10;

/// Core instances, memories and tables of one component: componentize-py makes a dozen core
/// instances, a Rust cell three.
const CORE_INSTANCES_PER_COMPONENT: u32 = 60;
const MEMORIES_PER_COMPONENT: u32 = 4;
const TABLES_PER_COMPONENT: u32 = 20;

/// Elements of one table: what `ResourceLimiter` and the pool both allow.
pub(super) const TABLE_ELEMENTS_MAX: usize = 10_000;

/// Address space reserved for one memory. With 4 GiB and guard pages Cranelift leaves out bounds checks.
const MEMORY_RESERVATION_BYTES: u64 = 4 << 30;

/// Guard behind one memory.
const MEMORY_GUARD_BYTES: u64 = 32 << 20;

/// What the pool must have room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EngineLimits {
    /// Instances alive at once, all cells and lanes together.
    pub instances_max: u32,
    /// Linear memory of one instance, bytes: the largest of all cells' limits.
    pub memory_bytes_max: usize,
}

/// Mappings of the process that one instance takes, its scratch folder's and its stack's with it, rounded up. Source: with
/// the kernel's default of 65,530 mappings, 6,356 instances of the hello cell could be made.
pub const MAPPINGS_PER_INSTANCE: usize = 16;

/// The kernel's default for `vm.max_map_count`.
const MAPPINGS_DEFAULT: usize = 65_530;

/// Instances that may wait for calls on each of `lanes` lanes, so that the process never runs out of mappings for those
/// that are wanted.
#[must_use]
pub fn idle_instances_max(lanes: usize) -> usize {
    (mappings_max() / MAPPINGS_PER_INSTANCE / lanes).max(1)
}

/// Mappings that the kernel gives to one process.
#[must_use]
pub fn mappings_max() -> usize {
    let setting = std::fs::read_to_string("/proc/sys/vm/max_map_count").unwrap_or_default();
    setting.trim().parse().unwrap_or(MAPPINGS_DEFAULT)
}

/// Why there is no engine.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The pool did not get its address space, or the settings do not fit this machine.
    #[error(
        "cannot set up the pool for {instances} instances of at most {memory_bytes} bytes: \
         lower instances_max or memory_max, or raise the limit on address space (ulimit -v)"
    )]
    Pool {
        /// Instances asked for.
        instances: u32,
        /// Bytes of linear memory asked for.
        memory_bytes: usize,
        /// What wasmtime said.
        #[source]
        source: wasmtime::Error,
    },
    /// The compiler settings were refused.
    #[error("wasmtime refused the compiler settings")]
    Compiler(#[source] wasmtime::Error),
}

/// The engine that runs the cells of one lane. Every call counts references to its engine, so lanes share none.
#[derive(Clone)]
pub struct HostEngine {
    engine: Engine,
    cache: Option<Arc<Cache>>,
    pulse: Arc<Pulse>,
    /// Components that were loaded, by the name of their artifact.
    loaded: Arc<Mutex<HashMap<String, Component>>>,
}

impl std::fmt::Debug for HostEngine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HostEngine").finish_non_exhaustive()
    }
}

impl HostEngine {
    /// An engine with a pool of `limits`, which loads artifacts from `cache`.
    ///
    /// # Errors
    /// [`EngineError::Pool`] if the address space of the pool cannot be had.
    pub fn serving(
        limits: EngineLimits,
        cache: Option<Cache>,
        pulse: &Arc<Pulse>,
    ) -> Result<Self, EngineError> {
        let mut config = compiler_settings();
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool(limits)));
        config.cache(cache.clone());
        let engine = Engine::new(&config).map_err(|source| EngineError::Pool {
            instances: limits.instances_max,
            memory_bytes: limits.memory_bytes_max,
            source,
        })?;
        Ok(Self { engine, cache: cache.map(Arc::new), pulse: Arc::clone(pulse), loaded: Arc::default() })
    }

    /// An engine that only compiles, into `cache`.
    ///
    /// # Errors
    /// [`EngineError::Compiler`] if wasmtime refuses the settings.
    pub(super) fn compiling(cache: Cache) -> Result<Self, EngineError> {
        let mut config = compiler_settings();
        config.cache(Some(cache.clone()));
        let engine = Engine::new(&config).map_err(EngineError::Compiler)?;
        Ok(Self { engine, cache: Some(Arc::new(cache)), pulse: Arc::default(), loaded: Arc::default() })
    }

    /// Components that were compiled in this process since the engine was made, because no artifact was found.
    pub fn compiled_here(&self) -> usize {
        self.cache.as_ref().map_or(0, |cache| cache.cache_misses())
    }

    /// To be beaten whenever a guest is about to run.
    #[must_use]
    pub fn pulse(&self) -> &Arc<Pulse> {
        &self.pulse
    }

    /// The component of this artifact, if it was loaded before.
    pub(super) fn loaded(&self, artifact: &str) -> Option<Component> {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner).get(artifact).cloned()
    }

    pub(super) fn keep(&self, artifact: String, component: &Component) {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner).insert(artifact, component.clone());
    }

    pub(super) fn wasmtime(&self) -> &Engine {
        &self.engine
    }
}

/// Everything that compiled code depends on.
fn compiler_settings() -> Config {
    let mut config = Config::new();
    config
        .wasm_component_model(true)
        // Every call is two to five times cheaper without; cells have no async exports.
        .concurrency_support(false)
        .epoch_interruption(true)
        .cranelift_opt_level(OptLevel::Speed)
        .max_wasm_stack(WASM_STACK_BYTES)
        .async_stack_size(FIBER_STACK_BYTES)
        .memory_reservation(MEMORY_RESERVATION_BYTES)
        .memory_guard_size(MEMORY_GUARD_BYTES)
        .memory_init_cow(true);
    config
}

fn pool(limits: EngineLimits) -> PoolingAllocationConfig {
    let instances = limits.instances_max;
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(instances)
        .total_core_instances(instances.saturating_mul(CORE_INSTANCES_PER_COMPONENT))
        .total_memories(instances.max(MEMORIES_PER_COMPONENT))
        .total_tables(instances.saturating_mul(2).max(TABLES_PER_COMPONENT))
        .total_stacks(instances)
        .max_core_instances_per_component(CORE_INSTANCES_PER_COMPONENT)
        .max_memories_per_component(MEMORIES_PER_COMPONENT)
        .max_tables_per_component(TABLES_PER_COMPONENT)
        .max_memory_size(limits.memory_bytes_max)
        .table_elements(TABLE_ELEMENTS_MAX)
        .linear_memory_keep_resident(MEMORY_KEEP_RESIDENT_BYTES)
        .table_keep_resident(TABLE_KEEP_RESIDENT_BYTES)
        .pagemap_scan(Enabled::Auto);
    pool
}
