//! `cellmesh dpa`: the DPA as a daemon, and what [`super::node`] shares with it.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::rc::Rc;

use anyhow::Context;
use cellmesh_dpa::{Admission, DpaConfig, DpaHost, DpaStats};
use cellmesh_shm::attach::{AttachListener, SERVICES_MAX};
use cellmesh_shm::clock::Nanos;
use cellmesh_shm::outlier::OutlierRule;
use cellmesh_shm::port::Progress;
use tokio::sync::Notify;

use super::{Admin, announce};
use crate::admin::About;
use crate::admin::metrics::Counts;
use crate::cohost::{Readiness, dpa_config};
use crate::config::{App, NodeSettings};
use crate::hangups::Hangups;
use crate::lane::{self, Modules};
use crate::lanes::{LaneMain, Lanes};

/// Moves frames until SIGINT or SIGTERM.
///
/// # Errors
/// When a socket cannot be bound, or the lane fails.
pub fn run(app: &App, hangups: Hangups) -> anyhow::Result<()> {
    let parts = DpaParts::bind(app)?;
    let mut lines = vec![
        format!("{}: DPA for {} services", app.name, app.services.len()),
        format!("attach at {}", app.node.socket.display()),
    ];
    lines.extend(announce::no_admin(app));
    lines.push("serving; Ctrl-C ends".into());
    announce::say(&lines);
    let spin = app.runtime.spin;
    let mut admin = Admin::bind(app.own_admin, About::new("dpa", app))?;
    let asked = admin.lane();
    let readiness = Readiness::new(app, admin.health());
    let main: LaneMain = Box::new(move |orders| {
        Box::pin(async move {
            let host = parts.host()?;
            let mut modules = DpaLane { host: host.clone(), idle: Rc::default(), readiness };
            let counted = host.clone();
            let counts = move || Counts::of_host(&counted);
            tokio::task::spawn_local(asked.answer(counts, None));
            let idle = Rc::clone(&modules.idle);
            let drain = async move {
                while host.live() > 0 {
                    idle.notified().await;
                }
            };
            let books = modules.host.clone();
            let served = lane::run(&mut modules, spin, orders.until_done(drain)).await;
            log_books(&books.stats());
            served
        })
    });
    let lanes = Lanes::start(vec![main])?;
    let main = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    main.block_on(async {
        let (health, _exporting) = admin.serve();
        hangups.ignore();
        lanes.serve(&app.runtime, &health).await
    })
}

/// What a DPA daemon is made of before its lane runs.
pub(super) struct DpaParts {
    config: DpaConfig,
    services: Vec<String>,
    outliers: BTreeMap<String, OutlierRule>,
    sockets: Vec<(AttachListener, Admission)>,
}

impl DpaParts {
    /// Binds the sockets.
    ///
    /// # Errors
    /// When one cannot be bound, or there are more services than a DPA can name.
    pub(super) fn bind(app: &App) -> anyhow::Result<Self> {
        let services: Vec<String> = app.services.iter().map(|spec| spec.setup.service.to_string()).collect();
        anyhow::ensure!(
            services.len() <= SERVICES_MAX,
            "{} services: a node has at most {SERVICES_MAX}",
            services.len()
        );
        let all = Admission { services: None, sidecars: true };
        let mut sockets = vec![(bind(&app.node.socket)?, all)];
        for socket in &app.node.worker_sockets {
            let services = Some(socket.services.iter().cloned().collect());
            sockets.push((bind(&socket.path)?, Admission { services, sidecars: false }));
        }
        let NodeSettings { stall_timeout, reattach_delay, .. } = app.node;
        let config = DpaConfig { stall_timeout, reattach_delay, ..dpa_config(&app.dpu) };
        Ok(Self { config, services, outliers: app.node.outliers.clone(), sockets })
    }

    /// Calls that each endpoint may have in flight.
    pub(super) fn calls_max(&self) -> u32 {
        self.config.calls_max
    }

    /// The DPA, taking processes in. Call it on the lane.
    ///
    /// # Errors
    /// For want of descriptors.
    pub(super) fn host(self) -> anyhow::Result<DpaHost> {
        let host = DpaHost::new(self.config, self.services)?;
        host.set_outlier_rules(&self.outliers);
        for (listener, admission) in self.sockets {
            tokio::task::spawn_local(host.clone().serve(listener, admission));
        }
        Ok(host)
    }
}

fn bind(path: &Path) -> anyhow::Result<AttachListener> {
    let mut bound = AttachListener::bind(path);
    if let (Err(error), Some(folder)) = (&bound, path.parent())
        && error.kind() == io::ErrorKind::NotFound
    {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("cannot make the folder {}", folder.display()))?;
        bound = AttachListener::bind(path);
    }
    bound.with_context(|| {
        format!("cannot listen on {} (dpa.socket, --socket or CELLMESH_SOCKET names another)", path.display())
    })
}

/// What became of all requests, once more, for whoever adds up.
fn log_books(stats: &DpaStats) {
    tracing::info!(
        received = stats.received,
        answered = stats.answered,
        faulted = stats.faulted_total(),
        abandoned = stats.abandoned,
        live = stats.live,
        closed = stats.closed(),
        balanced = stats.is_balanced(),
        "ended"
    );
}

struct DpaLane {
    host: DpaHost,
    idle: Rc<Notify>,
    readiness: Readiness,
}

impl Modules for DpaLane {
    fn pump(&mut self, now: Nanos) -> anyhow::Result<Progress> {
        let progress = self.host.pump(now);
        if self.host.live() == 0 {
            // Also where nothing moved: a request ends with its endpoints, too, which go between two pumps.
            self.idle.notify_one();
        }
        self.readiness.look(&self.host);
        Ok(progress)
    }

    fn next_deadline(&self) -> Option<Nanos> {
        self.host.next_deadline()
    }

    async fn woken(&self) {
        self.host.woken().await;
    }

    fn announce_sleep(&mut self) -> bool {
        self.host.announce_sleep();
        true
    }

    fn wake(&mut self) {
        self.host.wake();
    }

    fn awaits_bell(&self) -> bool {
        self.host.live() > 0
    }
}
