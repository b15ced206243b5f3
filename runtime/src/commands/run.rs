//! `cellmesh run`: an application, co-hosted in this process.

use std::sync::Arc;
use std::time::Duration;

use super::{Addresses, Admin, Entrance, announce};
use crate::admin::metrics::Counts;
use crate::cohost::{Cohosted, LaneParts};
use crate::config::App;
use crate::hangups::Hangups;
use crate::lane;
use crate::lanes::{LaneMain, Lanes};
use crate::mesh::{self, Mesh};
use crate::reload::{Cells, Reload};

/// Serves `app` until SIGINT or SIGTERM, then drains.
///
/// # Errors
/// When a cell does not load, the address cannot be bound, or a lane fails.
pub fn run(app: &App, hangups: Hangups) -> anyhow::Result<()> {
    let lanes = app.runtime.lanes_or_cores();
    let mesh = Mesh::load(&app.services.iter().collect::<Vec<_>>(), &app.runtime, lanes)?;
    let routes = Arc::new(mesh::routes(app)?);
    let entrance = Entrance::bind(app)?;
    let addresses = entrance.addresses;
    let about = entrance.about("run", app);
    let mut admin = Admin::bind(app.own_admin.or(app.admin), about)?;
    let recorders = admin.of_cells(&mesh.pool, lanes);
    let (acceptor, intakes) = entrance.acceptor(lanes, app);
    let mut reload = Reload::new(app, Cells::Here, acceptor.caps(), admin.reloads());
    let mains = intakes.into_iter().zip(mesh.lanes).zip(recorders).map(|((intake, services), recorder)| {
        let parts = LaneParts {
            routes: Arc::clone(&routes),
            dpu: app.dpu.clone(),
            services,
            pool: mesh.pool.clone(),
            idle_instances_max: mesh.idle_instances_max,
            recorder,
        };
        let (asked, reloaded) = (admin.lane(), reload.lane());
        let main: LaneMain = Box::new(move |orders| {
            Box::pin(async move {
                let mut modules = Cohosted::new(parts)?;
                let (dpu, callees) = (modules.dpu().clone(), modules.worker().callees());
                tokio::task::spawn_local(intake.serve(dpu.clone()));
                let (counted, meters) = (dpu.clone(), modules.worker().meters());
                let (recorder, dpa) = (modules.worker().recorder(), modules.dpa_stats());
                let counts = move || {
                    let Counts { cells, written, .. } = Counts::of_worker(&meters);
                    Counts { cells, written, dpa: Some(dpa()), ..Counts::of_dpu(&counted) }
                };
                tokio::task::spawn_local(asked.answer(counts, Some(recorder)));
                let reconfigured = dpu.clone();
                tokio::task::spawn_local(reloaded.apply(move |settings| {
                    reconfigured.reconfigure(Arc::clone(&settings.routes), settings.dpu.clone());
                    callees.set(Arc::clone(&settings.routes), settings.allow.clone());
                }));
                // Nobody rings for it but the network, which a spinning lane would not hear sooner.
                lane::run(&mut modules, Duration::ZERO, orders.until_drained(dpu)).await
            })
        });
        main
    });
    let mains = mains.collect();
    let lanes = Lanes::start(mains)?;
    reload.start(hangups)?;
    announce(app, addresses);
    super::serve(acceptor, lanes, &app.runtime, admin)
}

fn announce(app: &App, addresses: Addresses) {
    let mut lines = announce::title(app, addresses);
    lines.extend(announce::cells(app));
    lines.extend(app.notes.iter().map(|note| format!("note: {note}")));
    lines.extend(announce::tries(app, addresses));
    lines.push("serving; Ctrl-C drains and ends".into());
    announce::say(&lines);
}
