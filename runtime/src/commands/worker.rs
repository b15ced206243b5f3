//! `cellmesh worker`: cells in a process of their own, attached to the DPA of their node.
//!
//! ```text
//! attach --> each lane serves its link --> the DPA has gone: each lane drops what it had --> attach
//!                     |
//!                     '-- SIGTERM: Leave, Left, each lane finishes, the end of the socket
//! ```
//!
//! - Cells stay loaded from one DPA to the next: a worker is back as soon as it has a link.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use cellmesh_dpa::reactor::BellWatch;
use cellmesh_dpu::Routes;
use cellmesh_graph::Limits;
use cellmesh_shm::attach::{Hello, Role};
use cellmesh_shm::clock::Nanos;
use cellmesh_shm::ids::ServiceId;
use cellmesh_shm::link::{Link, LinkFds};
use cellmesh_shm::port::{Port, Progress};
use tokio::sync::{Notify, mpsc};

use super::{Admin, announce};
use crate::admin::metrics::Counts;
use crate::admin::{About, Asked, Health};
use crate::attachment::{
    Attachment, AttachmentNumber, DpaSocket, LinkEnds, LinkOrder, NodeServices, Wait, process_name,
};
use crate::call::LaneHandle;
use crate::cohost::worker_port_config;
use crate::config::{App, RuntimeSettings, ServiceSpec};
use crate::hangups::Hangups;
use crate::lane::{self, Modules};
use crate::lanes::{LaneMain, Lanes, told_to_drain};
use crate::mesh::Mesh;
use crate::pool::Pool;
use crate::trace::{Recorder, RecorderParts};
use crate::worker::{Meters, ServiceCell, Worker, WorkerParts};

/// Orders that a lane has not looked at yet.
const ORDERS_MAX: usize = 8;

/// What is missing while there is no DPA.
const DPA: &str = "dpa";

/// Serves the worker's services of `app` until SIGINT or SIGTERM, then finishes what it has.
///
/// # Errors
/// When a cell does not load, or a lane fails.
pub fn run(app: &App, hangups: Hangups) -> anyhow::Result<()> {
    let count = super::attached_lanes(&app.runtime)?;
    let specs: Vec<&ServiceSpec> = app.worker_services().collect();
    let names: Vec<String> = specs.iter().map(|spec| spec.setup.service.to_string()).collect();
    let mesh = Mesh::load(&specs, &app.runtime, count)?;
    let ends = LinkEnds::new(count);
    let mut admin = Admin::bind(app.own_admin, About::new("worker", app))?;
    let recorders = admin.of_cells(&mesh.pool, count);
    let mut orders_to = Vec::new();
    let mut mains: Vec<LaneMain> = Vec::new();
    for (index, (services, recorder)) in mesh.lanes.into_iter().zip(recorders).enumerate() {
        let (sender, orders) = mpsc::channel(ORDERS_MAX);
        orders_to.push(sender);
        let lane = WorkerLane {
            index,
            services: names.iter().cloned().zip(services).collect(),
            pool: mesh.pool.clone(),
            idle_instances_max: mesh.idle_instances_max,
            spin: app.runtime.spin,
            retry_worker_lost: app.dpu.retry_worker_lost,
            namespace: app.namespace.clone(),
            orders,
            ends: ends.clone(),
            asked: Some(admin.lane()),
            recorder: Some(recorder),
        };
        mains.push(lane.main());
    }
    let mut lanes = Lanes::start(mains)?;
    let mut lines = vec![
        format!("{}: worker of {}", app.name, names.join(", ")),
        format!("attaches to the DPA at {}", app.node.socket_of_worker().display()),
    ];
    lines.extend(announce::no_admin(app));
    lines.push("Ctrl-C finishes and ends".into());
    announce::say(&lines);
    let hello = Hello {
        name: process_name("worker"),
        role: Role::Worker,
        services: names,
        lanes: u16::try_from(count).context("too many lanes")?,
        profile: app.node.worker_ring,
    };
    let socket = DpaSocket { path: app.node.socket_of_worker().clone(), hello };
    let health = admin.health();
    let wait = Wait::new(app.node.reattach_delay);
    let mut control = Control { health, socket, lanes: orders_to, ends, wait, settings: app.runtime.clone() };
    let main = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    main.block_on(async {
        let (_health, exporting) = admin.serve();
        hangups.ignore();
        tokio::select! {
            served = control.serve() => served?,
            error = lanes.failed() => return Err(error),
        }
        // Its senders keep the lanes alive, and those what is on its way to the collector.
        drop(control);
        lanes.drain(Duration::from_secs(1)).await;
        exporting.end().await;
        Ok(())
    })
}

/// Takes all lanes of the process from DPA to DPA.
struct Control {
    health: Health,
    socket: DpaSocket,
    lanes: Vec<mpsc::Sender<LinkOrder>>,
    ends: LinkEnds,
    wait: Wait,
    settings: RuntimeSettings,
}

impl Control {
    /// Until the drain that SIGINT or SIGTERM asks for.
    async fn serve(&mut self) -> anyhow::Result<()> {
        let (health, delay) = (self.health.clone(), self.settings.drain_delay);
        let mut stop = std::pin::pin!(told_to_drain(delay, &health, || ()));
        for number in 1.. {
            self.health.missing(DPA, "not attached to one");
            let mut attached = tokio::select! {
                attached = self.socket.attach() => attached,
                told = &mut stop => {
                    tracing::info!("ends; it was not attached");
                    return Ok(told?);
                }
            };
            for (lane, link) in self.lanes.iter().zip(attached.links.drain(..)) {
                // A lane that has ended ends the process.
                let _ =
                    lane.send(LinkOrder::Attach(Box::new(link), Arc::clone(&attached.node), number)).await;
            }
            self.wait.attached(Nanos::now());
            self.health.found(DPA);
            let pause = tokio::select! {
                why = attached.ended() => {
                    tracing::warn!("detached from the DPA: {why}");
                    None
                }
                why = self.ends.broken(number) => {
                    let pause = self.wait.after_loss(Nanos::now());
                    tracing::error!(?pause, "detaching from the DPA, and attaching again after a pause: {why}");
                    Some(pause)
                }
                told = &mut stop => {
                    told?;
                    self.finish(&attached, number).await;
                    return Ok(());
                }
            };
            self.health.missing(DPA, "not attached to one");
            drop(attached);
            self.tell(|| LinkOrder::Detach).await;
            if let Some(pause) = pause {
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    told = &mut stop => {
                        tracing::info!("ends; it was not attached");
                        return Ok(told?);
                    }
                }
            }
        }
        Ok(())
    }

    /// Nothing new, then what is in flight, then the end.
    async fn finish(&self, attached: &Attachment, number: AttachmentNumber) {
        let drain_timeout = self.settings.drain_timeout;
        let finished = async {
            attached.leave().await;
            self.tell(|| LinkOrder::Finish).await;
            self.ends.all(number).await;
        };
        tokio::select! {
            () = finished => {}
            () = tokio::time::sleep(drain_timeout) => {
                tracing::warn!(?drain_timeout, "requests still in flight are cut off");
            }
        }
    }

    async fn tell(&self, order: impl Fn() -> LinkOrder) {
        for lane in &self.lanes {
            let _ = lane.send(order()).await;
        }
    }
}

/// One lane of a worker process, from link to link.
struct WorkerLane {
    /// Its place among the lanes.
    index: usize,
    services: Vec<(String, ServiceCell)>,
    pool: Pool,
    idle_instances_max: usize,
    spin: Duration,
    retry_worker_lost: bool,
    namespace: Option<String>,
    orders: mpsc::Receiver<LinkOrder>,
    ends: LinkEnds,
    /// Who asks what it counts.
    asked: Option<Asked>,
    /// What its requests are noted with.
    recorder: Option<RecorderParts>,
}

impl WorkerLane {
    /// On a thread of its own.
    fn main(self) -> LaneMain {
        Box::new(move |stop| {
            Box::pin(async move {
                tokio::select! {
                    // The lane first: it has begun when it has its bells.
                    biased;
                    ended = self.run() => ended,
                    () = stop.until_done(std::future::ready(())) => Ok(()),
                }
            })
        })
    }

    /// As long as there are orders.
    async fn run(mut self) -> anyhow::Result<()> {
        let bells = BellWatch::new()?;
        let meters = Meters::default();
        let recorder = Recorder::new(self.recorder.take().context("a lane runs once")?);
        if let Some(asked) = self.asked.take() {
            let meters = meters.clone();
            let counts = move || Counts::of_worker(&meters);
            tokio::task::spawn_local(asked.answer(counts, Some(recorder.clone())));
        }
        let mut latest = 0;
        while let Some(order) = self.orders.recv().await {
            match order {
                LinkOrder::Attach(fds, node, number) => {
                    latest = number;
                    match self.serve(*fds, &node, &bells, (&meters, &recorder)).await {
                        Ok(Served::Finished) => self.ends.finished(self.index, number),
                        Ok(Served::Detached) => {}
                        Err(error) => self.ends.broke(self.index, number, format!("{error:#}")),
                    }
                }
                LinkOrder::Finish => self.ends.finished(self.index, latest),
                LinkOrder::Detach => {}
            }
        }
        Ok(())
    }

    /// Serves one link to its end.
    ///
    /// # Errors
    /// When the link cannot be used, or the DPA broke a rule on it.
    async fn serve(
        &mut self,
        fds: LinkFds,
        node: &NodeServices,
        bells: &BellWatch,
        notes: (&Meters, &Recorder),
    ) -> anyhow::Result<Served> {
        let endpoint = fds.spec.endpoint;
        let mut modules = self.modules(fds, node, bells, notes)?;
        bells.add(endpoint, modules.worker.wait_fd()).context("cannot wait for the DPA's bell")?;
        let (finishing, wake) = (Rc::clone(&modules.finishing), Arc::clone(&modules.wake));
        let orders = &mut self.orders;
        let until_detached = async {
            while let Some(LinkOrder::Finish) = orders.recv().await {
                finishing.set(true);
                wake.notify_one();
            }
        };
        let served = lane::run(&mut modules, self.spin, until_detached).await;
        bells.remove(endpoint);
        served.context("the DPA broke a rule")?;
        Ok(if finishing.get() { Served::Finished } else { Served::Detached })
    }

    /// A worker on this link, with the DPA's numbers for its services.
    fn modules<'b>(
        &self,
        fds: LinkFds,
        node: &NodeServices,
        bells: &'b BellWatch,
        (meters, recorder): (&Meters, &Recorder),
    ) -> anyhow::Result<Serving<'b>> {
        let names = node.names.iter().map(|name| name.parse()).collect::<Result<Vec<_>, _>>()?;
        let routes = Routes::new(names, ServiceId(0))?;
        let routes = match &self.namespace {
            Some(namespace) => routes.in_namespace(namespace),
            None => routes,
        };
        let numbered = self.services.iter().map(|(name, cell)| {
            let id = routes.id(name).with_context(|| format!("the DPA does not know service {name}"))?;
            Ok((id, cell.clone()))
        });
        let services = numbered.collect::<anyhow::Result<Vec<_>>>()?;
        let config = worker_port_config(node.calls_max, node.message_bytes_max);
        let wake = Arc::new(Notify::new());
        let worker = Worker::new(WorkerParts {
            port: Port::new(Link::open(fds)?, config),
            routes: Arc::new(routes),
            services,
            pool: self.pool.clone(),
            idle_instances_max: self.idle_instances_max,
            lane: LaneHandle::new(Arc::clone(&wake)),
            limits: Limits::default(),
            retry_worker_lost: self.retry_worker_lost,
            meters: meters.clone(),
            recorder: recorder.clone(),
        });
        Ok(Serving { worker, wake, bells, finishing: Rc::default() })
    }
}

/// How a link was served to its end.
enum Served {
    /// All that came through it is done.
    Finished,
    /// The control took it back.
    Detached,
}

/// A worker on one link.
struct Serving<'b> {
    worker: Worker,
    wake: Arc<Notify>,
    bells: &'b BellWatch,
    /// Nothing new comes: done when nothing is in flight.
    finishing: Rc<Cell<bool>>,
}

impl Modules for Serving<'_> {
    fn pump(&mut self, now: Nanos) -> anyhow::Result<Progress> {
        Ok(self.worker.pump(now)?)
    }

    fn next_deadline(&self) -> Option<Nanos> {
        None
    }

    async fn woken(&self) {
        tokio::select! {
            () = self.wake.notified() => {}
            () = self.bells.rung() => {}
        }
    }

    fn announce_sleep(&mut self) -> bool {
        self.worker.announce_sleep();
        true
    }

    fn wake(&mut self) {
        self.worker.wake();
    }

    fn awaits_bell(&self) -> bool {
        self.worker.in_flight() > 0
    }

    fn is_done(&self) -> bool {
        self.finishing.get() && self.worker.is_idle()
    }
}
