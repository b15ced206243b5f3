//! `cellmesh node`: DPA and DPU of a node on one lane, so that between them nothing is ever woken.

use std::rc::Rc;
use std::sync::Arc;

use super::dpa::DpaParts;
use super::{Admin, Entrance, announce};
use crate::admin::metrics::Counts;
use crate::cohost::{Node, NodeParts, Readiness};
use crate::config::App;
use crate::hangups::Hangups;
use crate::lane;
use crate::lanes::{LaneMain, Lanes};
use crate::mesh;
use crate::reload::{Cells, Reload};

/// Serves `app` with the workers that attach, until SIGINT or SIGTERM, then drains.
///
/// # Errors
/// When an address or a socket cannot be bound, or the lane fails.
pub fn run(app: &App, hangups: Hangups) -> anyhow::Result<()> {
    let routes = Arc::new(mesh::routes(app)?);
    let entrance = Entrance::bind(app)?;
    let addresses = entrance.addresses;
    let dpa = DpaParts::bind(app)?;
    let about = entrance.about("node", app);
    let mut admin = Admin::bind(app.own_admin.or(app.admin), about)?;
    let (acceptor, mut intakes) = entrance.acceptor(1, app);
    let (intake, dpu, spin) = (intakes.remove(0), app.dpu.clone(), app.runtime.spin);
    let reattach_delay = app.node.reattach_delay;
    let readiness = Readiness::new(app, admin.health());
    let mut reload = Reload::new(app, Cells::InWorkers, acceptor.caps(), admin.reloads());
    let (asked, reloaded, ingress) = (admin.lane(), reload.lane(), admin.of_clients());
    let main: LaneMain = Box::new(move |orders| {
        Box::pin(async move {
            let calls_max = dpa.calls_max();
            let host = dpa.host()?;
            let readiness = Rc::new(readiness);
            let mut modules = Node::new(NodeParts {
                routes,
                dpu,
                dpa: host.clone(),
                calls_max,
                reattach_delay,
                readiness: Rc::clone(&readiness),
                ingress,
            })?;
            let dpu = modules.dpu().clone();
            tokio::task::spawn_local(intake.serve(dpu.clone()));
            let (reconfigured, served_by) = (dpu.clone(), host.clone());
            tokio::task::spawn_local(reloaded.apply(move |settings| {
                reconfigured.reconfigure(Arc::clone(&settings.routes), settings.dpu.clone());
                readiness.reconfigure(&settings.dpu.egress, &served_by);
                served_by.set_outlier_rules(&settings.outliers);
            }));
            let counted = dpu.clone();
            let counts = move || Counts {
                workers: host.workers(),
                dpa: Some(host.stats()),
                ..Counts::of_dpu(&counted)
            };
            tokio::task::spawn_local(asked.answer(counts, None));
            lane::run(&mut modules, spin, orders.until_drained(dpu)).await
        })
    });
    let lanes = Lanes::start(vec![main])?;
    reload.start(hangups)?;
    let mut lines = announce::title(app, addresses);
    lines.push(format!("workers attach at {}", app.node.socket.display()));
    lines.extend(app.notes.iter().map(|note| format!("note: {note}")));
    lines.extend(announce::tries(app, addresses));
    lines.push("serving; Ctrl-C drains and ends".into());
    announce::say(&lines);
    super::serve(acceptor, lanes, &app.runtime, admin)
}
