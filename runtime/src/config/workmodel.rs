//! `workmodel.json`: a muBench work model. Every service becomes an instance of the muBench cell, which gets its entry
//! of the model as config; what is checked here is what the cell and its callees rely on.
//!
//! Keys for its deployment (`replicas`, `cpu-requests`, ...) are for `cellmesh k8s` (`deploy.rs`) and mean nothing to what runs.
//! Keys of others are passed over; one that is nearly one of ours is refused (`workmodel/keys.rs`).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use cellmesh_dpu::config::DpuConfig;
use cellmesh_dpu::routes::ServiceName;
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::{Map, Value, json};

use super::app::{App, NodeSettings, Origin, RuntimeSettings, ServiceSpec};
use super::deploy::{self, Deploy};
use super::manifest::{INSTANCES_MAX_DEFAULT, LISTEN_DEFAULT};
use super::problems::{Problem, Problems};
use super::{Overrides, Part};
use crate::host::{CellLimits, CellSetup, Grants, Scratch};
use crate::trace::TraceSettings;

mod functions;
mod keys;

use keys::Strangers;

/// Where a service answers unless its entry says otherwise. Source: muBench's default.
const PATH_DEFAULT: &str = "/api/v1";

/// File name of the muBench cell.
const CELL_FILE: &str = "mubench.wasm";

/// Reads and checks a work model.
pub(super) fn read(path: &Path, text: &str, overrides: &Overrides) -> Result<App, Problems> {
    let model = parse(path, text).map_err(Problems::one)?;
    let names = model.0.iter().map(|(name, _)| name.clone()).collect();
    let mut check = Check::new(path, names);
    for (index, (name, entry)) in model.0.iter().enumerate() {
        check.service(index, name, entry);
        check.deploy(name, entry);
    }
    let component = match overrides.part {
        Part::Daemon | Part::Dpa => PathBuf::from(CELL_FILE),
        Part::Whole | Part::Worker => {
            cell_file(overrides).map_err(|error| check.problems.0.push(error)).unwrap_or_default()
        }
    };
    let (names, deploy, strangers) = (check.names, check.deploy, check.strangers);
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
        notes: grpc_note(&model).into_iter().chain(strangers.note()).collect(),
        origin: Origin::default(),
    })
}

/// The services and their entries, in the order of the file.
struct Model(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Model {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        reader.deserialize_map(ModelVisitor)
    }
}

struct ModelVisitor;

impl<'de> Visitor<'de> for ModelVisitor {
    type Value = Model;

    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("a JSON object with a key for each service")
    }

    /// A map type would keep the last of two entries with the same name, and say nothing.
    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Model, M::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Model(entries))
    }
}

fn parse(path: &Path, text: &str) -> Result<Model, Problem> {
    const RIGHT: &str =
        "write a muBench work model: {\"s0\": {\"external_services\": [...], \"internal_service\": {...}}}";
    match serde_json::from_str(text) {
        Ok(Model(entries)) if entries.is_empty() => {
            Err(Problem::of_file(path, "is not a JSON object with a key for each service", RIGHT))
        }
        Ok(model) => Ok(model),
        Err(error) if error.is_data() => {
            Err(Problem::of_file(path, "is not a JSON object with a key for each service", RIGHT))
        }
        Err(error) => Err(Problem {
            line: Some(error.line()),
            ..Problem::of_file(path, &format!("is not JSON: {error}"), RIGHT)
        }),
    }
}

fn services(model: &Model, names: &[String], component: &Path) -> Vec<ServiceSpec> {
    let model = &model.0;
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

fn grpc_note(model: &Model) -> Option<String> {
    let entries = model.0.iter();
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
}

impl<'a> Check<'a> {
    fn new(path: &'a Path, names: Vec<String>) -> Self {
        Self {
            path,
            names,
            problems: Problems::default(),
            deploy: BTreeMap::new(),
            strangers: Strangers::default(),
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
        self.twin(index, name);
        let Some(entry) = entry.as_object() else {
            return self.note(
                name.to_owned(),
                "is not an object",
                "write {\"external_services\": [], \"internal_service\": {}}",
            );
        };
        self.keys(name, entry, &keys::OF_SERVICE);
        if let Some(path) = entry.get("path")
            && !path.as_str().is_some_and(|path| path.starts_with('/') && !path.contains(char::is_whitespace))
        {
            self.note(
                format!("{name}.path"),
                format!("{path} is no path"),
                "write a text that begins with /",
            );
        }
        self.groups(&format!("{name}.external_services"), entry.get("external_services"));
        self.functions(&format!("{name}.internal_service"), entry.get("internal_service"));
        self.behaviors(name, entry.get("alternative_behaviors"));
    }

    fn deploy(&mut self, name: &str, entry: &Value) {
        let (deploy, problems) = deploy::of_work_model(self.path, name, entry);
        self.deploy.insert(name.to_owned(), deploy);
        self.problems.0.extend(problems);
    }

    fn behaviors(&mut self, name: &str, behaviors: Option<&Value>) {
        let Some(behaviors) = behaviors else { return };
        let key = format!("{name}.alternative_behaviors");
        let Some(behaviors) = behaviors.as_object() else {
            return self.note(key, "is not an object", "write {\"<bid>\": {\"external_services\": [...]}}");
        };
        for (id, behavior) in behaviors {
            if let Some(behavior) = behavior.as_object() {
                self.keys(&format!("{key}.{id}"), behavior, &keys::OF_BEHAVIOR);
            }
            self.groups(&format!("{key}.{id}.external_services"), behavior.get("external_services"));
            for name in ["internal_services", "internal_service"] {
                self.functions(&format!("{key}.{id}.{name}"), behavior.get(name));
            }
        }
    }

    fn groups(&mut self, key: &str, groups: Option<&Value>) {
        let Some(groups) = groups else { return };
        let Some(groups) = groups.as_array() else {
            return self.note(
                key.to_owned(),
                "is not a list",
                "write a list of groups: [{\"services\": [\"s1\"]}]",
            );
        };
        for (index, group) in groups.iter().enumerate() {
            self.group(&format!("{key}[{index}]"), group);
        }
    }

    fn group(&mut self, key: &str, group: &Value) {
        if let Some(group) = group.as_object() {
            self.keys(key, group, &keys::OF_GROUP);
        }
        match group.get("services").and_then(Value::as_array) {
            None => self.note(format!("{key}.services"), "is not a list", "write a list of service names"),
            Some(services) => {
                for (index, callee) in services.iter().enumerate() {
                    self.callee(&format!("{key}.services[{index}]"), callee);
                }
            }
        }
        if let Some(length) = group.get("seq_len")
            && !functions::is_count(length)
        {
            self.note(format!("{key}.seq_len"), format!("{length} does not fit"), "write a whole number");
        }
        for (callee, probability) in
            group.get("probabilities").and_then(Value::as_object).into_iter().flatten()
        {
            if !probability.as_f64().is_some_and(|p| (0.0..=1.0).contains(&p)) {
                let key = format!("{key}.probabilities.{callee}");
                self.note(key, format!("{probability} does not fit"), "write a number from 0 to 1");
            }
        }
    }

    fn callee(&mut self, key: &str, callee: &Value) {
        let name = callee.as_str().map(|name| name.split("__").next().unwrap_or(name));
        if name.is_none_or(|name| !self.names.iter().any(|known| known == name)) {
            let right = format!("name one of: {}", self.names.join(", "));
            self.note(key.to_owned(), format!("{callee} is no service of this model"), right);
        }
    }

    fn functions(&mut self, key: &str, functions: Option<&Value>) {
        match functions {
            None => {}
            Some(Value::Object(functions)) => {
                for (function, parameters) in functions {
                    let at = format!("{key}.{function}");
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
