//! `workmodel.json`: a muBench work model. Every service becomes an instance of the muBench cell, which gets its entry
//! of the model as config; what is checked here is what the cell and its callees rely on.
//!
//! Deployment hints (`replicas`, `workers`, `image`, ...) are for Kubernetes and mean nothing here.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use cellmesh_dpu::config::DpuConfig;
use cellmesh_dpu::routes::ServiceName;
use serde_json::{Map, Value, json};

use super::Overrides;
use super::app::{App, RuntimeSettings, ServiceSpec};
use super::manifest::{INSTANCES_MAX_DEFAULT, LISTEN_DEFAULT};
use super::problems::{Problem, Problems};
use crate::host::{CellLimits, CellSetup, Grants, Scratch};

/// Where a service answers unless its entry says otherwise. Source: muBench's default.
const PATH_DEFAULT: &str = "/api/v1";

/// File name of the muBench cell.
const CELL_FILE: &str = "mubench.wasm";

/// The functions of the muBench cell.
const FUNCTIONS: [&str; 3] = ["loader", "compute_pi", "colosseum"];

/// Reads and checks a work model.
pub(super) fn read(path: &Path, text: &str, overrides: &Overrides) -> Result<App, Problems> {
    let model = parse(path, text).map_err(Problems::one)?;
    let mut check = Check { path, names: model.keys().cloned().collect(), problems: Problems::default() };
    for (name, entry) in &model {
        check.service(name, entry);
    }
    let component = cell_file(overrides).map_err(|error| check.problems.0.push(error)).unwrap_or_default();
    let names = check.names;
    check.problems.or(|| App {
        name: path.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
        entry: names.iter().position(|name| name == "s0").unwrap_or(0),
        services: services(&model, &names, &component),
        listen: LISTEN_DEFAULT,
        dpu: DpuConfig::default(),
        runtime: RuntimeSettings::default(),
        notes: grpc_note(&model),
    })
}

fn parse(path: &Path, text: &str) -> Result<Map<String, Value>, Problem> {
    const RIGHT: &str =
        "write a muBench work model: {\"s0\": {\"external_services\": [...], \"internal_service\": {...}}}";
    match serde_json::from_str(text) {
        Ok(Value::Object(model)) if !model.is_empty() => Ok(model),
        Ok(_) => Err(Problem::of_file(path, "is not a JSON object with a key for each service", RIGHT)),
        Err(error) => Err(Problem {
            line: Some(error.line()),
            ..Problem::of_file(path, &format!("is not JSON: {error}"), RIGHT)
        }),
    }
}

fn services(model: &Map<String, Value>, names: &[String], component: &Path) -> Vec<ServiceSpec> {
    let paths: BTreeMap<&String, &str> = model.iter().map(|(name, entry)| (name, path_of(entry))).collect();
    let (all, paths) = (json!(names).to_string(), json!(paths).to_string());
    model
        .iter()
        .map(|(name, entry)| ServiceSpec {
            setup: CellSetup {
                service: name.as_str().into(),
                component: component.to_owned(),
                config: BTreeMap::from([
                    ("mubench.service".into(), entry.to_string()),
                    ("mubench.services".into(), all.clone()),
                    ("mubench.paths".into(), paths.clone()),
                ]),
                grants: Grants { scratch: Some(Scratch::Temporary) },
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

fn grpc_note(model: &Map<String, Value>) -> Vec<String> {
    let grpc: Vec<&str> = model
        .iter()
        .filter(|(_, entry)| entry.get("request_method").and_then(Value::as_str) == Some("grpc"))
        .map(|(name, _)| name.as_str())
        .collect();
    if grpc.is_empty() {
        return Vec::new();
    }
    vec![format!("request_method grpc ({}): served and called as REST through the mesh", grpc.join(", "))]
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
}

impl Check<'_> {
    fn note(&mut self, key: String, wrong: impl Into<String>, right: impl Into<String>) {
        self.problems.0.push(Problem::at(self.path, key, wrong, right));
    }

    fn service(&mut self, name: &str, entry: &Value) {
        if let Err(error) = name.parse::<ServiceName>() {
            self.note(name.to_owned(), error.to_string(), "rename the service");
        }
        // Host names do not know upper and lower case.
        let twin = self
            .names
            .iter()
            .take_while(|other| *other != name)
            .find(|other| other.eq_ignore_ascii_case(name));
        if let Some(twin) = twin {
            let wrong = format!("{twin} has the same name (upper and lower case are one name)");
            self.note(name.to_owned(), wrong, "rename one of them");
        }
        let Some(entry) = entry.as_object() else {
            return self.note(
                name.to_owned(),
                "is not an object",
                "write {\"external_services\": [], \"internal_service\": {}}",
            );
        };
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

    fn behaviors(&mut self, name: &str, behaviors: Option<&Value>) {
        let Some(behaviors) = behaviors else { return };
        let key = format!("{name}.alternative_behaviors");
        let Some(behaviors) = behaviors.as_object() else {
            return self.note(key, "is not an object", "write {\"<bid>\": {\"external_services\": [...]}}");
        };
        for (id, behavior) in behaviors {
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
        match group.get("services").and_then(Value::as_array) {
            None => self.note(format!("{key}.services"), "is not a list", "write a list of service names"),
            Some(services) => {
                for (index, callee) in services.iter().enumerate() {
                    self.callee(&format!("{key}.services[{index}]"), callee);
                }
            }
        }
        if let Some(length) = group.get("seq_len")
            && length.as_u64().is_none()
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
                    self.function(format!("{key}.{function}"), function, parameters);
                }
            }
            Some(_) => self.note(key.to_owned(), "is not an object", "write {\"loader\": {...}}"),
        }
    }

    fn function(&mut self, key: String, function: &str, parameters: &Value) {
        if !FUNCTIONS.contains(&function) {
            let right = format!("name one of: {}", FUNCTIONS.join(", "));
            self.note(key, "is no function of the muBench cell", right);
        } else if !parameters.is_object() {
            self.note(key, "is not an object", "write the function's parameters: {}");
        }
    }
}
