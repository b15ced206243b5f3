//! `cellmesh k8s`: an application's manifests, for `kubectl apply -f -`.
//!
//! ```text
//! App, options --> plan (names, sums, what is wrong, what to tell) --> settings (the file as pods read it)
//!                                                                  '-> objects, pods (JSON values) --> YAML
//! ```
//!
//! - The same objects as `deploy/kustomize` has for the example: `deploy/check/agreement.py` holds one against the other.
//! - Objects are values, not text with holes: what is a string stays one, whatever it says.
//! - Pure but for the file that an app.toml may name beside itself. What cannot work is refused with all that is wrong; what works
//!   otherwise than somebody might expect is a note, for standard error.
//! - Not here: autoscaling, Ingress and Gateways, TLS, monitoring. They have no key in either format.

mod objects;
mod plan;
mod pods;
mod settings;

use std::io::{self, Write};
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde_json::Value;

use crate::config::{App, Overrides, Part, Problems};
use plan::Plan;

/// What is rendered, and for where.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// The application: app.toml or workmodel.json.
    pub file: PathBuf,
    /// What shares a pod.
    #[arg(long, value_enum, default_value_t = Mode::Pod)]
    pub mode: Mode,
    /// What the application is called: app.kubernetes.io/instance [default: what the file says].
    #[arg(long)]
    pub name: Option<String>,
    /// Its namespace; that of the daemons of --mode node is NAMESPACE-system [default: what the file says, or cellmesh].
    #[arg(long)]
    pub namespace: Option<String>,
    /// The image, with the cells in its folder /cells [default: the one of this release, with the cells that come with it].
    #[arg(long)]
    pub image: Option<String>,
}

impl Options {
    /// No file is needed here but the config itself: the others are in the image.
    #[must_use]
    pub fn overrides(&self) -> Overrides {
        Overrides { part: Part::Dpa, ..Overrides::default() }
    }
}

/// What shares a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// Everything, as one process.
    Solo,
    /// Everything, each service and each daemon in a container of its own.
    Pod,
    /// Nothing: a daemon for each node, workers in pods of their own.
    Node,
}

impl Mode {
    /// As the command line writes it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Solo => "solo",
            Self::Pod => "pod",
            Self::Node => "node",
        }
    }
}

/// The manifests, and what to tell whoever asked for them.
#[derive(Debug, Clone)]
pub struct Rendered {
    /// Objects, in the order in which they are to be made.
    pub objects: Vec<Value>,
    /// What may be otherwise than expected.
    pub notes: Vec<String>,
    heading: String,
}

/// Renders the manifests of `app`.
///
/// # Errors
/// [`Problems`]: everything that cannot become an object or would not run, with what would be right.
pub fn render(app: &App, options: &Options) -> Result<Rendered, Problems> {
    let (plan, notes) = Plan::make(app, options)?;
    let heading = format!(
        "# {}: {} services, --mode {}. Rendered by cellmesh k8s {}.\n",
        plan.name,
        plan.services.len(),
        plan.mode.name(),
        env!("CARGO_PKG_VERSION"),
    );
    Ok(Rendered { objects: objects::all(&plan), notes, heading })
}

impl Rendered {
    /// Notes to standard error, YAML to standard output.
    ///
    /// # Errors
    /// When standard output cannot be written.
    pub fn print(&self) -> anyhow::Result<()> {
        for note in &self.notes {
            eprintln!("cellmesh: note: {note}");
        }
        let mut out = io::stdout().lock();
        out.write_all(self.yaml().as_bytes())?;
        Ok(out.flush()?)
    }

    /// One document for each object.
    #[must_use]
    pub fn yaml(&self) -> String {
        let mut text = self.heading.clone();
        for object in &self.objects {
            text.push_str("---\n");
            text.push_str(
                &serde_saphyr::to_string(object).expect("JSON values have text as keys, and no cycles"),
            );
        }
        text
    }
}

#[cfg(test)]
mod tests;
