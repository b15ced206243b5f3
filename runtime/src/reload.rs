//! Config that is read again while the process serves.
//!
//! ```text
//! SIGHUP, file changed, key file changed --> read, check --wrong--> log every line; nothing changes
//!                                              '------right--> LaneSettings --> each lane, between two pumps
//!                                                                   '--> acceptor: caps of connections
//! ```
//!
//! - A file is taken over as a whole or not at all. What it says of things that cannot change in a process that runs is no
//!   mistake: the log names those keys, and they hold after a restart.
//! - What was refused is tried again after a while, in silence unless something else is wrong then: a file that it names (keys,
//!   CAs, a work model) may be there by that time.
//! - The line "config applied" is logged when every lane has what is new: the next request begins with it.
//! - All of it runs on a thread of its own: a file system that hangs keeps neither requests nor connections waiting.
//! - Not here: what a request in flight and a connection keep ([`cellmesh_dpu::Dpu::reconfigure`]).

mod watch;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cellmesh_dpu::egress::hosts::HostPattern;
use cellmesh_dpu::policy::ServicePolicy;
use cellmesh_dpu::policy::jwt::Keys;
use cellmesh_dpu::{ConnectionCaps, DpuConfig, Routes};
use cellmesh_shm::outlier::OutlierRule;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior};

use self::watch::FileWatch;
use crate::admin::metrics::Reloads;
use crate::config::{self, App, Changes, Origin, Overrides, Problems};
use crate::hangups::Hangups;
use crate::mesh;

/// How often the files with keys of tokens are looked at, if there are any. What is compared is what they say, a few KiB: so
/// it does not matter how they are replaced.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// How soon a text that was refused is tried again, and the longest wait: doubled each time.
const AGAIN_FIRST: Duration = Duration::from_secs(2);
const AGAIN_MOST: Duration = Duration::from_secs(60);

/// Settings that a lane has not looked at yet. One after the other is sent.
const ORDERS_MAX: usize = 1;

/// What of a file a lane takes over while it serves.
#[derive(Debug)]
pub struct LaneSettings {
    /// Entry and namespace; the services are those of the start.
    pub routes: Arc<Routes>,
    /// Of the network side.
    pub dpu: DpuConfig,
    /// When workers of a service get no requests for a while, by the service's name.
    pub outliers: BTreeMap<String, OutlierRule>,
    /// Hosts that the cells may call, by the place of their service.
    pub allow: Vec<Vec<HostPattern>>,
}

/// Settings, and whom to tell that they are applied.
type Order = (Arc<LaneSettings>, oneshot::Sender<()>);

/// A lane's end: new settings come here.
#[derive(Debug)]
pub struct LaneReload(mpsc::Receiver<Order>);

impl LaneReload {
    /// Applies what comes until nothing can come any more. Spawn it on the lane.
    pub async fn apply(mut self, apply: impl Fn(&LaneSettings)) {
        while let Some((settings, applied)) = self.0.recv().await {
            apply(&settings);
            // Nobody has to wait for it.
            let _ = applied.send(());
        }
    }
}

/// Where cells are that the config speaks of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cells {
    /// In this process.
    Here,
    /// In workers, which read the file when they start.
    InWorkers,
}

/// Reads config again for one process.
#[derive(Debug)]
pub struct Reload {
    /// As it runs now.
    app: App,
    /// As it was at the start: what cannot change since then still is as it says.
    first: (Origin, DpuConfig),
    cells: Cells,
    lanes: Vec<mpsc::Sender<Order>>,
    caps: ConnectionCaps,
    reloads: Reloads,
    /// The text that was looked at last, if there was one, right or wrong.
    seen: Option<String>,
    /// What the files with keys said then; nothing of one that could not be used.
    seen_keys: Vec<Option<Keys>>,
    /// What was refused last, and is tried again: a file that it names may be there by then.
    refused: Option<Refused>,
}

/// A text that was refused.
#[derive(Debug)]
struct Refused {
    /// Nothing if the file could not be read: then it is read again.
    text: Option<String>,
    /// What was wrong with it, as it was told.
    told: Vec<String>,
    /// When to try it again, and how long to wait after that.
    next: Instant,
    wait: Duration,
}

impl Reload {
    /// For a process that has started with `app`.
    #[must_use]
    pub fn new(app: &App, cells: Cells, caps: ConnectionCaps, reloads: Reloads) -> Self {
        let first = (app.origin.clone(), app.dpu.clone());
        let seen = Some(app.origin.text.clone());
        let mut reload = Self {
            app: app.clone(),
            first,
            cells,
            lanes: Vec::new(),
            caps,
            reloads,
            seen,
            seen_keys: Vec::new(),
            refused: None,
        };
        reload.seen_keys = reload.keys_in_use();
        reload
    }

    /// A lane that is to be told.
    pub fn lane(&mut self) -> LaneReload {
        let (sender, receiver) = mpsc::channel(ORDERS_MAX);
        self.lanes.push(sender);
        LaneReload(receiver)
    }

    /// From now on until the end of the process, on a thread of its own.
    ///
    /// - `hangups`: of the process since its start; one that came while it started is heeded now.
    /// # Errors
    /// When the system has no descriptor or no thread left.
    pub fn start(self, hangups: Hangups) -> anyhow::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        std::thread::Builder::new()
            .name("config".into())
            .spawn(move || runtime.block_on(self.run(hangups)))?;
        Ok(())
    }

    async fn run(mut self, mut hangups: Hangups) {
        let path = self.app.origin.path.clone();
        let mut watch = if self.app.runtime.watch { watched(&path) } else { None };
        // It may have changed before it was watched.
        if watch.is_some() {
            self.look().await;
        }
        // One for all turns of the loop: however often the others have something, its time comes.
        let mut looks = tokio::time::interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = hangups.next() => self.read(config::text(&path)).await,
                () = changed(watch.as_mut()) => self.look().await,
                _ = looks.tick(), if self.key_files().next().is_some() => self.look_at_keys().await,
                () = due(self.refused.as_ref()) => self.try_again().await,
            }
        }
    }

    /// Files with keys of tokens, and what is in use of them.
    fn key_files(&self) -> impl Iterator<Item = (&PathBuf, &Keys)> {
        let policies = self.app.dpu.services.values().filter_map(|policy| policy.jwt.as_ref());
        policies.map(|jwt| (&jwt.jwks, &jwt.keys))
    }

    fn keys_in_use(&self) -> Vec<Option<Keys>> {
        self.key_files().map(|(_, keys)| Some(keys.clone())).collect()
    }

    /// Takes over what these files say now if it is something else than at the last look. The rest is as it was: what has
    /// become of the config file meanwhile has its own time.
    async fn look_at_keys(&mut self) {
        let found: Vec<Option<Keys>> = self.key_files().map(|(path, _)| Keys::load(path).ok()).collect();
        if found == self.seen_keys {
            return;
        }
        self.seen_keys = found;
        let text = self.app.origin.text.clone();
        if let Err(problems) = self.apply(Ok(text.clone())).await {
            self.refuse(&problems);
            self.refused.get_or_insert_with(|| Refused::new(Some(text), &problems));
        } else if self.refused.as_ref().is_some_and(|refused| refused.text.as_ref() == Some(&text)) {
            self.refused = None;
        } else if let Some(refused) = &mut self.refused {
            // These keys may be what it was refused for; until that is known it still is.
            self.reloads.still_refused();
            refused.next = Instant::now();
        }
    }

    /// Reads the file if it says something else than at the last look.
    async fn look(&mut self) {
        let text = config::text(&self.app.origin.path);
        if text.as_ref().ok() != self.seen.as_ref() {
            self.read(text).await;
        }
    }

    async fn read(&mut self, text: Result<String, Problems>) {
        let text_read = text.as_ref().ok().cloned();
        self.seen.clone_from(&text_read);
        self.refused = None;
        if let Err(problems) = self.apply(text).await {
            self.refuse(&problems);
            self.refused = Some(Refused::new(text_read, &problems));
        }
    }

    /// What was refused may be right now: files that it names are not watched. What is still wrong with it was told.
    async fn try_again(&mut self) {
        let Some(mut refused) = self.refused.take() else { return };
        let text = refused.text.clone().map_or_else(|| config::text(&self.app.origin.path), Ok);
        if let Err(problems) = self.apply(text).await {
            if refused.is_news(&problems) {
                self.refuse(&problems);
            }
            refused.wait_longer();
            self.refused = Some(refused);
        }
    }

    async fn apply(&mut self, text: Result<String, Problems>) -> Result<(), Problems> {
        let Origin { path, overrides, .. } = &self.app.origin;
        let overrides = Overrides { runs: true, ..overrides.clone() };
        let new = config::parse(path, text?, &overrides)?;
        self.take_over(new).await;
        Ok(())
    }

    fn refuse(&self, problems: &Problems) {
        for problem in &problems.0 {
            tracing::error!("{problem}");
        }
        tracing::error!(problems = problems.0.len(), "config refused, the old one stays");
        self.reloads.refused();
    }

    async fn take_over(&mut self, new: App) {
        let mut changed = config::changes(&self.app.origin, &new.origin).live;
        changed.extend(self.other_keys(&new));
        let restart = self.restart(&new);
        self.merge(new);
        match mesh::routes(&self.app) {
            Ok(routes) => self.tell(routes).await,
            // Names and number of the services are those of the start.
            Err(error) => tracing::error!(%error, "config cannot be routed by"),
        }
        tracing::info!(changed = list(&changed), "config applied");
        if !restart.is_empty() {
            tracing::warn!(keys = list(&restart), "these hold after a restart");
        }
        self.reloads.applied();
    }

    /// Keys of the file that do not hold in this process, or not in full.
    fn restart(&self, new: &App) -> Vec<String> {
        let (origin, dpu) = &self.first;
        let Changes { live, mut restart } = config::changes(origin, &new.origin);
        let (_, cut) = new.dpu.clone().within(dpu);
        restart.extend(cut.into_iter().map(str::to_owned));
        if self.place(new, new.entry).is_none() {
            restart.push("entry".into());
        }
        if self.cells == Cells::InWorkers {
            let of_workers = |key: &&String| key.starts_with("cell[") || *key == "dpu.retry_worker_lost";
            restart.extend(live.iter().filter(of_workers).map(|key| format!("{key} (workers)")));
        }
        restart
    }

    /// Where the service at this place of another version of the file is in the process.
    fn place(&self, new: &App, index: usize) -> Option<usize> {
        let name = &new.services[index].setup.service;
        self.app.services.iter().position(|spec| spec.setup.service == *name)
    }

    /// Takes over what can change.
    fn merge(&mut self, new: App) {
        for index in 0..new.services.len() {
            if let Some(place) = self.place(&new, index) {
                let allow = &mut self.app.services[place].setup.egress_allow;
                allow.clone_from(&new.services[index].setup.egress_allow);
            }
        }
        self.app.entry = self.place(&new, new.entry).unwrap_or(self.app.entry);
        self.app.namespace = new.namespace;
        self.app.node.outliers = new.node.outliers;
        self.app.dpu = new.dpu.within(&self.first.1).0;
        self.app.dpu.egress.allow = config::ServiceSpec::allowed_to_any(&self.app.services);
        self.app.origin = new.origin;
        self.seen_keys = self.keys_in_use();
    }

    /// Where the config says the same as before, but a file that it names does not: keys of tokens, CAs.
    fn other_keys(&self, new: &App) -> Vec<String> {
        let is_other = |name: &String, new: &ServicePolicy| {
            let (old, new) = (self.app.dpu.services.get(name)?.jwt.as_ref()?, new.jwt.as_ref()?);
            (old.jwks == new.jwks && old.keys != new.keys).then(|| format!("service.{name}.jwt.jwks (keys)"))
        };
        let (old_egress, egress) = (&self.app.dpu.egress, &new.dpu.egress);
        let other_cas = old_egress.ca == egress.ca && old_egress.cas != egress.cas;
        let cas = other_cas.then(|| "dpu.egress.ca (certificates)".to_owned());
        new.dpu.services.iter().filter_map(|(name, policy)| is_other(name, policy)).chain(cas).collect()
    }

    /// Returns when all lanes have it.
    async fn tell(&self, routes: Routes) {
        self.caps.set(&self.app.dpu);
        let allow = self.app.services.iter().map(|spec| spec.setup.egress_allow.clone()).collect();
        let (dpu, outliers) = (self.app.dpu.clone(), self.app.node.outliers.clone());
        let settings = Arc::new(LaneSettings { routes: Arc::new(routes), dpu, outliers, allow });
        for lane in &self.lanes {
            let (applied, wait) = oneshot::channel();
            // A lane that has ended ends the process.
            if lane.send((Arc::clone(&settings), applied)).await.is_ok() {
                let _ = wait.await;
            }
        }
    }
}

impl Refused {
    fn new(text: Option<String>, problems: &Problems) -> Self {
        let told = lines(problems);
        Self { text, told, next: Instant::now() + AGAIN_FIRST, wait: AGAIN_FIRST }
    }

    /// Whether something else is wrong than was told.
    fn is_news(&mut self, problems: &Problems) -> bool {
        let told = std::mem::replace(&mut self.told, lines(problems));
        told != self.told
    }

    fn wait_longer(&mut self) {
        self.wait = (self.wait * 2).min(AGAIN_MOST);
        self.next = Instant::now() + self.wait;
    }
}

fn lines(problems: &Problems) -> Vec<String> {
    problems.0.iter().map(ToString::to_string).collect()
}

/// Never if nothing was refused.
async fn due(refused: Option<&Refused>) {
    match refused {
        Some(refused) => tokio::time::sleep_until(refused.next).await,
        None => std::future::pending().await,
    }
}

/// `None` if it cannot be: then only a signal tells.
fn watched(path: &Path) -> Option<FileWatch> {
    FileWatch::of(path)
        .inspect_err(|error| tracing::warn!(%error, "the config file is not watched; SIGHUP reads it"))
        .ok()
}

async fn changed(watch: Option<&mut FileWatch>) {
    match watch {
        Some(watch) => watch.changed().await,
        None => std::future::pending().await,
    }
}

fn list(keys: &[String]) -> String {
    if keys.is_empty() { "nothing".into() } else { keys.join(", ") }
}

#[cfg(test)]
mod tests;
