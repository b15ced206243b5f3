//! `cellmesh replay`: a recorded request is run again, in isolation, against the cell as it is now.
//!
//! ```text
//! recording --request--> cell --graph--> engine --internal steps--> cell
//!                                          '--egress steps--> the recorded answers
//! the recorded course  <--- compared --->  the new course
//! ```
//!
//! - Nothing leaves: a call to another service gets the answer that the recording has for that step, in its order.
//! - Steps run one after the other; a graph comes to the same response in whatever order its results come.
//! - A cell that draws numbers or looks at a clock differs from itself: the comparison says where.

mod compare;
mod drive;

use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::Args;

use crate::config::{self, App, Overrides};
use crate::inspect::{read_json, say};
use crate::mesh::Mesh;
use crate::trace::{FORM, Recording};

/// What is run again, and against what.
#[derive(Debug, Args)]
pub struct Options {
    /// The recording: an answer of /v1/requests/ID/recording; - is standard input.
    pub recording: PathBuf,
    /// The application whose cell it is run against: app.toml or workmodel.json.
    pub file: PathBuf,
    /// The service [default: the recording's].
    #[arg(long)]
    pub service: Option<String>,
    /// Folder for compiled cells [default: ~/.cache/cellmesh].
    #[arg(long, env = "CELLMESH_CACHE_DIR")]
    pub cache_dir: Option<PathBuf>,
    /// Folder with the cells that come with cellmesh [default: beside the program].
    #[arg(long, env = "CELLMESH_CELLS")]
    pub cells_dir: Option<PathBuf>,
    /// Writes the new course as a recording to standard output, instead of the comparison.
    #[arg(long)]
    pub json: bool,
}

impl Options {
    /// What the command line says on top of the file.
    #[must_use]
    pub fn overrides(&self) -> Overrides {
        Overrides {
            cache_dir: self.cache_dir.clone(),
            cells_dir: self.cells_dir.clone(),
            ..Overrides::default()
        }
    }
}

/// Runs it, and says what is not as it was. The answer: whether all is.
///
/// # Errors
/// The recording cannot be read, the service is not in the file, its cell does not load, or standard output cannot be written.
pub fn run(options: &Options, app: &App) -> anyhow::Result<bool> {
    let recording: Recording =
        read_json(&options.recording, "a recording, as /v1/requests/ID/recording answers it")?;
    if recording.cellmesh_recording != FORM {
        bail!("a recording of form {}: this program reads form {FORM}", recording.cellmesh_recording);
    }
    let service = options.service.as_deref().unwrap_or(&recording.service);
    let spec = app.services.iter().find(|spec| *spec.setup.service == *service);
    let spec = spec.with_context(|| {
        let known: Vec<&str> = app.services.iter().map(|spec| &*spec.setup.service).collect();
        format!(
            "{} is no service of {}: --service names one of {}",
            compare::shown(service),
            app.name,
            known.join(", ")
        )
    })?;
    let mesh = Mesh::load(&[spec], &app.runtime, 1)?;
    let cell = &mesh.lanes[0][0].cell;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let course = runtime.block_on(drive::again(cell, &recording))?;
    if options.json {
        let again = Recording { course, service: service.to_owned(), ..recording };
        say(&format!("{}\n", serde_json::to_string_pretty(&again)?))?;
        return Ok(true);
    }
    let differences = compare::compare(&recording.course, &course);
    say(&compare::told(&recording, &course, &differences))?;
    Ok(differences.is_empty())
}

/// Reads the file that a replay is made with.
///
/// # Errors
/// All that is wrong with it.
pub fn load(options: &Options) -> Result<App, config::Problems> {
    config::load(&options.file, &options.overrides())
}
