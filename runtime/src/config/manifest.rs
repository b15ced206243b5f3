//! `app.toml`: the services of an application, the cells that serve them, and settings.
//!
//! ```toml
//! name = "shop"
//! entry = "front"                  # gets the requests that name no service; default: the first one
//! listen = "127.0.0.1:5005"
//!
//! [[cell]]
//! component = "front.wasm"         # relative to this file, or oci://HOST/REPOSITORY@sha256:DIGITS
//! services = ["front"]
//! config = { currency = "EUR" }    # what the cell may ask for
//! ```
//!
//! In place of cells it may name a work model, whose services they are then: `workmodel = "workmodel.json"`.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cellmesh_dpu::egress::hosts::HostPattern;
use cellmesh_dpu::routes::ServiceName;
use toml::de::DeTable;

use super::app::{App, NodeSettings, Origin, RuntimeSettings, ServiceSpec};
use super::deploy::Deploy;
use super::problems::{Problem, Problems};
use super::reader::{Source, Table};
use super::{Overrides, Part, ingress, node, registry, service, tls, trace, workmodel};
use crate::host::{CellLimits, CellSetup, ComponentSource, Grants, Reference, Scratch};

/// The port of the seed system, which its clients know.
pub(super) const LISTEN_DEFAULT: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 5005);

/// Bounds of durations in config: nothing useful lies outside.
pub(super) const SHORTEST: Duration = Duration::from_millis(1);
pub(super) const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// Longest spin: beyond it a sleep and a wake-up are cheaper.
const SPIN_MAX: Duration = Duration::from_millis(1);

/// Instances of one service unless config says otherwise: calls beyond wait for one to come free.
pub(super) const INSTANCES_MAX_DEFAULT: u32 = 64;

/// Largest `instances_max`: each reserves 4 GiB of address space, and there are 128 TiB.
const INSTANCES_MAX_MAX: u64 = 1024;

/// Reads and checks an `app.toml`.
pub(super) fn read(path: &Path, text: &str, overrides: &Overrides) -> Result<App, Problems> {
    let mut source = Source::new(path, text);
    let (root, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        let line = error.span().map(|span| source.line_of(span.start));
        source.note(line, String::new(), error.message().trim(), "write TOML");
    }
    if !source.problems.0.is_empty() {
        return Err(source.problems);
    }
    let mut root = Table::root(root.get_ref());
    let name = root.words(&mut source, "name", "write a name on one line");
    let entry = root.text(&mut source, "entry");
    let listen = root.address(&mut source, "listen").unwrap_or(LISTEN_DEFAULT);
    let folder = path.parent().unwrap_or_else(|| Path::new("."));
    let has_clients = matches!(overrides.part, Part::Whole | Part::Daemon);
    let checks_files = has_clients && !overrides.runs;
    let around =
        tls::Around { folder, listen: overrides.listen.unwrap_or(listen), has_clients, checks_files };
    let mut dpu = ingress::read(&mut source, &mut root, &around);
    let admin = root.table(&mut source, "admin").and_then(|mut table| {
        let listen = table.address(&mut source, "listen");
        table.finish(&mut source);
        listen
    });
    let namespace = root.text(&mut source, "namespace");
    let mut runtime = runtime(&mut source, &mut root);
    let trace = trace::read(&mut source, &mut root);
    let files = match overrides.part {
        Part::Daemon | Part::Dpa => Files::Elsewhere,
        Part::Whole | Part::Worker => Files::Here,
    };
    runtime.registry = registry::read(&mut source, &mut root, folder, files == Files::Here);
    let model = root.words(&mut source, "workmodel", "name a muBench work model, relative to this file");
    let Served { services, entry: first, deploy, notes, model } = match model {
        Some(model) => work_model(&folder.join(model), &root, &mut source, overrides)?,
        None => Served::by(services(&mut source, &mut root, folder, files)),
    };
    dpu.egress.allow = ServiceSpec::allowed_to_any(&services);
    let policy_files = service::Files { folder, are_read: has_clients };
    let mut policies = service::read(&mut source, &mut root, &services, &policy_files);
    policies.hand_to(&mut dpu);
    let entry = entry.map_or(first, |entry| entry_index(&mut source, &root, &entry, &services));
    let node = NodeSettings { outliers: policies.outliers, ..node::read(&mut source, &mut root, &services) };
    root.finish(&mut source);
    source.problems.or(|| App {
        name: name.unwrap_or_else(|| "cellmesh".into()),
        namespace,
        admin,
        own_admin: None,
        services,
        entry,
        listen,
        dpu,
        node,
        runtime,
        trace,
        deploy: over(policies.deploy, deploy),
        notes,
        origin: Origin { model, ..Origin::default() },
    })
}

/// The services, and what else comes with them.
struct Served {
    services: Vec<ServiceSpec>,
    entry: usize,
    deploy: BTreeMap<String, Deploy>,
    notes: Vec<String>,
    /// The text of the work model.
    model: Option<String>,
}

impl Served {
    fn by(services: Vec<ServiceSpec>) -> Self {
        Self { services, entry: 0, deploy: BTreeMap::new(), notes: Vec::new(), model: None }
    }
}

/// What the work model at `path` has. Without it there is nothing to hold the rest of the file against.
fn work_model(
    path: &Path,
    root: &Table<'_, '_>,
    source: &mut Source<'_>,
    overrides: &Overrides,
) -> Result<Served, Problems> {
    if root.has("cell") {
        let line = root.line_of_key(source, "workmodel");
        let right = "name a work model or list cells, not both";
        source.note(line, "workmodel".into(), "there are cells too", right);
    }
    if !path.is_file() {
        let wrong = format!("there is no file {}", path.display());
        let line = root.line_of_key(source, "workmodel");
        source.note(line, "workmodel".into(), wrong, "name a muBench work model, relative to this file");
        return Err(std::mem::take(&mut source.problems));
    }
    match super::text(path).and_then(|text| workmodel::read(path, &text, overrides)) {
        Ok(model) if !root.has("cell") => {
            let App { services, entry, deploy, notes, origin, .. } = model;
            Ok(Served { services, entry, deploy, notes, model: origin.model })
        }
        Ok(_) => Err(std::mem::take(&mut source.problems)),
        Err(problems) => {
            source.problems.0.extend(problems.0);
            Err(std::mem::take(&mut source.problems))
        }
    }
}

/// What the file says, over what its work model says.
fn over(said: BTreeMap<String, Deploy>, mut all: BTreeMap<String, Deploy>) -> BTreeMap<String, Deploy> {
    for (name, deploy) in said {
        let other = all.remove(&name).unwrap_or_default();
        all.insert(name, deploy.or(other));
    }
    all
}

fn runtime(source: &mut Source<'_>, root: &mut Table<'_, '_>) -> RuntimeSettings {
    let mut settings = RuntimeSettings::default();
    let Some(mut table) = root.table(source, "runtime") else { return settings };
    let set = |slot: &mut Duration, value: Option<Duration>| *slot = value.unwrap_or(*slot);
    let count = |slot: &mut usize, value: Option<u64>| *slot = value.map_or(*slot, to_usize);
    settings.lanes = table.number(source, "lanes", 1, 256).map(to_usize);
    count(&mut settings.pool_threads, table.number(source, "pool_threads", 1, 256));
    set(&mut settings.epoch_tick, table.duration(source, "epoch_tick", SHORTEST, Duration::from_millis(100)));
    set(&mut settings.spin, table.duration(source, "spin", Duration::ZERO, SPIN_MAX));
    set(&mut settings.drain_delay, table.duration(source, "drain_delay", Duration::ZERO, LONGEST));
    set(&mut settings.drain_timeout, table.duration(source, "drain_timeout", Duration::ZERO, LONGEST));
    settings.watch = table.flag(source, "watch").unwrap_or(settings.watch);
    if let Some(dir) = table.words(source, "cache_dir", "name a folder") {
        settings.cache_dir = PathBuf::from(dir);
    }
    table.finish(source);
    settings
}

/// Whether the files that cells need must be on this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Files {
    Here,
    Elsewhere,
}

fn services(
    source: &mut Source<'_>,
    root: &mut Table<'_, '_>,
    folder: &Path,
    files: Files,
) -> Vec<ServiceSpec> {
    let mut services: Vec<ServiceSpec> = Vec::new();
    let cells = root.tables(source, "cell");
    if cells.is_empty() {
        source.note(None, "cell".into(), "there is no cell", "add [[cell]] with component and services");
    }
    for mut table in cells {
        let names = service_names(source, &mut table, &services);
        let (setup, instances_max) = cell(source, &mut table, folder, files);
        services.extend(names.into_iter().map(|name| ServiceSpec {
            setup: CellSetup { service: name.into(), ..setup.clone() },
            instances_max,
            path: "/".into(),
        }));
        table.finish(source);
    }
    services
}

fn service_names(source: &mut Source<'_>, table: &mut Table<'_, '_>, taken: &[ServiceSpec]) -> Vec<String> {
    let names = table.text_list(source, "services");
    if names.as_ref().map_or(!table.has("services"), Vec::is_empty) {
        source.note(
            Some(table.line()),
            table.path("services"),
            "is missing",
            "name the services that the cell serves",
        );
    }
    let names = names.unwrap_or_default();
    let line = table.line_of_key(source, "services");
    for (index, name) in names.iter().enumerate() {
        let key = format!("{}[{index}]", table.path("services"));
        let taken = || taken.iter().map(|spec| &*spec.setup.service);
        // Host names do not know upper and lower case.
        let is_this = |other: &str| other.eq_ignore_ascii_case(name);
        if let Err(error) = name.parse::<ServiceName>() {
            source.note(line, key, error.to_string(), "rename the service");
        } else if names[..index].iter().any(|other| is_this(other)) || taken().any(is_this) {
            let right = "name each service once (upper and lower case are one name)";
            source.note(line, key, format!("{name} is served twice"), right);
        }
    }
    names
}

fn cell(source: &mut Source<'_>, table: &mut Table<'_, '_>, folder: &Path, files: Files) -> (CellSetup, u32) {
    let mut limits = CellLimits::default();
    let component = component(source, table, folder, files);
    let config = match table.table(source, "config") {
        Some(mut config) => config.texts(source).into_iter().collect(),
        None => BTreeMap::new(),
    };
    let grants = grants(source, table, folder, files);
    let egress_allow = egress_allow(source, table);
    if let Some(bytes) = table.size(source, "memory_max", 1 << 20, 4 << 30) {
        limits.memory_bytes_max = to_usize(bytes);
    }
    if let Some(timeout) = table.duration(source, "handler_timeout", SHORTEST, LONGEST) {
        limits.handler_timeout = timeout;
    }
    if let Some(timeout) = table.duration(source, "step_timeout", SHORTEST, LONGEST) {
        limits.step_timeout = timeout;
    }
    let fresh_instances = table.choice(source, "instances", &["reuse", "fresh"]) == Some(1);
    let instances_max = table.number(source, "instances_max", 1, INSTANCES_MAX_MAX);
    let instances_max = instances_max.and_then(|n| u32::try_from(n).ok()).unwrap_or(INSTANCES_MAX_DEFAULT);
    let setup = CellSetup {
        service: Arc::from(""),
        component,
        config,
        grants,
        egress_allow,
        limits,
        fresh_instances,
    };
    (setup, instances_max)
}

fn component(
    source: &mut Source<'_>,
    table: &mut Table<'_, '_>,
    folder: &Path,
    files: Files,
) -> ComponentSource {
    let none = ComponentSource::File(PathBuf::new());
    let Some(file) = table.text(source, "component") else {
        if !table.has("component") {
            source.note(Some(table.line()), table.path("component"), "is missing", "name a .wasm file");
        }
        return none;
    };
    if file.starts_with(Reference::SCHEME) {
        let reference = file.parse().map(|reference| ComponentSource::Registry(Box::new(reference)));
        return reference.unwrap_or_else(|error| {
            let line = table.line_of_key(source, "component");
            source.note(line, table.path("component"), error.wrong, error.right);
            none
        });
    }
    let path = folder.join(&file);
    if files == Files::Here && !path.is_file() {
        let there = if path.is_dir() { "there is a folder" } else { "there is no file" };
        let wrong = format!("{there} {}", path.display());
        let line = table.line_of_key(source, "component");
        source.note(line, table.path("component"), wrong, "name a .wasm file, relative to this one");
    }
    ComponentSource::File(path)
}

/// Hosts beyond the services of the application that the cell may call.
fn egress_allow(source: &mut Source<'_>, table: &mut Table<'_, '_>) -> Vec<HostPattern> {
    let Some(mut egress) = table.table(source, "egress") else { return Vec::new() };
    let line = egress.line_of_key(source, "allow");
    let mut allow = Vec::new();
    for (index, text) in egress.text_list(source, "allow").unwrap_or_default().iter().enumerate() {
        match text.parse::<HostPattern>() {
            Ok(pattern) => allow.push(pattern),
            Err(error) => {
                let key = format!("{}[{index}]", egress.path("allow"));
                source.note(
                    line,
                    key,
                    error.to_string(),
                    "name a host as in a URL, such as \"api.example.com:8080\"",
                );
            }
        }
    }
    egress.finish(source);
    allow
}

fn grants(source: &mut Source<'_>, table: &mut Table<'_, '_>, folder: &Path, files: Files) -> Grants {
    let Some(mut grants) = table.table(source, "grants") else { return Grants::default() };
    let scratch = grants
        .text(source, "scratch")
        .map(|dir| if dir == "temporary" { Scratch::Temporary } else { Scratch::Folder(folder.join(dir)) });
    if let Some(Scratch::Folder(dir)) = &scratch
        && files == Files::Here
        && !dir.is_dir()
    {
        let wrong = format!("there is no folder {}", dir.display());
        let line = grants.line_of_key(source, "scratch");
        source.note(line, grants.path("scratch"), wrong, "make it, or write \"temporary\"");
    }
    grants.finish(source);
    Grants { scratch }
}

fn entry_index(
    source: &mut Source<'_>,
    root: &Table<'_, '_>,
    entry: &str,
    services: &[ServiceSpec],
) -> usize {
    let found = services.iter().position(|spec| *spec.setup.service == *entry);
    if found.is_none() {
        let names: Vec<&str> = services.iter().map(|spec| &*spec.setup.service).collect();
        let right = format!("name one of: {}", names.join(", "));
        let line = root.line_of_key(source, "entry");
        source.note(line, root.path("entry"), format!("{entry} is no service"), right);
    }
    found.unwrap_or(0)
}

fn to_usize(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

impl Problem {
    /// A problem at a key of a file without line numbers.
    pub(super) fn at(file: &Path, key: String, wrong: impl Into<String>, right: impl Into<String>) -> Self {
        Self { file: file.to_owned(), line: None, key, wrong: wrong.into(), right: right.into() }
    }
}
