//! The threads of a process that run lanes, and the way from a signal to their end.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{anyhow, bail};
use cellmesh_dpu::Dpu;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Barrier, mpsc, watch};
use tokio::task::LocalSet;

use crate::admin::Health;
use crate::config::RuntimeSettings;

/// Time between the order to stop and the end of a lane: it only has to be woken up.
const STOP_TIMEOUT: Duration = Duration::from_secs(1);

/// What a lane is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Serve.
    Serve,
    /// Serve, and tell clients to come over other connections the next time: the end is near.
    Retire,
    /// Finish what is in flight, refuse what is new.
    Drain,
    /// End, whatever is in flight.
    Stop,
}

/// Says once whether a lane has all that it needs to serve.
#[derive(Debug)]
struct Begun(Option<std::sync::mpsc::Sender<bool>>);

impl Begun {
    fn say(&mut self, has_begun: bool) {
        if let Some(sender) = self.0.take() {
            // Whoever started the lane has it in hand, or has ended.
            let _ = sender.send(has_begun);
        }
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        self.say(false);
    }
}

/// What a lane's thread is told while it runs. Waiting for them says that the lane has begun.
#[derive(Debug)]
pub struct Orders {
    begun: Begun,
    phase: watch::Receiver<Phase>,
    /// Where the lanes of a process meet when they are done with their drains.
    drained: Arc<Barrier>,
}

impl Orders {
    /// Ready when the lane is to stop: at once, or after a drain in which every connection was closed. A lane that
    /// is done before the others still tells new clients that it drains: they may be given to any lane.
    pub async fn until_drained(mut self, dpu: Dpu) {
        self.begun.say(true);
        let first = self.phase.wait_for(|phase| *phase != Phase::Serve).await.map(|phase| *phase);
        if first.is_ok_and(|phase| phase == Phase::Retire) {
            dpu.retire();
        }
        if self.end_of_service().await == Phase::Drain {
            let all_drained = async {
                dpu.drain().await;
                self.drained.wait().await;
                dpu.drain().await;
            };
            tokio::select! {
                () = all_drained => {}
                _ = self.phase.wait_for(|phase| *phase == Phase::Stop) => {}
            }
        }
    }

    /// Ready when the lane is to stop: at once, or after `drain`.
    pub async fn until_done(mut self, drain: impl Future<Output = ()>) {
        self.begun.say(true);
        if self.end_of_service().await == Phase::Drain {
            tokio::select! {
                () = drain => {}
                _ = self.phase.wait_for(|phase| *phase == Phase::Stop) => {}
            }
        }
    }

    /// Waits until the lane is not to serve any more. A sender that is gone means that nobody waits for it.
    async fn end_of_service(&mut self) -> Phase {
        let ends = |phase: &Phase| matches!(phase, Phase::Drain | Phase::Stop);
        self.phase.wait_for(ends).await.map_or(Phase::Stop, |phase| *phase)
    }
}

/// What a lane's thread does, on its own single-threaded runtime.
pub type LaneMain = Box<dyn FnOnce(Orders) -> LaneFuture + Send>;
/// The lane's own future, which never leaves its thread.
pub type LaneFuture = std::pin::Pin<Box<dyn Future<Output = anyhow::Result<()>>>>;

/// The lanes' threads, and the way to tell them what to do.
#[derive(Debug)]
pub struct Lanes {
    threads: Vec<JoinHandle<()>>,
    phase: watch::Sender<Phase>,
    /// A message when a lane ends; closed when all have ended.
    ended: mpsc::Receiver<anyhow::Result<()>>,
}

impl Lanes {
    /// A thread for each. Returns when all of them have what they need: nobody is served before that, since clients could take
    /// what a lane still needs, descriptors above all.
    ///
    /// # Errors
    /// When the system has no thread left, or a lane does not get what it needs.
    pub fn start(mains: Vec<LaneMain>) -> anyhow::Result<Self> {
        let (phase, _) = watch::channel(Phase::Serve);
        let (report, mut ended) = mpsc::channel(mains.len());
        let (begun_to, begun) = std::sync::mpsc::channel();
        let drained = Arc::new(Barrier::new(mains.len()));
        let mut threads = Vec::with_capacity(mains.len());
        for (index, main) in mains.into_iter().enumerate() {
            let begun = Begun(Some(begun_to.clone()));
            let orders = Orders { begun, phase: phase.subscribe(), drained: Arc::clone(&drained) };
            let report = report.clone();
            let thread = std::thread::Builder::new().name(format!("lane-{index}")).spawn(move || {
                let ended = catch_unwind(AssertUnwindSafe(|| run(main, orders)))
                    .unwrap_or_else(|_| Err(anyhow!("panicked")));
                // The receiver lives until every lane has reported.
                let _ = report.blocking_send(ended);
            })?;
            threads.push(thread);
        }
        drop(begun_to);
        // Ends when each has said it.
        if begun.into_iter().any(|has_begun| !has_begun) {
            return Err(lane_failed(ended.blocking_recv()));
        }
        Ok(Self { threads, phase, ended })
    }

    /// Until a signal, then a drain; or until a lane fails.
    ///
    /// # Errors
    /// When a lane fails.
    pub async fn serve(mut self, settings: &RuntimeSettings, health: &Health) -> anyhow::Result<()> {
        let retire = self.retire();
        tokio::select! {
            told = told_to_drain(settings.drain_delay, health, retire) => told?,
            ended = self.ended.recv() => bail!(lane_failed(ended)),
        }
        self.drain(settings.drain_timeout).await;
        Ok(())
    }

    /// Tells all lanes to have their clients go elsewhere by and by.
    pub fn retire(&self) -> impl Fn() + use<> {
        let phase = self.phase.clone();
        move || {
            phase.send_replace(Phase::Retire);
        }
    }

    /// Waits until a lane has ended, which none does by itself.
    pub async fn failed(&mut self) -> anyhow::Error {
        lane_failed(self.ended.recv().await)
    }

    /// Lets all lanes finish, and cuts them off after the timeout.
    pub async fn drain(mut self, drain_timeout: Duration) {
        self.phase.send_replace(Phase::Drain);
        if tokio::time::timeout(drain_timeout, self.all_ended()).await.is_err() {
            tracing::warn!(?drain_timeout, "requests still in flight are cut off");
            self.phase.send_replace(Phase::Stop);
            tokio::time::timeout(STOP_TIMEOUT, self.all_ended()).await.unwrap_or(());
        }
    }

    async fn all_ended(&mut self) {
        while self.ended.recv().await.is_some() {}
        for thread in self.threads.drain(..) {
            // Its result was reported; a panic was printed.
            let _ = thread.join();
        }
    }
}

fn run(main: LaneMain, orders: Orders) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let ended = LocalSet::new().block_on(&runtime, main(orders));
    // Names that are still being looked up keep threads of its own; nobody waits for them.
    runtime.shutdown_background();
    ended
}

fn lane_failed(ended: Option<anyhow::Result<()>>) -> anyhow::Error {
    match ended {
        Some(Err(error)) => error.context("a lane failed"),
        Some(Ok(())) | None => anyhow!("a lane ended by itself"),
    }
}

/// Ready when the drain is to begin: so long after SIGTERM or SIGINT, or at the second of them. From the first on the process
/// says that it is not ready, so that nobody is sent here by the time that it refuses.
///
/// # Errors
/// When signals cannot be waited for.
pub async fn told_to_drain(delay: Duration, health: &Health, retire: impl Fn()) -> std::io::Result<()> {
    let mut signals = StopSignals::new()?;
    let mut name = if is_told_early() { "a signal at the start" } else { signals.next().await };
    health.drain();
    if !delay.is_zero() {
        retire();
        tracing::info!(signal = name, ?delay, "told to end, serving on for the delay");
        tokio::select! {
            () = tokio::time::sleep(delay) => {}
            second = signals.next() => name = second,
        }
    }
    tracing::info!(signal = name, "draining");
    Ok(())
}

/// Whether somebody waits for signals who can drain, and whether one has come. Each side writes its own before it looks at the
/// other's (sequentially consistent): no signal is missed by both.
static SERVES: AtomicBool = AtomicBool::new(false);
static TOLD: AtomicBool = AtomicBool::new(false);

/// From now until a drain can be waited for, SIGTERM and SIGINT end the process at once: there is nothing to finish yet. The
/// system would do that, but not to the first process of a container.
pub fn end_when_told_early() {
    let waiting = std::thread::Builder::new().name("signals".into()).spawn(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
        runtime.block_on(async {
            let name = StopSignals::new()?.next().await;
            TOLD.store(true, Ordering::SeqCst);
            if !SERVES.load(Ordering::SeqCst) {
                eprintln!("cellmesh: {name} before anything was served");
                std::process::exit(ENDED_EARLY);
            }
            std::io::Result::Ok(())
        })
    });
    if let Err(error) = waiting {
        tracing::warn!(%error, "SIGTERM is left to the system until the process serves");
    }
}

fn is_told_early() -> bool {
    SERVES.store(true, Ordering::SeqCst);
    TOLD.load(Ordering::SeqCst)
}

/// As a shell says of a process that SIGTERM ended.
const ENDED_EARLY: i32 = 128 + 15;

/// What tells a process to end.
struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    fn new() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mains(main: fn(Orders) -> LaneFuture) -> Vec<LaneMain> {
        let begins = |orders: Orders| -> LaneFuture {
            Box::pin(async move {
                orders.until_done(std::future::ready(())).await;
                Ok(())
            })
        };
        vec![Box::new(begins), Box::new(main)]
    }

    /// Nobody is served by some lanes while another does not get what it needs.
    #[test]
    fn lanes_begin_all_or_none() {
        let failed = Lanes::start(mains(|_| Box::pin(async { bail!("no descriptor is left") })));
        assert_eq!(
            format!("{:#}", failed.expect_err("a lane failed")),
            "a lane failed: no descriptor is left"
        );
        let all = Lanes::start(mains(|orders| {
            Box::pin(async move {
                std::thread::sleep(Duration::from_millis(50));
                orders.until_done(std::future::ready(())).await;
                Ok(())
            })
        }));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(all.expect("all have begun").drain(Duration::from_secs(60)));
    }
}
