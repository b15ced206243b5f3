//! `cellmesh dpu`: the network side as a daemon of its own.
//!
//! - Connections of clients outlive the DPA: while there is none, requests are told 503.

use std::cell::Cell;
use std::os::fd::AsFd;
use std::rc::Rc;
use std::sync::Arc;

use anyhow::Context as _;
use cellmesh_dpa::reactor::BellWatch;
use cellmesh_dpu::Dpu;
use cellmesh_shm::attach::{Hello, Role};
use cellmesh_shm::clock::Nanos;
use cellmesh_shm::link::{Link, LinkFds};
use cellmesh_shm::port::Progress;
use tokio::sync::mpsc;

use super::{Addresses, Admin, Entrance, announce};
use crate::admin::Health;
use crate::attachment::{AttachmentNumber, DpaSocket, LinkEnds, LinkOrder, Wait, process_name};
use crate::config::App;
use crate::hangups::Hangups;
use crate::lane::{self, Modules};
use crate::lanes::{LaneMain, Lanes, told_to_drain};
use crate::mesh;
use crate::reload::{Cells, Reload};

/// Orders that a lane has not looked at yet.
const ORDERS_MAX: usize = 8;

/// What is missing while there is no DPA.
const DPA: &str = "dpa";

/// Serves `app` through the DPA that it attaches to, until SIGINT or SIGTERM, then drains.
///
/// # Errors
/// When the address cannot be bound, or a lane fails.
pub fn run(app: &App, hangups: Hangups) -> anyhow::Result<()> {
    let count = super::attached_lanes(&app.runtime)?;
    let routes = Arc::new(mesh::routes(app)?);
    let entrance = Entrance::bind(app)?;
    let addresses = entrance.addresses;
    let mut admin = Admin::bind(app.own_admin, entrance.about("dpu", app))?;
    let (acceptor, intakes) = entrance.acceptor(count, app);
    let mut reload = Reload::new(app, Cells::InWorkers, acceptor.caps(), admin.reloads());
    let (ends, wait) = (LinkEnds::new(count), Wait::new(app.node.reattach_delay));
    let ingress = admin.of_clients();
    let mut orders_to = Vec::new();
    let mut mains: Vec<LaneMain> = Vec::new();
    for (lane, intake) in intakes.into_iter().enumerate() {
        let (sender, links) = mpsc::channel(ORDERS_MAX);
        orders_to.push(sender);
        let (routes, config, spin) = (Arc::clone(&routes), app.dpu.clone(), app.runtime.spin);
        let (ends, asked, reloaded) = (ends.clone(), admin.lane(), reload.lane());
        let ingress = ingress.clone();
        mains.push(Box::new(move |orders| {
            Box::pin(async move {
                let dpu = Dpu::new(routes, config);
                ingress.tell(&dpu);
                let bells = Rc::new(BellWatch::new()?);
                let held = Rc::new(HeldLink { lane, ends, attachment: Cell::new(0) });
                let mut modules =
                    DpuLane { dpu: dpu.clone(), bells: Rc::clone(&bells), held: Rc::clone(&held) };
                tokio::task::spawn_local(intake.serve(dpu.clone()));
                tokio::task::spawn_local(asked.answer_of(dpu.clone()));
                tokio::task::spawn_local(follow(dpu.clone(), bells, links, held));
                let reconfigured = dpu.clone();
                tokio::task::spawn_local(reloaded.apply(move |settings| {
                    reconfigured.reconfigure(Arc::clone(&settings.routes), settings.dpu.clone());
                }));
                lane::run(&mut modules, spin, orders.until_drained(dpu)).await
            })
        }));
    }
    // Its way to the collector ends with the lanes.
    drop(ingress);
    let mut lanes = Lanes::start(mains)?;
    reload.start(hangups)?;
    announce(app, addresses);
    let main = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    main.block_on(async {
        let (health, exporting) = admin.serve();
        let accepting = tokio::spawn(acceptor.run());
        let attaching = stay_attached(socket(app, orders_to.len()), orders_to, ends, wait, health.clone());
        let attaching = tokio::spawn(attaching);
        let retire = lanes.retire();
        let ended = tokio::select! {
            told = told_to_drain(app.runtime.drain_delay, &health, retire) => {
                told?;
                lanes.drain(app.runtime.drain_timeout).await;
                Ok(())
            }
            error = lanes.failed() => Err(error),
        };
        attaching.abort();
        accepting.abort();
        exporting.end().await;
        ended
    })
}

fn announce(app: &App, addresses: Addresses) {
    let mut lines = announce::title(app, addresses);
    lines.push(format!("attaches to the DPA at {}", app.node.socket.display()));
    lines.extend(announce::no_admin(app));
    lines.extend(announce::tries(app, addresses));
    lines.push("serving; Ctrl-C drains and ends".into());
    announce::say(&lines);
}

/// The DPA's, and what it is told there.
fn socket(app: &App, lanes: usize) -> DpaSocket {
    let hello = Hello {
        name: process_name("dpu"),
        role: Role::Sidecar,
        services: Vec::new(),
        lanes: u16::try_from(lanes).unwrap_or(u16::MAX),
        profile: None,
    };
    DpaSocket { path: app.node.socket.clone(), hello }
}

/// Attaches, tells the lanes, and does it again whenever the DPA has gone; after a wait if the link of one of them is no good.
async fn stay_attached(
    socket: DpaSocket,
    lanes: Vec<mpsc::Sender<LinkOrder>>,
    ends: LinkEnds,
    mut wait: Wait,
    health: Health,
) {
    health.missing(DPA, "not attached to one");
    for number in 1.. {
        let mut attached = socket.attach().await;
        wait.attached(Nanos::now());
        health.found(DPA);
        for (lane, link) in lanes.iter().zip(attached.links.drain(..)) {
            // A lane that has ended ends the process.
            let _ = lane.send(LinkOrder::Attach(Box::new(link), Arc::clone(&attached.node), number)).await;
        }
        let pause = tokio::select! {
            why = attached.ended() => {
                tracing::warn!("detached from the DPA: {why}");
                None
            }
            why = ends.broken(number) => {
                let pause = wait.after_loss(Nanos::now());
                tracing::error!(?pause, "detaching from the DPA, and attaching again after a pause: {why}");
                Some(pause)
            }
        };
        health.missing(DPA, "not attached to one");
        drop(attached);
        for lane in &lanes {
            let _ = lane.send(LinkOrder::Detach).await;
        }
        if let Some(pause) = pause {
            tokio::time::sleep(pause).await;
        }
    }
}

/// What a lane says of its link.
struct HeldLink {
    lane: usize,
    ends: LinkEnds,
    /// Of the latest link.
    attachment: Cell<AttachmentNumber>,
}

impl HeldLink {
    fn broke(&self, why: String) {
        self.ends.broke(self.lane, self.attachment.get(), why);
    }
}

/// Takes a lane's DPU from link to link.
async fn follow(dpu: Dpu, bells: Rc<BellWatch>, mut orders: mpsc::Receiver<LinkOrder>, held: Rc<HeldLink>) {
    let attached = Cell::new(None);
    while let Some(order) = orders.recv().await {
        if let Some(endpoint) = attached.take() {
            bells.remove(endpoint);
        }
        match order {
            LinkOrder::Attach(fds, node, number) => {
                held.attachment.set(number);
                match open(*fds, &bells) {
                    Ok(link) => {
                        attached.set(Some(link.spec.endpoint));
                        dpu.attach(link, node.calls_max, node.names.iter().map(String::as_str));
                    }
                    Err(error) => held.broke(format!("{error:#}")),
                }
            }
            LinkOrder::Detach | LinkOrder::Finish => dpu.detach(),
        }
    }
}

/// A link, with its bell among those that are waited for.
fn open(fds: LinkFds, bells: &BellWatch) -> anyhow::Result<Link> {
    let link = Link::open(fds).context("the DPA gave a link that cannot be used")?;
    bells.add(link.spec.endpoint, link.sleep.as_fd()).context("cannot wait for the DPA's bell")?;
    Ok(link)
}

struct DpuLane {
    dpu: Dpu,
    bells: Rc<BellWatch>,
    held: Rc<HeldLink>,
}

impl Modules for DpuLane {
    fn pump(&mut self, now: Nanos) -> anyhow::Result<Progress> {
        let was_attached = self.dpu.is_attached();
        let progress = self.dpu.pump(now);
        if was_attached && !self.dpu.is_attached() {
            self.held.broke("the DPA broke a rule".into());
        }
        Ok(progress)
    }

    fn next_deadline(&self) -> Option<Nanos> {
        self.dpu.next_deadline()
    }

    async fn woken(&self) {
        tokio::select! {
            () = self.dpu.work().notified() => {}
            () = self.bells.rung() => {}
        }
    }

    fn announce_sleep(&mut self) -> bool {
        self.dpu.announce_sleep();
        true
    }

    fn wake(&mut self) {
        self.dpu.wake();
    }

    fn awaits_bell(&self) -> bool {
        self.dpu.awaits_answers()
    }
}
