//! `cellmesh graph`: the graph of one request, from a live process or from a file, as text, Mermaid or SVG.

mod mermaid;
mod svg;
mod text;

use std::collections::HashMap;
use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use serde::Deserialize;

use super::{AdminPort, read_json, shown};
use crate::trace::{PlanShape, ShapeKind, StepShape};

/// Whose graph, and how.
#[derive(Debug, Args)]
pub struct Options {
    /// The admin port of a process (127.0.0.1:9901), or a file: a recording, or an answer of /v1/requests/ID; - is standard
    /// input.
    pub from: String,
    /// The id of a request of the process, as /v1/requests has it [default: the newest with a graph].
    pub id: Option<String>,
    /// How it is written.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,
}

/// How a graph is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// An outline.
    Text,
    /// A flowchart, for Markdown and mermaid.live.
    Mermaid,
    /// A picture.
    Svg,
}

/// Steps that are drawn; a larger graph is cut.
const STEPS_MAX: usize = 500;
/// Letters of a label.
const LABEL_MAX: usize = 40;
const TITLE_MAX: usize = 160;

/// A request as the admin port tells it, as far as a graph needs it.
#[derive(Debug, Deserialize)]
struct Told {
    request: Summary,
    plan: Option<PlanShape>,
    #[serde(default)]
    spans: Vec<Part>,
    #[serde(default)]
    critical_path: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
struct Summary {
    #[serde(default)]
    id: String,
    service: String,
    method: String,
    target: String,
    status: Option<u16>,
    duration_seconds: Option<f64>,
}

#[derive(Debug, Deserialize)]
struct Part {
    step: Option<String>,
    duration_seconds: f64,
    status: Option<u16>,
    error: Option<String>,
}

/// What can be read from a file.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum File {
    Told(Box<Told>),
    Recording(Box<crate::trace::Recording>),
}

#[derive(Debug, Deserialize)]
struct Kept {
    requests: Vec<Listed>,
}

#[derive(Debug, Deserialize)]
struct Listed {
    id: String,
    steps: usize,
}

/// What `/v1/state` says of the process itself.
#[derive(Debug, Deserialize)]
struct Process {
    command: String,
    hosts_cells: bool,
}

/// A graph that is about to be written.
#[derive(Debug)]
struct Drawn {
    title: String,
    plan: PlanShape,
    /// What is known of steps, by their ids.
    known: HashMap<String, Known>,
}

/// A step, how deep it is, and the place of its group.
#[derive(Debug)]
struct Row<'d> {
    step: &'d StepShape,
    depth: usize,
    parent: Option<usize>,
}

/// What came of a step.
#[derive(Debug, Clone, Default)]
struct Known {
    seconds: Option<f64>,
    status: Option<u16>,
    error: Option<String>,
    is_failed: bool,
    is_critical: bool,
}

/// Writes the graph to standard output.
///
/// # Errors
/// Nothing there answers, nothing is kept, the file is none of those that are understood, or standard output cannot be written.
pub fn run(options: &Options) -> anyhow::Result<()> {
    let drawn = if is_address(&options.from) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(from_process(&options.from, options.id.as_deref()))?
    } else {
        if options.id.is_some() {
            bail!("{}: a file has one request, leave the id out", options.from);
        }
        from_file(&PathBuf::from(&options.from))?
    };
    let written = match options.format {
        Format::Text => text::write(&drawn),
        Format::Mermaid => mermaid::write(&drawn),
        Format::Svg => svg::write(&drawn),
    };
    super::say(&written).map(drop)
}

/// `http://..`, or something with a port behind it that is no file.
fn is_address(from: &str) -> bool {
    let has_port = || from.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    from.starts_with("http://") || (has_port() && !PathBuf::from(from).exists())
}

async fn from_process(address: &str, id: Option<&str>) -> anyhow::Result<Drawn> {
    let port = AdminPort::new(address)?;
    let id = match id {
        Some(id) => id.to_owned(),
        None => {
            let kept: Kept = port.get("/v1/requests").await?;
            let newest = kept.requests.into_iter().find(|request| request.steps > 0);
            match newest {
                Some(newest) => newest.id,
                None => bail!(none_kept(address, &port.get("/v1/state").await?)),
            }
        }
    };
    Drawn::of(port.get(&format!("/v1/requests/{id}")).await?)
}

/// Why there is no request with a graph.
fn none_kept(address: &str, process: &Process) -> String {
    if process.hosts_cells {
        return "no request with a graph is kept there yet: send one, then ask again".into();
    }
    let command = clean(&process.command);
    format!(
        "{address} is cellmesh {command}, which hosts no cells and keeps no requests: name the admin port of a worker (--admin of cellmesh worker)"
    )
}

fn from_file(file: &std::path::Path) -> anyhow::Result<Drawn> {
    let what = "a recording, or what /v1/requests/ID of an admin port answers";
    match read_json(file, what)? {
        File::Told(told) => Drawn::of(*told),
        File::Recording(recording) => Drawn::of_recording(*recording),
    }
}

impl Drawn {
    fn of(told: Told) -> anyhow::Result<Self> {
        let Summary { id, service, method, target, status, duration_seconds } = told.request;
        let plan = told.plan.with_context(|| {
            format!("request {}: {} answered it without a graph", clean(&id), clean(&service))
        })?;
        let mut known: HashMap<String, Known> = HashMap::new();
        for part in told.spans {
            let Some(step) = part.step else { continue };
            let sum = known.entry(step).or_default();
            sum.seconds = Some(sum.seconds.unwrap_or_default() + part.duration_seconds);
            sum.status = part.status.or(sum.status);
            sum.error = part.error.or(sum.error.take());
        }
        for step in told.critical_path {
            known.entry(step).or_default().is_critical = true;
        }
        let status = status.map_or_else(|| "no answer".into(), |status| status.to_string());
        let took = duration_seconds.map_or_else(String::new, |took| format!(", {}", time(took)));
        Ok(Self { title: title(&format!("{service}: {method} {target} -> {status}{took}")), plan, known })
    }

    fn of_recording(recording: crate::trace::Recording) -> anyhow::Result<Self> {
        let crate::trace::Recording { service, request, course, .. } = recording;
        let plan = course
            .plan
            .with_context(|| format!("{} answered this request without a graph", clean(&service)))?;
        let mut known: HashMap<String, Known> = HashMap::new();
        for step in course.steps {
            use crate::trace::StepDeed::{Answered, Built, Refused, Returned, Sent};
            let entry = known.entry(step.step).or_default();
            match step.deed {
                Answered(result) | Returned(result) => {
                    (entry.status, entry.error) = (result.status, result.error);
                }
                Refused(why) => entry.error = Some(why),
                Sent(_) | Built(_) => {}
            }
        }
        let status = course.response.status.map_or_else(|| "no answer".into(), |status| status.to_string());
        let (method, url) = (request.method.unwrap_or_default(), request.url.unwrap_or_default());
        Ok(Self { title: title(&format!("{service}: {method} {url} -> {status}")), plan, known })
    }

    /// The steps that are drawn, each behind its group.
    fn rows(&self) -> Vec<Row<'_>> {
        let steps = self.plan.steps.iter().take(STEPS_MAX);
        let mut by_id: HashMap<&str, &StepShape> = steps.map(|step| (&*step.id, step)).collect();
        // Not by recursion, and each step once: a file can say anything.
        let mut open = vec![(&*self.plan.root, 0, None)];
        let mut rows = Vec::with_capacity(by_id.len());
        while let Some((id, depth, parent)) = open.pop() {
            let Some(step) = by_id.remove(id) else { continue };
            let here = Some(rows.len());
            open.extend(step.children.iter().rev().map(|child| (&**child, depth + 1, here)));
            rows.push(Row { step, depth, parent });
        }
        rows
    }

    /// Steps that are not drawn.
    fn left_out(&self) -> usize {
        self.plan.steps.len().saturating_sub(STEPS_MAX) + self.plan.steps_left_out
    }

    fn known(&self, step: &StepShape) -> Known {
        let known = self.known.get(&*step.id).cloned().unwrap_or_default();
        // An answer that is no success is an error of its step; what a function returned on purpose is not.
        let is_refused = step.kind == ShapeKind::Egress && known.status.is_some_and(|status| status >= 400);
        Known { is_failed: known.error.is_some() || is_refused, ..known }
    }

    /// What a step does, in a few words.
    fn label(step: &StepShape) -> String {
        use crate::trace::ShapeKind::{Builder, Egress, Internal, Order, Pipe, Prepared};
        let label = match step.kind {
            Order => "order".to_owned(),
            Pipe => "pipe".to_owned(),
            Builder => format!("builder, function {}", step.function.unwrap_or_default()),
            Internal => format!("function {}", step.function.unwrap_or_default()),
            Prepared => format!("prepared, or function {}", step.function.unwrap_or_default()),
            Egress => {
                let first = step.requests.first();
                let first =
                    first.map_or_else(String::new, |request| format!("{} {}", request.method, request.url));
                match step.requests.len() {
                    0 | 1 => first,
                    more => format!("{first} and {} more", more - 1),
                }
            }
        };
        clean(&label)
    }
}

impl Known {
    /// Time, status and error in a few words.
    fn words(&self) -> String {
        let mut words = Vec::new();
        words.extend(self.seconds.map(time));
        words.extend(self.status.map(|status| status.to_string()));
        words.extend(self.error.as_deref().map(clean));
        words.join(", ")
    }
}

/// Seconds as a person reads them.
pub(super) fn time(seconds: f64) -> String {
    match seconds {
        seconds if seconds >= 1.0 => format!("{seconds:.2} s"),
        seconds if seconds >= 1e-3 => format!("{:.1} ms", seconds * 1e3),
        seconds => format!("{:.0} us", seconds * 1e6),
    }
}

/// A word of a client or a cell.
pub(super) fn clean(text: &str) -> String {
    shown(text, LABEL_MAX)
}

/// A line of them.
pub(super) fn title(text: &str) -> String {
    shown(text, TITLE_MAX)
}

#[cfg(test)]
mod tests;
