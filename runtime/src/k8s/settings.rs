//! The application's file as pods read it: the same text, comments and all, with the addresses, folders and bounds that the
//! manifests count on. A work model stays as it is, beside an app.toml that names it.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use cellmesh_dpu::units::{ByteSize, TimeSpan};
use toml_edit::{ArrayOfTables, DocumentMut, Item, Table, TableLike, value};

use crate::config::{self, App, Problem, Problems};

use super::Mode;

/// File of the ConfigMap that a container is started with.
pub(super) const FILE: &str = "app.toml";

/// File of the ConfigMap with the work model, if there is one.
const MODEL_FILE: &str = "workmodel.json";

/// Where the ConfigMap is.
pub(super) const CONFIG_FOLDER: &str = "/etc/cellmesh";

/// Folder of sockets, as the manifests mount it.
pub(super) const RUN_FOLDER: &str = "/run/cellmesh";

/// Until no balancer sends anybody any more.
const DRAIN_DELAY: Duration = Duration::from_secs(5);

/// Requests and answers held for a lane: both, twice, fit beside all else in the memory of a container.
const BUFFERED_BYTES_MAX: u64 = 32 << 20;

/// 37 KiB each: 74 MiB.
const CONNECTIONS_MAX: i64 = 2048;

/// How long a process takes to end.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Drain {
    pub(super) delay: Duration,
    pub(super) timeout: Duration,
}

/// Components of the cells as the file names them; none of a work model.
pub(super) fn components(app: &App) -> Vec<String> {
    let file = document(app);
    let cells = file.get("cell").map(tables).unwrap_or_default();
    cells.into_iter().filter_map(|cell| cell.get("component")?.as_str().map(str::to_owned)).collect()
}

fn document(app: &App) -> DocumentMut {
    if is_model(app) { for_model(app) } else { app.origin.text.parse().unwrap_or_default() }
}

fn is_model(app: &App) -> bool {
    config::is_json(&app.origin.path, &app.origin.text)
}

/// Files of the ConfigMap, by name.
///
/// - `components`: where pods find the cells.
///
/// # Errors
/// Files that the settings name and pods do not have.
pub(super) fn rewrite(
    app: &App,
    mode: Mode,
    components: &BTreeMap<String, String>,
) -> Result<(BTreeMap<String, String>, Drain), Problems> {
    let mut files = BTreeMap::new();
    let mut file = document(app);
    refuse_files(app, &file)?;
    if let Some(model) = model_text(app, &file)? {
        files.insert(MODEL_FILE.to_owned(), model);
        file["workmodel"] = value(MODEL_FILE);
    }
    name_components(&mut file, components);
    let drain = set_addresses(app, &mut file);
    set_bounds(app, &mut file);
    if mode != Mode::Solo {
        set_sockets(app, &mut file);
    }
    files.insert(FILE.to_owned(), file.to_string());
    Ok((files, drain))
}

/// Settings of a work model, which has none.
fn for_model(app: &App) -> DocumentMut {
    let mut file = DocumentMut::new();
    file["name"] = value(&app.name);
    file["workmodel"] = value(MODEL_FILE);
    file
}

fn model_text(app: &App, file: &DocumentMut) -> Result<Option<String>, Problems> {
    if is_model(app) {
        return Ok(Some(app.origin.text.clone()));
    }
    let Some(name) = file.get("workmodel").and_then(Item::as_str) else { return Ok(None) };
    config::text(&folder(app).join(name)).map(Some)
}

fn folder(app: &App) -> &Path {
    app.origin.path.parent().unwrap_or_else(|| Path::new("."))
}

/// Pods have the ConfigMap and the image, and nothing else of this machine.
fn refuse_files(app: &App, file: &DocumentMut) -> Result<(), Problems> {
    let mut problems = Vec::new();
    let mut wrong = |key: String, wrong: String, right: &str| {
        let problem = Problem::of_file(&app.origin.path, &wrong, right);
        problems.push(Problem { key, ..problem });
    };
    let dpu = file.get("dpu").and_then(Item::as_table_like);
    if dpu.is_some_and(|dpu| dpu.contains_key("tls")) {
        let right =
            "leave it out and let a Gateway speak TLS, or write manifests as deploy/kustomize has them";
        wrong("dpu.tls".into(), "has no place in rendered manifests".into(), right);
    }
    for (key, path) in named_files(file) {
        if !Path::new(&path).is_absolute() {
            let text = format!("{path:?} is a path of this machine, and pods have the image's files only");
            wrong(key, text, "write the absolute path that it has in the image");
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(Problems(problems)) }
}

/// Files and folders beyond the cells.
fn named_files(file: &DocumentMut) -> Vec<(String, String)> {
    let text = |item: Option<&Item>| item.and_then(Item::as_str).map(str::to_owned);
    let mut found = Vec::new();
    let ca = file.get("dpu").and_then(|dpu| dpu.get("egress")).and_then(|egress| egress.get("ca"));
    found.extend(text(ca).map(|path| ("dpu.egress.ca".to_owned(), path)));
    let services = file.get("service").and_then(Item::as_table_like);
    for (name, service) in services.into_iter().flat_map(TableLike::iter) {
        let jwks = service.get("jwt").and_then(|jwt| jwt.get("jwks"));
        found.extend(text(jwks).map(|path| (format!("service.{name}.jwt.jwks"), path)));
    }
    for (index, cell) in file.get("cell").map(tables).into_iter().flatten().enumerate() {
        let scratch = cell.get("grants").and_then(|grants| grants.get("scratch"));
        let scratch = text(scratch).filter(|path| path != "temporary");
        found.extend(scratch.map(|path| (format!("cell[{index}].grants.scratch"), path)));
    }
    found
}

fn tables(item: &Item) -> Vec<&dyn TableLike> {
    match item {
        Item::ArrayOfTables(tables) => tables.iter().map(|table| table as &dyn TableLike).collect(),
        Item::Value(value) => {
            let inline = value.as_array().into_iter().flatten().filter_map(|value| value.as_inline_table());
            inline.map(|table| table as &dyn TableLike).collect()
        }
        Item::None | Item::Table(_) => Vec::new(),
    }
}

fn name_components(file: &mut DocumentMut, components: &BTreeMap<String, String>) {
    let rename = |table: &mut dyn TableLike| {
        let Some(item) = table.get_mut("component") else { return };
        if let Some(place) = item.as_str().and_then(|path| components.get(path)) {
            set(item, place.as_str());
        }
    };
    match file.get_mut("cell") {
        Some(Item::ArrayOfTables(tables)) => tables.iter_mut().for_each(|table| rename(table)),
        Some(Item::Value(value)) => {
            let values = value.as_array_mut().into_iter().flat_map(|array| array.iter_mut());
            values.filter_map(|value| value.as_inline_table_mut()).for_each(|table| rename(table));
        }
        Some(Item::None | Item::Table(_)) | None => {}
    }
}

/// Another value in the same place, with the same comment behind it.
fn set(item: &mut Item, to: impl Into<toml_edit::Value>) {
    let mut to = to.into();
    if let Some(old) = item.as_value() {
        *to.decor_mut() = old.decor().clone();
    }
    *item = Item::Value(to);
}

/// A section, made if it is not there.
fn section<'f>(file: &'f mut DocumentMut, name: &str) -> &'f mut dyn TableLike {
    file.entry(name)
        .or_insert_with(|| Item::Table(Table::new()))
        .as_table_like_mut()
        .expect("config was read: sections are tables")
}

fn set_key(table: &mut dyn TableLike, key: &str, to: &str) {
    set(table.entry(key).or_insert(Item::None), to);
}

fn set_addresses(app: &App, file: &mut DocumentMut) -> Drain {
    set_key(file.as_table_mut(), "listen", "0.0.0.0:5005");
    set_key(section(file, "admin"), "listen", "0.0.0.0:5006");
    let runtime = section(file, "runtime");
    set_key(runtime, "cache_dir", "/var/cache/cellmesh/cells");
    let mut drain = Drain { delay: app.runtime.drain_delay, timeout: app.runtime.drain_timeout };
    if !runtime.contains_key("drain_delay") {
        drain.delay = DRAIN_DELAY;
        set_key(runtime, "drain_delay", &TimeSpan(DRAIN_DELAY).to_string());
    }
    drain
}

/// What a container holds at once has to fit its memory, where the file does not say how much that is.
fn set_bounds(app: &App, file: &mut DocumentMut) {
    let bytes = ByteSize(BUFFERED_BYTES_MAX.max(app.dpu.body_bytes_max.0)).to_string();
    let dpu = section(file, "dpu");
    for key in ["buffered_bytes_max", "answer_bytes_max"] {
        if !dpu.contains_key(key) {
            set_key(dpu, key, &bytes);
        }
    }
    if !dpu.contains_key("connections_max") {
        dpu.insert("connections_max", value(CONNECTIONS_MAX));
    }
}

/// A socket for each service: a worker can only come in as what it is.
fn set_sockets(app: &App, file: &mut DocumentMut) {
    let mut sockets = ArrayOfTables::new();
    for spec in &app.services {
        let name = &*spec.setup.service;
        let mut socket = Table::new();
        socket.insert("path", value(socket_of(name)));
        socket.insert("services", value(toml_edit::Array::from_iter([name])));
        sockets.push(socket);
    }
    // Lists of tables have no place within an inline table.
    if let Some(Item::Value(toml_edit::Value::InlineTable(table))) = file.get("dpa") {
        file["dpa"] = Item::Table(table.clone().into_table());
    }
    let dpa = section(file, "dpa");
    set_key(dpa, "socket", &format!("{RUN_FOLDER}/dpa.sock"));
    dpa.insert("worker_socket", Item::ArrayOfTables(sockets));
}

/// Where the worker of a service attaches.
pub(super) fn socket_of(service: &str) -> String {
    format!("{RUN_FOLDER}/{service}/dpa.sock")
}
