//! What each command of the program does, from checked config to its end.
//!
//! ```text
//! run      DPU, DPA and worker on each lane                  one process
//! node     DPU and DPA on one lane                           the daemon of a node
//! dpa      DPA on one lane                                   the same as two
//! dpu      DPU on each lane
//! worker   cells on each lane                                any number of processes
//! ```
//!
//! - The order of the code is the order of a start: what can fail without leaving anything behind, what others see
//!   (listeners, sockets), lanes; then signals, drain, end.

mod announce;
pub mod dpa;
pub mod dpu;
pub mod node;
pub mod run;
pub mod worker;

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use anyhow::Context;
use cellmesh_dpu::{Acceptor, LaneIntake, Tls};
use cellmesh_shm::attach::LANES_MAX;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::admin::metrics::Reloads;
use crate::admin::{self, About, Asked, Health};
use crate::config::{App, RuntimeSettings};
use crate::lanes::Lanes;
use crate::pool::Pool;
use crate::trace::{Exporter, IngressParts, Outbox, RecorderParts};

/// Lanes of a process that attaches: as configured, one if nothing is said.
///
/// # Errors
/// More than a DPA gives links to.
fn attached_lanes(settings: &RuntimeSettings) -> anyhow::Result<usize> {
    let lanes = settings.lanes_or(1);
    anyhow::ensure!(
        lanes <= usize::from(LANES_MAX),
        "{lanes} lanes (runtime.lanes, --lanes or CELLMESH_LANES): a process that attaches has at most {LANES_MAX}"
    );
    Ok(lanes)
}

/// Serves until a signal, then drains. Connections are accepted while the lanes drain: their requests are told 503.
fn serve(acceptor: Acceptor, lanes: Lanes, settings: &RuntimeSettings, admin: Admin) -> anyhow::Result<()> {
    let main = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    main.block_on(async {
        let (health, exporting) = admin.serve();
        let accepting = tokio::spawn(acceptor.run());
        let served = lanes.serve(settings, &health).await;
        accepting.abort();
        exporting.end().await;
        served
    })
}

/// Where clients come in: bound, and not accepted from yet.
struct Entrance {
    cleartext: TcpListener,
    tls: Option<(TcpListener, Tls)>,
    addresses: Addresses,
}

/// Where clients connect, as the system says it: with port 0 it chooses.
#[derive(Debug, Clone, Copy)]
struct Addresses {
    cleartext: SocketAddr,
    tls: Option<SocketAddr>,
}

impl Entrance {
    /// # Errors
    /// When an address cannot be bound, with all that cannot; when the files of TLS have become bad since config was read.
    fn bind(app: &App) -> anyhow::Result<Self> {
        let cleartext = bind(app.listen);
        let Some(config) = &app.dpu.tls else {
            let cleartext = cleartext?;
            let addresses = Addresses { cleartext: cleartext.local_addr()?, tls: None };
            return Ok(Self { cleartext, tls: None, addresses });
        };
        let encrypted = bind(config.listen).context("dpu.tls.listen");
        let (cleartext, encrypted) = match (cleartext, encrypted) {
            (Err(one), Err(other)) => anyhow::bail!("{one:#}; {other:#}"),
            (cleartext, encrypted) => (cleartext?, encrypted?),
        };
        let addresses = Addresses { cleartext: cleartext.local_addr()?, tls: Some(encrypted.local_addr()?) };
        let tls = Tls::load(config)?;
        if let Some(problem) = tls.expired() {
            tracing::warn!("clients will refuse this server: {problem}");
        }
        Ok(Self { cleartext, tls: Some((encrypted, tls)), addresses })
    }

    /// What is told of a process that takes clients in.
    fn about(&self, command: &'static str, app: &App) -> About {
        let tls = self.tls.as_ref().map(|(_, tls)| tls.clone());
        About { tls, ..About::new(command, app) }
    }

    fn acceptor(self, lanes: usize, app: &App) -> (Acceptor, Vec<LaneIntake>) {
        let (acceptor, intakes) = Acceptor::new(self.cleartext, lanes, &app.dpu);
        match self.tls {
            Some((listener, tls)) => (acceptor.with_tls(listener, tls), intakes),
            None => (acceptor, intakes),
        }
    }
}

/// The admin port of a process, if it has one.
struct Admin {
    listener: Option<TcpListener>,
    about: About,
    health: Health,
    lanes: Vec<admin::Lane>,
    reloads: Option<Reloads>,
    exporter: Option<Exporter>,
}

/// Traces on their way to a collector.
struct Exporting(Option<JoinHandle<()>>);

/// How long a process that ends waits for a collector.
const EXPORT_PATIENCE: Duration = Duration::from_secs(2);

impl Exporting {
    /// Waits a little until what the lanes kept is sent. They have ended.
    async fn end(self) {
        let Some(exporting) = self.0 else { return };
        if timeout(EXPORT_PATIENCE, exporting).await.is_err() {
            tracing::warn!("the last traces are lost: the collector takes too long");
        }
    }
}

impl Admin {
    /// # Errors
    /// When the address cannot be bound.
    fn bind(address: Option<SocketAddr>, about: About) -> anyhow::Result<Self> {
        let listener = address.map(bind).transpose()?;
        Ok(Self {
            listener,
            about,
            health: Health::default(),
            lanes: Vec::new(),
            reloads: None,
            exporter: None,
        })
    }

    /// Of a process that hosts cells: where their long calls run, and what each lane takes note of requests with.
    fn of_cells(&mut self, pool: &Pool, lanes: usize) -> Vec<RecorderParts> {
        self.about.pool = Some(pool.clone());
        let outbox = self.outbox();
        let lanes = (0..u16::MAX).take(lanes);
        if self.listener.is_none() {
            // Nobody can ask for them.
            self.about.trace.kept_max = 0;
        }
        let settings = &self.about.trace;
        let left_out = &self.about.left_out;
        let parts = |lane| RecorderParts {
            lane,
            settings: settings.clone(),
            outbox: outbox.clone(),
            left_out: left_out.clone(),
        };
        lanes.map(parts).collect()
    }

    /// Of a process that takes clients in and hosts no cells: what the network side of each lane tells of their requests.
    fn of_clients(&mut self) -> IngressParts {
        let outbox = self.outbox();
        IngressParts { outbox, settings: self.about.trace.clone(), left_out: self.about.left_out.clone() }
    }

    /// The way to the collector, if there is one.
    fn outbox(&mut self) -> Option<Outbox> {
        let (outbox, exporter) = self.about.trace.otlp.as_ref().map(Exporter::new).unzip();
        self.about.exported = exporter.as_ref().map(Exporter::counts);
        self.exporter = exporter;
        outbox
    }

    /// For whoever knows what is missing.
    fn health(&self) -> Health {
        self.health.clone()
    }

    /// A lane that can be asked.
    fn lane(&mut self) -> Asked {
        let (lane, asked) = admin::lane();
        self.lanes.push(lane);
        asked
    }

    /// For whoever reads config again.
    fn reloads(&mut self) -> Reloads {
        self.reloads.get_or_insert_default().clone()
    }

    /// Answers and exports from now on, as long as the runtime that this is called in runs.
    fn serve(self) -> (Health, Exporting) {
        if let Some(listener) = self.listener {
            let health = self.health.clone();
            tokio::spawn(async move {
                let served = admin::serve(listener, self.about, health, self.lanes, self.reloads);
                if let Err(error) = served.await {
                    tracing::error!(%error, "the admin port cannot be served");
                }
            });
        }
        let exporting = self.exporter.map(|exporter| {
            tokio::spawn(async move {
                if let Err(error) = exporter.run().await {
                    tracing::error!(error = format!("{error:#}"), "traces cannot be sent");
                }
            })
        });
        (self.health, Exporting(exporting))
    }
}

/// Connections that may wait to be accepted; the system's `net.core.somaxconn` may be less. The standard library asks for 128: of a
/// burst beyond that each client waits a second or more until it tries again.
const BACKLOG: i32 = 4096;

fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind(address).with_context(|| format!("cannot listen on {address}"))?;
    rustix::net::listen(&listener, BACKLOG).with_context(|| format!("cannot listen on {address}"))?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;
    use std::time::Duration;

    use super::*;

    /// Longer than it takes; a client that found no room would still be trying.
    const HANG: Duration = Duration::from_secs(20);

    /// Clients of a burst need not try again, also while nobody accepts them.
    #[test]
    fn burst_finds_room() {
        let listener = bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a free port");
        let address = listener.local_addr().expect("bound");
        let burst: Result<Vec<_>, _> = (0..300).map(|_| TcpStream::connect_timeout(&address, HANG)).collect();
        assert_eq!(burst.expect("all are taken").len(), 300);
    }
}
