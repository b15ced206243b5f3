//! Compiling in a child process: `cellmesh compile-cell` reads a component from its standard input and leaves the
//! artifact in a folder.
//!
//! A hostile component may send a compiler into a spin or blow up its memory; the child has limits on both and
//! the process that serves requests only reads its exit status.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, setrlimit};
use wasmtime::component::Component;

use super::artifacts::wasmtime_cache;
use super::engine::HostEngine;

/// What one compilation may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompileLimits {
    /// Size of the component file.
    pub component_bytes_max: usize,
    /// Processor time of the child, whole seconds, all threads together.
    pub cpu_seconds_max: u64,
    /// Address space of the child.
    pub memory_bytes_max: u64,
    /// Time from start to end.
    pub wall_max: Duration,
}

impl Default for CompileLimits {
    /// Roomy enough for a Python component (18 MiB, nine seconds), small enough for a laptop.
    fn default() -> Self {
        Self {
            component_bytes_max: 64 << 20,
            cpu_seconds_max: 120,
            memory_bytes_max: 4 << 30,
            wall_max: Duration::from_secs(180),
        }
    }
}

/// Why a component was not compiled.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// Not even tried.
    #[error("the component has {found} bytes: at most {max} are compiled")]
    TooLarge {
        /// Its size.
        found: usize,
        /// The limit.
        max: usize,
    },
    /// The child could not be started or read.
    #[error("cannot run the compiler as a child process")]
    Child(#[source] io::Error),
    /// The component is not one, or asks for what is not supported.
    #[error("{0}")]
    Refused(String),
    /// The child was ended by a limit.
    #[error(
        "the compiler was stopped ({status}): it may take {cpu_seconds} s of processor time and {memory_bytes} bytes; a \
         container may have less memory than that"
    )]
    Limit {
        /// How it ended.
        status: ExitStatus,
        /// The limit on time.
        cpu_seconds: u64,
        /// The limit on memory.
        memory_bytes: u64,
    },
}

/// The program that compiles, as a child process.
#[derive(Debug, Clone)]
pub struct Compiler {
    program: PathBuf,
    limits: CompileLimits,
}

impl Compiler {
    /// `program` has to be cellmesh.
    #[must_use]
    pub fn new(program: PathBuf, limits: CompileLimits) -> Self {
        Self { program, limits }
    }

    /// The running program: under `/proc` it can be started even when its file was replaced meanwhile.
    ///
    /// # Errors
    /// When the system does not know which program is running.
    pub fn this_program(limits: CompileLimits) -> io::Result<Self> {
        let own = PathBuf::from("/proc/self/exe");
        let program = if own.exists() { own } else { std::env::current_exe()? };
        Ok(Self { program, limits })
    }

    /// Longest component.
    pub(super) fn component_bytes_max(&self) -> usize {
        self.limits.component_bytes_max
    }

    /// Compiles `component` into the wasmtime cache folder `dir`.
    pub(super) fn compile(&self, component: &[u8], dir: &Path) -> Result<(), CompileError> {
        let limits = self.limits;
        if component.len() > limits.component_bytes_max {
            return Err(CompileError::TooLarge { found: component.len(), max: limits.component_bytes_max });
        }
        let mut child = self.start(dir).map_err(CompileError::Child)?;
        feed(&mut child, component);
        let status = wait(&mut child, limits.wall_max).map_err(CompileError::Child)?;
        if status.success() {
            return Ok(());
        }
        Err(why_it_failed(&mut child, status, limits))
    }

    fn start(&self, dir: &Path) -> io::Result<Child> {
        Command::new(&self.program)
            .arg("compile-cell")
            .arg(dir)
            .arg(self.limits.cpu_seconds_max.to_string())
            .arg(self.limits.memory_bytes_max.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
    }
}

/// A child that ends early closes its end; its exit status says why, so the write error does not matter.
fn feed(child: &mut Child, component: &[u8]) {
    if let Some(mut stdin) = child.stdin.take() {
        let _ = stdin.write_all(component);
    }
}

fn wait(child: &mut Child, wall_max: Duration) -> io::Result<ExitStatus> {
    /// How often a compilation that takes tens of milliseconds to seconds is looked at.
    const POLL: Duration = Duration::from_millis(2);
    let deadline = Instant::now() + wall_max;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if Instant::now() >= deadline {
            child.kill()?;
            return child.wait();
        }
        std::thread::sleep(POLL);
    }
}

fn why_it_failed(child: &mut Child, status: ExitStatus, limits: CompileLimits) -> CompileError {
    /// An exit status of our own: the component was at fault and standard error says how.
    const REFUSED: i32 = COMPILE_REFUSED as i32;
    if status.code() != Some(REFUSED) {
        let (cpu_seconds, memory_bytes) = (limits.cpu_seconds_max, limits.memory_bytes_max);
        return CompileError::Limit { status, cpu_seconds, memory_bytes };
    }
    let mut text = String::new();
    if let Some(stderr) = child.stderr.take() {
        // What cannot be read is not in the message; the status is.
        let _ = stderr.take(4096).read_to_string(&mut text);
    }
    CompileError::Refused(text.trim().replace('\n', ": "))
}

/// Exit status of the child when the component, not a limit, was at fault.
const COMPILE_REFUSED: u8 = 3;

/// What `cellmesh compile-cell` does. Returns the exit status.
#[must_use]
pub fn compile_child_main(dir: &Path, cpu_seconds_max: u64, memory_bytes_max: u64) -> u8 {
    match compile_here(dir, cpu_seconds_max, memory_bytes_max) {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("{error:#}");
            COMPILE_REFUSED
        }
    }
}

fn compile_here(dir: &Path, cpu_seconds_max: u64, memory_bytes_max: u64) -> anyhow::Result<()> {
    limit(Resource::Cpu, cpu_seconds_max)?;
    limit(Resource::As, memory_bytes_max)?;
    limit(Resource::Core, 0)?;
    let mut component = Vec::new();
    io::stdin().lock().read_to_end(&mut component)?;
    let engine = HostEngine::compiling(wasmtime_cache(dir)?)?;
    Component::new(engine.wasmtime(), &component).map_err(anyhow::Error::from)?;
    Ok(())
}

fn limit(resource: Resource, value: u64) -> io::Result<()> {
    setrlimit(resource, Rlimit { current: Some(value), maximum: Some(value) }).map_err(io::Error::from)
}
