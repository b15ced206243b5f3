//! Artifacts: compiled cells, kept on disk so that a second start compiles nothing.
//!
//! ```text
//! <cache>/key                    the key of all seals
//! <cache>/seals/<id>             which file holds the artifact, and its tag
//! <cache>/code/...               the artifacts, in the layout of wasmtime's own cache
//! <cache>/new-<pid>-<n>/         where a child compiles to, until the result is sealed
//! <cache>/oci/<digits>           what was pulled from registries (`oci.rs`)
//! ```
//!
//! - `<id>` is the SHA-256 of the component and a digest of wasmtime's version and all its settings.
//! - An artifact is loaded only with a seal that fits; one that was changed, cut or forged is deleted and made anew.
//! - wasmtime's cache does the reading and writing, because its way in needs no `unsafe` on our side
//!   (`docs/decisions/0002-artifact-cache.md`).

use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use wasmtime::component::Component;
use wasmtime::{Cache, CacheConfig};

use super::compile::{CompileError, Compiler};
use super::engine::HostEngine;
use super::oci::{self, OciError, Reference, RegistrySettings};
use super::seal::{SealError, Sealer, hex, sha256_hex};

/// The artifact cache in one folder.
pub struct ArtifactCache {
    dir: PathBuf,
    sealer: Sealer,
    compiler: Compiler,
    registry: RegistrySettings,
}

impl std::fmt::Debug for ArtifactCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ArtifactCache").field("dir", &self.dir).finish_non_exhaustive()
    }
}

/// Why there is no artifact.
#[derive(Debug, thiserror::Error)]
pub enum ArtifactError {
    /// The cache folder.
    #[error(transparent)]
    Folder(#[from] SealError),
    /// The compiler, or the component.
    #[error(transparent)]
    Compile(#[from] CompileError),
    /// wasmtime's cache was refused its folder.
    #[error("cannot use the cache folder {path}")]
    Cache {
        /// The folder.
        path: PathBuf,
        /// What wasmtime said.
        #[source]
        source: wasmtime::Error,
    },
    /// wasmtime did not take the artifact or the component.
    #[error("cannot load the compiled component")]
    Load(#[source] wasmtime::Error),
}

/// A component and how it came here.
#[derive(Clone)]
pub(super) struct Loaded {
    pub(super) component: Component,
    /// The artifact was not in the cache.
    pub(super) compiled: bool,
}

/// A seal as it stands on disk: `<file> <tag in hexadecimal>`.
struct Seal {
    file: String,
    tag: String,
}

impl ArtifactCache {
    /// Opens the cache in `dir`, made if it is not there.
    ///
    /// # Errors
    /// [`ArtifactError::Folder`] if the folder cannot be used or others can write to it.
    pub fn open(dir: &Path, compiler: Compiler) -> Result<Self, ArtifactError> {
        let sealer = Sealer::open(dir)?;
        let dir = fs::canonicalize(dir).map_err(SealError::io(dir))?;
        let seals = dir.join("seals");
        fs::create_dir_all(&seals).map_err(SealError::io(&seals))?;
        Ok(Self { dir, sealer, compiler, registry: RegistrySettings::default() })
    }

    /// Where components come from a registry, it is spoken to in this way.
    #[must_use]
    pub fn with_registry(mut self, registry: RegistrySettings) -> Self {
        self.registry = registry;
        self
    }

    /// The component that `reference` names, pulled if it is not here.
    ///
    /// # Errors
    /// [`OciError`]: why it was not had.
    pub(super) fn pulled(&self, reference: &Reference) -> Result<Vec<u8>, OciError> {
        oci::component(reference, &self.dir, &self.registry, self.compiler.component_bytes_max())
    }

    /// The cache that the serving engine has to be made with.
    ///
    /// # Errors
    /// [`ArtifactError::Cache`] if the folder cannot be used.
    pub fn for_engine(&self) -> Result<Cache, ArtifactError> {
        wasmtime_cache(&self.code_dir())
    }

    /// Loads `component`; compiles it in a child process first if there is no sealed artifact. Services with the same
    /// component share one copy of its machine code.
    ///
    /// # Errors
    /// [`ArtifactError`]: the child failed or hit its limits, or the result cannot be kept.
    pub(super) fn load(&self, engine: &HostEngine, component: &[u8]) -> Result<Loaded, ArtifactError> {
        let id = artifact_id(engine, component);
        if let Some(component) = engine.loaded(&id) {
            return Ok(Loaded { component, compiled: false });
        }
        let compiled = !self.is_sealed(&id);
        if compiled {
            self.forget(&id);
            self.compile(&id, component)?;
        }
        let component = Component::new(engine.wasmtime(), component).map_err(ArtifactError::Load)?;
        engine.keep(id, &component);
        Ok(Loaded { component, compiled })
    }

    /// Whether `component` was compiled with the settings of `engine` and is still as it was then.
    #[must_use]
    pub fn has(&self, engine: &HostEngine, component: &[u8]) -> bool {
        self.is_sealed(&artifact_id(engine, component))
    }

    fn is_sealed(&self, id: &str) -> bool {
        let Some(seal) = self.read_seal(id) else { return false };
        let Ok(bytes) = fs::read(self.code_dir().join(&seal.file)) else { return false };
        unhex(&seal.tag).is_some_and(|tag| self.sealer.is_sealed(id, &seal.file, &bytes, &tag))
    }

    /// Drops what is there under `id`, so that wasmtime cannot load it.
    fn forget(&self, id: &str) {
        if let Some(seal) = self.read_seal(id) {
            tracing::warn!(artifact = id, "compiled cell does not fit its seal: compiling it again");
            // A file that is already gone is what we want.
            let _ = fs::remove_file(self.code_dir().join(seal.file));
        }
        let _ = fs::remove_file(self.seal_path(id));
    }

    fn compile(&self, id: &str, component: &[u8]) -> Result<(), ArtifactError> {
        let scratch = self.scratch_dir();
        let result = self
            .compiler
            .compile(component, &scratch)
            .map_err(ArtifactError::from)
            .and_then(|()| self.keep(id, &scratch));
        // Left-overs cost disk, nothing else; the next start uses another folder.
        let _ = fs::remove_dir_all(&scratch);
        result
    }

    /// Seals the one file that a child left in `scratch` and moves it to the others.
    fn keep(&self, id: &str, scratch: &Path) -> Result<(), ArtifactError> {
        let file = only_artifact(scratch).map_err(SealError::io(scratch))?;
        let (from, to) = (scratch.join(&file), self.code_dir().join(&file));
        let bytes = fs::read(&from).map_err(SealError::io(&from))?;
        let tag = self.sealer.tag(id, &file, &bytes);
        if let Some(parent) = to.parent() {
            fs::create_dir_all(parent).map_err(SealError::io(parent))?;
        }
        fs::rename(&from, &to).map_err(SealError::io(&to))?;
        self.write_seal(id, &format!("{file} {}\n", hex(&tag)))
    }

    fn write_seal(&self, id: &str, text: &str) -> Result<(), ArtifactError> {
        let path = self.seal_path(id);
        let draft = path.with_extension(format!("new-{}", std::process::id()));
        fs::write(&draft, text).map_err(SealError::io(&draft))?;
        Ok(fs::rename(&draft, &path).map_err(SealError::io(&path))?)
    }

    fn read_seal(&self, id: &str) -> Option<Seal> {
        let text = fs::read_to_string(self.seal_path(id)).ok()?;
        let (file, tag) = text.trim_end().rsplit_once(' ')?;
        // A seal that points out of the folder is no seal.
        let inside = Path::new(file).components().all(|part| matches!(part, std::path::Component::Normal(_)));
        inside.then(|| Seal { file: file.to_owned(), tag: tag.to_owned() })
    }

    fn seal_path(&self, id: &str) -> PathBuf {
        self.dir.join("seals").join(id)
    }

    fn code_dir(&self) -> PathBuf {
        self.dir.join("code")
    }

    fn scratch_dir(&self) -> PathBuf {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        self.dir.join(format!("new-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)))
    }
}

/// wasmtime's cache in `dir`, set up to leave files as they were written: a file that is packed again later
/// would no longer fit its seal.
pub(super) fn wasmtime_cache(dir: &Path) -> Result<Cache, ArtifactError> {
    let mut config = CacheConfig::new();
    config.with_directory(dir).with_optimized_compression_usage_counter_threshold(u64::MAX);
    Cache::new(config).map_err(|source| ArtifactError::Cache { path: dir.to_owned(), source })
}

/// Names what is compiled, by which wasmtime, with which settings.
fn artifact_id(engine: &HostEngine, component: &[u8]) -> String {
    let mut settings = DefaultHasher::new();
    engine.wasmtime().precompile_compatibility_hash().hash(&mut settings);
    format!("{}-{:016x}", sha256_hex(component), settings.finish())
}

/// The path, relative to `dir`, of the artifact in a cache that one compilation has filled.
fn only_artifact(dir: &Path) -> std::io::Result<String> {
    let modules = dir.join("modules");
    let version = fs::read_dir(&modules)?.next().ok_or(std::io::ErrorKind::NotFound)??;
    for entry in fs::read_dir(version.path())? {
        let entry = entry?;
        let name = entry.file_name();
        if entry.file_type()?.is_file() && Path::new(&name).extension().is_none() {
            return Ok(format!("modules/{}/{}", version.file_name().display(), name.display()));
        }
    }
    Err(std::io::ErrorKind::NotFound.into())
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    if !digits.len().is_multiple_of(2) {
        return None;
    }
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}
