//! The cells: whether each component can be had, and is one.

use std::path::Path;
use std::sync::Arc;

use rustix::fs::{Access, access};

use super::Finding;
use crate::config::{RuntimeSettings, ServiceSpec};
use crate::host::{
    ArtifactCache, Cell, CompileLimits, Compiler, ComponentSource, HostEngine, LoadError, Scratch, Unfit,
    inspect,
};
use crate::mesh::engine_limits;

/// What is said of a component that is none of a cell.
const BUILD: &str = "build it for wasm32-wasip2 with the guest SDK, or to wit/cell.wit";

/// Looks at each component, once.
///
/// - `compile`: as the first start does, into the cache folder.
pub(super) fn look(services: &[&ServiceSpec], settings: &RuntimeSettings, compile: bool) -> Vec<Finding> {
    let tools = Tools::at_hand(services, settings, compile);
    let mut findings = Vec::new();
    let mut seen: Vec<&ComponentSource> = Vec::new();
    for spec in services {
        let source = &spec.setup.component;
        if !seen.contains(&source) {
            seen.push(source);
            findings.push(component(spec, &tools, compile));
        }
        findings.extend(scratch(spec));
    }
    findings
}

/// What components are pulled into and compiled with, where that is needed or there. Why one of them is not is said of the
/// cache folder, or of the limits.
struct Tools {
    cache: Option<ArtifactCache>,
    engine: Option<HostEngine>,
}

impl Tools {
    fn at_hand(services: &[&ServiceSpec], settings: &RuntimeSettings, compile: bool) -> Self {
        let pulls = services.iter().any(|spec| spec.setup.component.file().is_none());
        if !compile && !pulls && !settings.cache_dir.is_dir() {
            return Self { cache: None, engine: None };
        }
        let compiler = Compiler::this_program(CompileLimits::default()).ok();
        let cache = compiler.and_then(|compiler| ArtifactCache::open(&settings.cache_dir, compiler).ok());
        let cache = cache.map(|cache| cache.with_registry(settings.registry.clone()));
        let artifacts = cache.as_ref().and_then(|cache| cache.for_engine().ok());
        let engine = HostEngine::serving(engine_limits(services, 1), artifacts, &Arc::default()).ok();
        Self { cache, engine }
    }
}

/// One component.
fn component(spec: &ServiceSpec, tools: &Tools, compile: bool) -> Finding {
    let source = &spec.setup.component;
    let bytes = match (source, &tools.cache) {
        (ComponentSource::File(path), _) => read(path),
        (ComponentSource::Registry(_), Some(cache)) => Cell::read(source, cache).map_err(unpulled),
        (ComponentSource::Registry(_), None) => {
            let remedy = "mend the cache folder, into which it is pulled";
            Err(Finding::warning(format!("{source}: was not looked at"), remedy))
        }
    };
    let bytes = match bytes {
        Ok(bytes) => bytes,
        Err(finding) => return finding,
    };
    if let Err(unfit) = inspect(&bytes, &spec.setup.grants) {
        return not_a_cell(source, &unfit);
    }
    let (Some(cache), Some(engine)) = (&tools.cache, &tools.engine) else { return good(source, false) };
    if !compile {
        return good(source, cache.has(engine, &bytes));
    }
    match Cell::load(std::slice::from_ref(engine), cache, spec.setup.clone()) {
        Ok(_) => good(source, true),
        Err(error) => uncompiled(error),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Finding> {
    let max = CompileLimits::default().component_bytes_max;
    let shown = path.display();
    let length = std::fs::metadata(path).map_or(0, |found| found.len());
    if usize::try_from(length).is_ok_and(|length| length > max) {
        let found = format!("{shown}: has {length} bytes, and at most {max} are compiled");
        return Err(Finding::error(found, "strip it of debug information (wasm-tools strip)"));
    }
    std::fs::read(path).map_err(|error| {
        Finding::error(
            format!("{shown}: cannot be read: {error}"),
            "let this user read it, and enter the folders above it",
        )
    })
}

fn good(source: &ComponentSource, is_compiled: bool) -> Finding {
    let compiled = if is_compiled { "compiled already" } else { "compiled at the start" };
    Finding::ok(format!("{source}: a cell, {compiled}"))
}

fn not_a_cell(source: &ComponentSource, unfit: &Unfit) -> Finding {
    let remedy = match unfit {
        Unfit::NoComponent(_) | Unfit::NoHandler => BUILD,
        Unfit::Import(import) if import.starts_with("cellmesh:cell/") => {
            "build it again with the SDK of this version: the contract is cellmesh:cell@0.2 here"
        }
        Unfit::Import(_) => {
            "build it without: a cell may import cellmesh:cell/config, wasi:cli, wasi:clocks, wasi:io, wasi:random and \
             wasi:filesystem; calls to others are steps of its graph"
        }
    };
    Finding::error(format!("{source}: {unfit}"), remedy)
}

/// What the causes say is what would help, too.
fn unpulled(error: LoadError) -> Finding {
    Finding::error(
        chain(error),
        "see docs/registry.md: the digest, who is spoken to without TLS, and credentials",
    )
}

fn uncompiled(error: LoadError) -> Finding {
    Finding::error(chain(error), BUILD)
}

fn chain(error: LoadError) -> String {
    format!("{:#}", anyhow::Error::from(error))
}

/// A folder that the cell is to write into.
fn scratch(spec: &ServiceSpec) -> Option<Finding> {
    let folder = match spec.setup.grants.scratch.as_ref()? {
        Scratch::Folder(path) => path.clone(),
        Scratch::Temporary => std::env::temp_dir(),
    };
    let is_writable = access(&folder, Access::WRITE_OK | Access::EXEC_OK).is_ok();
    Some(scratch_finding(&spec.setup.service, &folder, is_writable))
}

fn scratch_finding(service: &str, folder: &Path, is_writable: bool) -> Finding {
    let shown = folder.display();
    if is_writable {
        return Finding::ok(format!("scratch folder {shown} of {service}: can be written"));
    }
    let remedy =
        format!("let user {} write there, or name another folder", rustix::process::getuid().as_raw());
    Finding::error(format!("scratch folder {shown} of {service}: cannot be written"), remedy)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each kind of component that is none of a cell has its own remedy.
    #[test]
    fn remedies_fit_what_is_wrong() {
        let source = ComponentSource::File("a.wasm".into());
        let said = |unfit| not_a_cell(&source, &unfit).to_string();
        let import = said(Unfit::Import("wasi:http/outgoing-handler@0.2.6".into()));
        assert!(import.starts_with(
            "error: a.wasm: imports wasi:http/outgoing-handler@0.2.6; remedy: build it without"
        ));
        let old = said(Unfit::Import("cellmesh:cell/config@0.1.0".into()));
        assert!(old.contains("remedy: build it again with the SDK of this version"), "{old}");
        assert!(
            said(Unfit::NoHandler)
                .contains("does not export cellmesh:cell/handler@0.2.0; remedy: build it for")
        );
        assert_eq!(good(&source, true).to_string(), "ok: a.wasm: a cell, compiled already");
        let folder = scratch_finding("s", Path::new("/x"), false).to_string();
        assert!(
            folder.starts_with("error: scratch folder /x of s: cannot be written; remedy: let user"),
            "{folder}"
        );
    }
}
