//! Guests in the settings of the runtime: concurrency off, epochs on, pooling, one warm instance.

use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use wasmtime::component::{Component, Linker, ResourceTable};
use wasmtime::{Config, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, Store};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

/// How often the epoch advances.
const TICK: Duration = Duration::from_millis(10);
/// Ticks until a call is interrupted: 10 s, far more than any here takes.
const TICKS_PER_CALL: u64 = 1_000;

/// What a guest's store holds.
pub(crate) struct State {
    wasi: WasiCtx,
    table: ResourceTable,
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

/// An engine with the runtime's settings, and the thread that advances its epoch.
pub(crate) fn engine() -> Result<Engine> {
    let mut pool = PoolingAllocationConfig::default();
    pool.total_component_instances(8).total_core_instances(32).total_memories(8).total_tables(16);
    let mut config = Config::new();
    config
        .concurrency_support(false)
        .epoch_interruption(true)
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    let engine = Engine::new(&config)?;
    let weak = engine.weak();
    thread::spawn(move || {
        while let Some(engine) = weak.upgrade() {
            engine.increment_epoch();
            drop(engine);
            thread::sleep(TICK);
        }
    });
    Ok(engine)
}

/// A store, a component and what it may import, ready to be instantiated.
pub(crate) struct Guest {
    pub(crate) store: Store<State>,
    pub(crate) component: Component,
    pub(crate) linker: Linker<State>,
}

impl Guest {
    /// Loads `<name>.wasm` from the folder that `cargo xtask bench` built the guests into.
    pub(crate) fn load(engine: &Engine, name: &str) -> Result<Self> {
        let path = folder()?.join(format!("{name}.wasm"));
        let component = Component::from_file(engine, &path)
            .map_err(anyhow::Error::from)
            .with_context(|| format!("cannot load {}", path.display()))?;
        let mut linker = Linker::new(engine);
        wasmtime_wasi::p2::add_to_linker_sync(&mut linker)?;
        let state = State { wasi: WasiCtx::builder().build(), table: ResourceTable::new() };
        let mut store = Store::new(engine, state);
        arm(&mut store);
        Ok(Self { store, component, linker })
    }
}

/// Re-arms the deadline, as the runtime does before each call.
pub(crate) fn arm(store: &mut Store<State>) {
    store.set_epoch_deadline(TICKS_PER_CALL);
}

fn folder() -> Result<PathBuf> {
    let folder = std::env::var_os("CELLMESH_BENCH_GUESTS");
    folder.map(PathBuf::from).context("CELLMESH_BENCH_GUESTS is not set: use `cargo xtask bench`")
}
