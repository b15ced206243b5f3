//! `workmodel.json`: a muBench work model. Every service becomes an instance of the muBench cell, which gets its entry
//! of the model as config; what is checked here is what the cell and its callees rely on.
//!
//! Keys for its deployment (`replicas`, `cpu-requests`, ...) are for `cellmesh k8s` (`deploy.rs`) and mean nothing to what runs.
//! Keys of others are passed over; one that is nearly one of ours is refused (`workmodel/keys.rs`).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use cellmesh_dpa::DpaConfig;
use cellmesh_dpu::config::DpuConfig;
use cellmesh_dpu::routes::ServiceName;
use cellmesh_graph::Limits;
use serde_json::{Map, Value, json};

use super::app::{App, NodeSettings, Origin, RuntimeSettings, ServiceSpec};
use super::deploy::{self, Deploy};
use super::manifest::{INSTANCES_MAX_DEFAULT, LISTEN_DEFAULT};
use super::problems::{Problem, Problems};
use super::{Overrides, Part};
use crate::host::{CellLimits, CellSetup, Grants, Scratch};
use crate::trace::TraceSettings;

mod functions;
mod json;
mod keys;
mod reach;

use json::Entries;
use keys::Strangers;
use reach::{Calls, TooFar};

/// Where a service answers unless its entry says otherwise. Source: muBench's default.
const PATH_DEFAULT: &str = "/api/v1";

/// What follows it in a callee's name only makes that unique. Source: muBench.
const SUFFIX: &str = "__";

/// Steps of the muBench cell's graph beside calls and the order of each group of several: what holds the groups (or that of the only one), the
/// internal service behind them, and the order of both.
const STEPS_BESIDE_CALLS: usize = 3;

/// File name of the muBench cell.
const CELL_FILE: &str = "mubench.wasm";

/// Reads and checks a work model.
pub(super) fn read(path: &Path, text: &str, overrides: &Overrides) -> Result<App, Problems> {
    let (model, twice) = parse(path, text).map_err(Problems::one)?;
    let names = model.iter().map(|(name, _)| name.clone()).collect();
    let mut check = Check::new(path, names);
    for key in twice {
        check.note(key, "is there twice", "leave one of them");
    }
    for (index, (name, entry)) in model.iter().enumerate() {
        check.service(index, name, entry);
        check.deploy(name, entry);
    }
    check.reach();
    let component = match overrides.part {
        Part::Daemon | Part::Dpa => PathBuf::from(CELL_FILE),
        Part::Whole | Part::Worker => {
            cell_file(overrides).map_err(|error| check.problems.0.push(error)).unwrap_or_default()
        }
    };
    let (names, deploy, strangers, warnings) = (check.names, check.deploy, check.strangers, check.warnings);
    check.problems.or(|| App {
        name: path.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
        entry: names.iter().position(|name| name == "s0").unwrap_or(0),
        services: services(&model, &names, &component),
        listen: LISTEN_DEFAULT,
        namespace: None,
        admin: None,
        own_admin: None,
        dpu: DpuConfig::default(),
        node: NodeSettings::default(),
        runtime: RuntimeSettings::default(),
        trace: TraceSettings::default(),
        deploy,
        notes: grpc_note(&model).into_iter().chain(warnings).chain(strangers.note()).collect(),
        origin: Origin { model: Some(text.to_owned()), ..Origin::default() },
    })
}

fn parse(path: &Path, text: &str) -> Result<(Entries, Vec<String>), Problem> {
    const RIGHT: &str =
        "write a muBench work model: {\"s0\": {\"external_services\": [...], \"internal_service\": {...}}}";
    match json::read(text) {
        Ok((entries, _)) if entries.is_empty() => {
            Err(Problem::of_file(path, "is not a JSON object with a key for each service", RIGHT))
        }
        Ok(found) => Ok(found),
        Err(error) if error.is_data() => {
            Err(Problem::of_file(path, "is not a JSON object with a key for each service", RIGHT))
        }
        Err(error) => Err(Problem {
            line: Some(error.line()),
            ..Problem::of_file(path, &format!("is not JSON: {error}"), RIGHT)
        }),
    }
}

fn services(model: &Entries, names: &[String], component: &Path) -> Vec<ServiceSpec> {
    let paths: BTreeMap<&String, &str> = model.iter().map(|(name, entry)| (name, path_of(entry))).collect();
    let (all, paths) = (json!(names).to_string(), json!(paths).to_string());
    model
        .iter()
        .map(|(name, entry)| ServiceSpec {
            setup: CellSetup {
                service: name.as_str().into(),
                component: component.into(),
                config: BTreeMap::from([
                    ("mubench.service".into(), entry.to_string()),
                    ("mubench.services".into(), all.clone()),
                    ("mubench.paths".into(), paths.clone()),
                ]),
                grants: Grants { scratch: Some(Scratch::Temporary) },
                egress_allow: Vec::new(),
                limits: CellLimits::default(),
                fresh_instances: false,
            },
            instances_max: INSTANCES_MAX_DEFAULT,
            path: path_of(entry).to_owned(),
        })
        .collect()
}

fn path_of(entry: &Value) -> &str {
    entry.get("path").and_then(Value::as_str).unwrap_or(PATH_DEFAULT)
}

/// What can be sent in the first line of a request.
fn is_path(path: &str) -> bool {
    path.starts_with('/')
        && path.bytes().all(|byte| byte.is_ascii_graphic())
        && path
            .parse::<http::uri::PathAndQuery>()
            .is_ok_and(|read| read.as_str() == path && read.query().is_none())
}

/// `s1__2` calls `s1`.
fn without_suffix(name: &str) -> &str {
    name.split_once(SUFFIX).map_or(name, |(service, _)| service)
}

fn grpc_note(model: &Entries) -> Option<String> {
    let entries = model.iter();
    let grpc: Vec<&str> = entries
        .filter(|(_, entry)| entry.get("request_method").and_then(Value::as_str) == Some("grpc"))
        .map(|(name, _)| name.as_str())
        .collect();
    (!grpc.is_empty()).then(|| {
        format!("request_method grpc ({}): served and called as REST through the mesh", grpc.join(", "))
    })
}

/// The muBench cell: in the folder that was named, or near the program.
fn cell_file(overrides: &Overrides) -> Result<PathBuf, Problem> {
    let folders = match &overrides.cells_dir {
        Some(dir) => vec![dir.clone()],
        None => near_the_program(),
    };
    folders.iter().map(|folder| folder.join(CELL_FILE)).find(|file| file.is_file()).ok_or_else(|| {
        let looked: Vec<String> = folders.iter().map(|folder| folder.display().to_string()).collect();
        Problem::of_file(
            Path::new(CELL_FILE),
            &format!("not found in {}", looked.join(", ")),
            "build the cells (cargo xtask cells) or name their folder with --cells-dir",
        )
    })
}

/// `cells` beside the program (an installation) and beside its folder (a build).
fn near_the_program() -> Vec<PathBuf> {
    let program = std::env::current_exe().unwrap_or_default();
    let folder = program.parent().unwrap_or_else(|| Path::new(".")).to_owned();
    let build = folder.parent().unwrap_or_else(|| Path::new(".")).join("cells");
    vec![folder.join("cells"), build]
}

/// Checks entries and collects what is wrong.
struct Check<'a> {
    path: &'a Path,
    names: Vec<String>,
    problems: Problems,
    deploy: BTreeMap<String, Deploy>,
    strangers: Strangers,
    calls: Calls,
    /// What can be served and is hardly meant.
    warnings: Vec<String>,
}

impl<'a> Check<'a> {
    fn new(path: &'a Path, names: Vec<String>) -> Self {
        Self {
            path,
            calls: Calls::of(names.len()),
            names,
            problems: Problems::default(),
            deploy: BTreeMap::new(),
            strangers: Strangers::default(),
            warnings: Vec::new(),
        }
    }

    fn note(&mut self, key: String, wrong: impl Into<String>, right: impl Into<String>) {
        self.problems.0.push(Problem::at(self.path, key, wrong, right));
    }

    /// Keys that are not known: a mistake, or somebody else's.
    fn keys(&mut self, at: &str, table: &Map<String, Value>, known: &[&'static str]) {
        for name in table.keys().filter(|name| !known.contains(&name.as_str())) {
            match keys::meant(name, known) {
                Some(meant) => {
                    self.note(format!("{at}.{name}"), "unknown key", format!("did you mean {meant}?"))
                }
                None => self.strangers.add(at, name),
            }
        }
    }

    /// Host names do not know upper and lower case.
    fn twin(&mut self, index: usize, name: &str) {
        let twin = self.names[..index].iter().find(|other| other.eq_ignore_ascii_case(name));
        let wrong = match twin {
            None => return,
            Some(twin) if twin == name => "is there twice".to_owned(),
            Some(twin) => format!("{twin} has the same name (upper and lower case are one name)"),
        };
        self.note(name.to_owned(), wrong, "rename one of them");
    }

    fn service(&mut self, index: usize, name: &str, entry: &Value) {
        if let Err(error) = name.parse::<ServiceName>() {
            self.note(name.to_owned(), error.to_string(), "rename the service");
        }
        if name.contains(SUFFIX) {
            let wrong = "__ begins a suffix that only makes a name unique: nobody could call this service";
            self.note(name.to_owned(), wrong, "rename the service");
        }
        self.twin(index, name);
        let Some(entry) = entry.as_object() else {
            return self.note(
                name.to_owned(),
                "is not an object",
                "write {\"external_services\": [], \"internal_service\": {}}",
            );
        };
        self.keys(name, entry, &keys::OF_SERVICE);
        if !entry.is_empty() && !entry.keys().any(|key| keys::OF_SERVICE.contains(&key.as_str())) {
            let right = "write {\"external_services\": [], \"internal_service\": {}}, or {} for a service that does nothing";
            self.note(name.to_owned(), "has no key of a service, and others", right);
        }
        if let Some(path) = entry.get("path")
            && !path.as_str().is_some_and(is_path)
        {
            let right = "write a path without a query: text that begins with /, of ASCII letters, other characters as %XX";
            self.note(format!("{name}.path"), format!("{path} is no path"), right);
        }
        if let Some(method) = entry.get("request_method")
            && !method.as_str().is_some_and(|method| ["rest", "grpc"].contains(&method))
        {
            let right = "write \"rest\" or \"grpc\"";
            self.note(format!("{name}.request_method"), format!("{method} does not fit"), right);
        }
        self.groups(index, &format!("{name}.external_services"), entry.get("external_services"));
        self.functions(&format!("{name}.internal_service"), entry.get("internal_service"));
        self.behaviors(index, name, entry.get("alternative_behaviors"));
    }

    fn deploy(&mut self, name: &str, entry: &Value) {
        let (deploy, problems) = deploy::of_work_model(self.path, name, entry);
        self.deploy.insert(name.to_owned(), deploy);
        self.problems.0.extend(problems);
    }

    fn behaviors(&mut self, caller: usize, name: &str, behaviors: Option<&Value>) {
        let Some(behaviors) = behaviors else { return };
        let key = format!("{name}.alternative_behaviors");
        let Some(behaviors) = behaviors.as_object() else {
            return self.note(key, "is not an object", "write {\"<bid>\": {\"external_services\": [...]}}");
        };
        for (id, behavior) in behaviors {
            let key = format!("{key}.{id}");
            let Some(behavior) = behavior.as_object() else {
                let right = "write {\"internal_services\": {...}, \"external_services\": [...]}";
                self.note(key, "is not an object", right);
                continue;
            };
            self.keys(&key, behavior, &keys::OF_BEHAVIOR);
            self.groups(caller, &format!("{key}.external_services"), behavior.get("external_services"));
            let names = ["internal_services", "internal_service"];
            if names.iter().all(|name| behavior.contains_key(*name)) {
                let wrong = "internal_services and internal_service are two names for one thing";
                self.note(key.clone(), wrong, "leave one of them");
            }
            for name in names {
                self.functions(&format!("{key}.{name}"), behavior.get(name));
            }
        }
    }

    fn groups(&mut self, caller: usize, key: &str, groups: Option<&Value>) {
        let Some(groups) = groups else { return };
        let Some(groups) = groups.as_array() else {
            return self.note(
                key.to_owned(),
                "is not a list",
                "write a list of groups: [{\"services\": [\"s1\"]}]",
            );
        };
        let (mut calls, mut orders) = (0, 0);
        for (index, group) in groups.iter().enumerate() {
            let called = self.group(caller, &format!("{key}[{index}]"), group);
            calls += called;
            orders += usize::from(called > 1);
        }
        if groups.len() == 1 {
            // It needs no step that holds the groups, and its own is counted in that one's place.
            orders = 0;
        }
        let steps_max = Limits::default().nodes_max as usize - STEPS_BESIDE_CALLS;
        if calls + orders > steps_max {
            let of_groups =
                if orders > 0 { format!(" and {orders} groups of several") } else { String::new() };
            self.warnings.push(format!(
                "{key}: {calls} calls{of_groups} for a request, of which a graph has at most {steps_max}: it will be answered 500"
            ));
        }
    }

    /// How many of its services a request calls at most.
    fn group(&mut self, caller: usize, key: &str, group: &Value) -> usize {
        let Some(group) = group.as_object() else {
            self.note(key.to_owned(), "is not an object", "write {\"services\": [\"s1\"]}");
            return 0;
        };
        self.keys(key, group, &keys::OF_GROUP);
        let no_services = Vec::new();
        let services = match group.get("services") {
            Some(Value::Array(services)) => services,
            _ => {
                self.note(format!("{key}.services"), "is not a list", "write a list of service names");
                &no_services
            }
        };
        for (index, callee) in services.iter().enumerate() {
            self.callee(caller, &format!("{key}.services[{index}]"), callee);
        }
        let length = group.get("seq_len");
        if let Some(length) = length.filter(|length| !functions::is_count(length)) {
            let right = "write a whole number from 0: so many of the services are called";
            self.note(format!("{key}.seq_len"), format!("{length} does not fit"), right);
        }
        match group.get("probabilities") {
            None => {}
            Some(Value::Object(table)) => self.probabilities(key, services, table),
            Some(_) => self.note(format!("{key}.probabilities"), "is not an object", "write {\"s1\": 0.5}"),
        }
        let length = length.and_then(Value::as_u64).and_then(|length| usize::try_from(length).ok());
        length.unwrap_or(usize::MAX).min(services.len())
    }

    fn probabilities(&mut self, key: &str, services: &[Value], table: &Map<String, Value>) {
        for (callee, probability) in table {
            let key = format!("{key}.probabilities.{callee}");
            if !probability.as_f64().is_some_and(|p| (0.0..=1.0).contains(&p)) {
                let wrong = format!("{probability} does not fit");
                self.note(key.clone(), wrong, "write a number from 0 to 1");
            }
            let is_called = |name: &str| name == callee || without_suffix(name) == callee;
            if !services.iter().filter_map(Value::as_str).any(is_called) {
                self.warnings.push(format!("{key}: this group does not call {callee}"));
            }
        }
    }

    fn callee(&mut self, caller: usize, key: &str, callee: &Value) {
        let name = callee.as_str().map(without_suffix);
        match name.and_then(|name| self.names.iter().position(|known| known == name)) {
            Some(callee) => self.calls.add(caller, callee),
            None => {
                let right = format!("name one of: {}", self.names.join(", "));
                self.note(key.to_owned(), format!("{callee} is no service of this model"), right);
            }
        }
    }

    /// Calls that go further than one may.
    fn reach(&mut self) {
        let calls_max = DpaConfig::default().hops_max;
        let named = |way: &[usize]| way.iter().map(|at| &*self.names[*at]).collect::<Vec<_>>().join(" -> ");
        let warning = match self.calls.too_far(calls_max.into()) {
            None => return,
            Some(TooFar::Circle(way)) => format!("{} call each other in a circle", named(&way)),
            Some(TooFar::Way(way)) => format!("{} is a way of {} calls", named(&way), way.len() - 1),
        };
        self.warnings.push(format!("{warning}: of a request that leads to more than {calls_max}, one after the other, the next is refused (508)"));
    }

    fn functions(&mut self, key: &str, functions: Option<&Value>) {
        match functions {
            None => {}
            Some(Value::Object(functions)) => {
                for (function, parameters) in functions {
                    let at = format!("{key}.{function}");
                    let beyond = functions::beyond(function, parameters).into_iter();
                    self.warnings.extend(beyond.map(|beyond| format!("{at}.{beyond}")));
                    for wrong in functions::check(function, parameters) {
                        self.note(format!("{at}{}", wrong.at), wrong.wrong, wrong.right);
                    }
                    for (inner, table, known) in functions::tables(function, parameters) {
                        self.keys(&format!("{at}{inner}"), table, &known);
                    }
                }
            }
            Some(_) => self.note(key.to_owned(), "is not an object", "write {\"loader\": {...}}"),
        }
    }
}
