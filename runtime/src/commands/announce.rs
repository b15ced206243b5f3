//! What a command says at its start: what is served where, and what to type to see it.

use std::io::Write;

use super::Addresses;
use crate::config::App;
use crate::host::ComponentSource;

/// Says it. Nobody has to listen: a closed standard output is no reason not to serve.
pub(super) fn say(lines: &[String]) {
    let _ = std::io::stdout().write_all((lines.join("\n") + "\n").as_bytes());
}

/// Name, number of services, addresses.
pub(super) fn title(app: &App, addresses: Addresses) -> Vec<String> {
    let mut lines =
        vec![format!("{}: {} services on http://{}", app.name, app.services.len(), addresses.cleartext)];
    let clients = app.dpu.tls.as_ref().and_then(|tls| tls.clients.as_ref());
    let certificates = match clients.map(|clients| clients.required) {
        None => "",
        Some(false) => ", certificates of clients are checked",
        Some(true) => ", for clients with a certificate",
    };
    lines.extend(addresses.tls.map(|address| format!("with TLS on https://{address}{certificates}")));
    lines
}

/// That the file's admin port is not this process's: several processes are started with one file.
pub(super) fn no_admin(app: &App) -> Option<String> {
    let is_left_out = app.admin.is_some() && app.own_admin.is_none();
    is_left_out.then(|| {
        "note: no admin port: [admin] listen is that of run and node; --admin gives this process one".into()
    })
}

/// A line for each service, with its cell.
pub(super) fn cells(app: &App) -> impl Iterator<Item = String> {
    app.services
        .iter()
        .map(|service| format!("  {:<16} {}", service.setup.service, from_here(&service.setup.component)))
}

/// What to type to see it work.
pub(super) fn tries(app: &App, addresses: Addresses) -> Vec<String> {
    let address = addresses.cleartext;
    let entry = &app.services[app.entry];
    let mut lines = vec![format!("try: curl http://{address}{}", entry.path)];
    if let Some(other) = app.services.iter().find(|service| service.setup.service != entry.setup.service) {
        let name = &other.setup.service;
        lines.push(format!("     curl http://{address}{} -H 'x-cellmesh-service: {name}'", other.path));
    }
    lines
}

/// A component, its file as short as it can be said from the current folder.
fn from_here(component: &ComponentSource) -> String {
    let here = std::env::current_dir().ok();
    let below = component.file().zip(here).and_then(|(path, here)| path.strip_prefix(here).ok());
    below.map_or_else(|| component.to_string(), |path| path.display().to_string())
}
