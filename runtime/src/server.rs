//! `cellmesh run`: an application, co-hosted in this process.
//!
//! The order of the code is the order of the start: cells, listener, lanes; then signals, drain, end. Nothing is
//! bound before every cell is loaded, so a start that fails leaves nothing behind.

use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use cellmesh_dpu::{Acceptor, LaneIntake, Routes};
use cellmesh_shm::ids::ServiceId;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Barrier, Notify, mpsc, watch};
use tokio::task::LocalSet;

use crate::call::LaneHandle;
use crate::cohost::{Cohosted, LaneParts};
use crate::config::{App, RuntimeSettings};
use crate::host::{ArtifactCache, Cell, CompileLimits, Compiler, EngineLimits, HostEngine, Ticker};
use crate::lane::{self, Phase};
use crate::pool::Pool;
use crate::worker::ServiceCell;

/// Time between the order to stop and the end of a lane: it only has to be woken up.
const STOP_TIMEOUT: Duration = Duration::from_secs(1);

/// Serves `app` until SIGINT or SIGTERM, then drains.
///
/// # Errors
/// When a cell does not load, the address cannot be bound, or a lane fails.
pub fn run(app: App) -> anyhow::Result<()> {
    let mesh = Mesh::load(&app)?;
    let listener = bind(app.listen)?;
    let address = listener.local_addr()?;
    let (acceptor, intakes) = Acceptor::new(listener, app.runtime.lanes, app.dpu.connections_max);
    let lanes = Lanes::start(&app, &mesh, intakes)?;
    announce(&app, address);
    let main = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    main.block_on(async {
        // New connections are accepted while the lanes drain: their requests are told 503.
        let accepting = tokio::spawn(acceptor.run());
        let served = lanes.serve(app.runtime.drain_timeout).await;
        accepting.abort();
        served
    })
}

/// What all lanes share: loaded cells, the thread pool, the ticker.
struct Mesh {
    routes: Arc<Routes>,
    services: Vec<ServiceCell>,
    pool: Pool,
    _ticker: Ticker,
}

impl Mesh {
    fn load(app: &App) -> anyhow::Result<Self> {
        let settings = &app.runtime;
        let compiler = Compiler::this_program(CompileLimits::default())?;
        let cache = ArtifactCache::open(&settings.cache_dir, compiler)?;
        let engine = HostEngine::serving(engine_limits(app), Some(cache.for_engine()?))?;
        let services = load_cells(app, &engine, &cache)?;
        let names = app
            .services
            .iter()
            .map(|service| service.setup.service.parse())
            .collect::<Result<Vec<_>, _>>()?;
        let entry = ServiceId(u16::try_from(app.entry).context("too many services")?);
        Ok(Self {
            routes: Arc::new(Routes::new(names, entry)?),
            services,
            pool: Pool::start(settings.pool_threads)?,
            _ticker: Ticker::start(&engine, settings.epoch_tick)?,
        })
    }
}

fn load_cells(app: &App, engine: &HostEngine, cache: &ArtifactCache) -> anyhow::Result<Vec<ServiceCell>> {
    let mut services = Vec::with_capacity(app.services.len());
    for service in &app.services {
        let cell = Cell::load(engine, cache, service.setup.clone())?;
        if cell.compiled {
            tracing::info!(component = %service.setup.component.display(), "compiled");
        }
        services.push(ServiceCell { cell, instances_max: per_lane(service.instances_max, &app.runtime) });
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
fn per_lane(instances_max: u32, settings: &RuntimeSettings) -> usize {
    (instances_max as usize).div_ceil(settings.lanes)
}

fn engine_limits(app: &App) -> EngineLimits {
    let lanes = app.runtime.lanes;
    let instances: usize =
        app.services.iter().map(|service| per_lane(service.instances_max, &app.runtime) * lanes).sum();
    EngineLimits {
        instances_max: u32::try_from(instances).unwrap_or(u32::MAX),
        memory_bytes_max: app
            .services
            .iter()
            .map(|service| service.setup.limits.memory_bytes_max)
            .max()
            .unwrap_or(0),
    }
}

fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).with_context(|| format!("cannot listen on {address}"))
}

/// The lanes' threads, and the way to tell them what to do.
struct Lanes {
    threads: Vec<JoinHandle<()>>,
    phase: watch::Sender<Phase>,
    /// A message when a lane ends; closed when all have ended.
    ended: mpsc::Receiver<anyhow::Result<()>>,
}

impl Lanes {
    fn start(app: &App, mesh: &Mesh, intakes: Vec<LaneIntake>) -> anyhow::Result<Self> {
        let (phase, _) = watch::channel(Phase::Serve);
        let (report, ended) = mpsc::channel(app.runtime.lanes);
        let drained = Arc::new(Barrier::new(intakes.len()));
        let mut threads = Vec::with_capacity(intakes.len());
        for (index, intake) in intakes.into_iter().enumerate() {
            let start = LaneStart {
                routes: Arc::clone(&mesh.routes),
                services: mesh.services.clone(),
                pool: mesh.pool.clone(),
                dpu: app.dpu.clone(),
                intake,
                phase: phase.subscribe(),
                drained: Arc::clone(&drained),
            };
            let report = report.clone();
            let thread = std::thread::Builder::new().name(format!("lane-{index}")).spawn(move || {
                let ended = catch_unwind(AssertUnwindSafe(|| start.run()))
                    .unwrap_or_else(|_| Err(anyhow!("panicked")));
                // The receiver lives until every lane has reported.
                let _ = report.blocking_send(ended);
            })?;
            threads.push(thread);
        }
        Ok(Self { threads, phase, ended })
    }

    /// Until a signal, then a drain; or until a lane fails.
    async fn serve(mut self, drain_timeout: Duration) -> anyhow::Result<()> {
        tokio::select! {
            name = stop_signal() => tracing::info!(signal = name?, "draining"),
            ended = self.ended.recv() => bail!(lane_failed(ended)),
        }
        self.phase.send_replace(Phase::Drain);
        if tokio::time::timeout(drain_timeout, self.all_ended()).await.is_err() {
            tracing::warn!(?drain_timeout, "requests still in flight are cut off");
            self.phase.send_replace(Phase::Stop);
            tokio::time::timeout(STOP_TIMEOUT, self.all_ended()).await.unwrap_or(());
        }
        Ok(())
    }

    async fn all_ended(&mut self) {
        while self.ended.recv().await.is_some() {}
        for thread in self.threads.drain(..) {
            // Its result was reported; a panic was printed.
            let _ = thread.join();
        }
    }
}

fn lane_failed(ended: Option<anyhow::Result<()>>) -> anyhow::Error {
    match ended {
        Some(Err(error)) => error.context("a lane failed"),
        Some(Ok(())) | None => anyhow!("a lane ended by itself"),
    }
}

async fn stop_signal() -> std::io::Result<&'static str> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => Ok("SIGTERM"),
        _ = interrupt.recv() => Ok("SIGINT"),
    }
}

/// What goes to a lane's thread.
struct LaneStart {
    routes: Arc<Routes>,
    services: Vec<ServiceCell>,
    pool: Pool,
    dpu: cellmesh_dpu::DpuConfig,
    intake: LaneIntake,
    phase: watch::Receiver<Phase>,
    drained: Arc<Barrier>,
}

impl LaneStart {
    fn run(self) -> anyhow::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        LocalSet::new().block_on(&runtime, async move {
            let wake = Arc::new(Notify::new());
            let modules = Cohosted::new(LaneParts {
                routes: self.routes,
                dpu: self.dpu,
                services: self.services,
                pool: self.pool,
                lane: LaneHandle::new(Arc::clone(&wake)),
            })?;
            tokio::task::spawn_local(self.intake.serve(modules.dpu().clone()));
            lane::run(modules, wake, self.phase, self.drained).await
        })
    }
}

/// Says what is served where, and what to type to see it. Nobody has to listen: a closed standard output is no
/// reason not to serve.
fn announce(app: &App, address: SocketAddr) {
    let _ = std::io::stdout().write_all(announcement(app, address).as_bytes());
}

fn announcement(app: &App, address: SocketAddr) -> String {
    let mut lines = vec![format!("{}: {} services on http://{address}", app.name, app.services.len())];
    lines.extend(app.services.iter().map(|service| {
        format!("  {:<16} {}", service.setup.service, from_here(&service.setup.component).display())
    }));
    lines.extend(app.notes.iter().map(|note| format!("note: {note}")));
    let entry = &app.services[app.entry];
    lines.push(format!("try: curl http://{address}{}", entry.path));
    if let Some(other) = app.services.iter().find(|service| service.setup.service != entry.setup.service) {
        let name = &other.setup.service;
        lines.push(format!("     curl http://{address}{} -H 'x-cellmesh-service: {name}'", other.path));
    }
    lines.push("serving; Ctrl-C drains and ends\n".into());
    lines.join("\n")
}

/// A path as short as it can be said from the current folder.
fn from_here(path: &Path) -> &Path {
    std::env::current_dir().ok().and_then(|here| path.strip_prefix(here).ok()).unwrap_or(path)
}
