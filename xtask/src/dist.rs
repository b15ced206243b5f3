//! What is shipped: the program without shared libraries, cells, and a list of what the program is made of.
//!
//! The same commit and compiler give the same bytes in every checkout: they are built in one [`place`], and paths that get into them
//! have other names. Where there can be no such place the bytes are those of the checkout's own paths.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use crate::remap::{self, Remap};
use crate::toolchain::Toolchain;
use crate::workspace::{Metadata, Workspace};
use crate::{cells, command, place, wasip2};

/// Where the SBOM of each member is left by cargo-cyclonedx, without the ending.
const SBOM: &str = "cellmesh-image-sbom";

/// What was built, by path.
#[derive(Debug)]
pub(crate) struct Dist {
    /// None if it was not asked for.
    pub(crate) program: Option<PathBuf>,
    /// The folder of the cells.
    pub(crate) cells: PathBuf,
    /// `CycloneDX`, JSON.
    pub(crate) sbom: PathBuf,
}

/// Which parts are built.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Parts {
    All,
    /// Cells and SBOM.
    WithoutProgram,
}

impl Dist {
    fn of(workspace: &Workspace, parts: Parts) -> Result<Self> {
        let host = Toolchain::active(workspace)?.host;
        Ok(Self {
            program: (parts == Parts::All).then(|| workspace.target.join(host).join("dist/cellmesh")),
            cells: workspace.cells(),
            sbom: workspace.target.join("sbom.cdx.json"),
        })
    }

    /// The program, if it was asked for, and each cell.
    fn built(&self) -> Result<Vec<PathBuf>> {
        let mut built = Vec::from_iter(self.program.clone());
        for cell in
            fs::read_dir(&self.cells).with_context(|| format!("cannot read {}", self.cells.display()))?
        {
            built.push(cell?.path());
        }
        built.retain(|path| {
            self.program.as_ref() == Some(path) || path.extension() == Some(OsStr::new("wasm"))
        });
        Ok(built)
    }
}

/// Builds in the place that is the same on every machine, if there can be one here.
pub(crate) fn build(workspace: &Workspace, parts: Parts) -> Result<Dist> {
    // What compiling cells needs is installed outside: inside nobody may be root.
    wasip2::compiler(workspace)?;
    let apart = Workspace { root: workspace.root.clone(), target: workspace.target.join("dist-place") };
    let which = match parts {
        Parts::All => "all",
        Parts::WithoutProgram => "without-program",
    };
    if !place::run(workspace, &apart.target, &["dist", which])? {
        eprintln!(
            "there is no place for it that is the same everywhere: what is built depends on the path of the checkout"
        );
        build_here(&apart, parts)?;
    }
    let dist = Dist::of(&apart, parts)?;
    // Inside, the paths from outside have no other name: none of them may be in what is built.
    let outside = remap::remaps(workspace)?;
    dist.built()?.iter().try_for_each(|built| refuse_paths(built, &outside))?;
    Ok(dist)
}

/// Builds with the paths that `workspace` has.
pub(crate) fn build_here(workspace: &Workspace, parts: Parts) -> Result<()> {
    ensure_cyclonedx(workspace)?;
    // A registry's folder has to be there before it can have another name.
    command::run(workspace.cargo().args(["fetch", "--locked"]))?;
    let dist = Dist::of(workspace, parts)?;
    let compiler = wasip2::compiler(workspace)?;
    let folder = workspace.root.join("cells");
    command::run(compiler.cargo(workspace, &folder, "fetch")?.arg("--locked"))?;
    let remaps = remap::remaps(workspace)?;
    let flags = remaps.iter().map(Remap::rust_flag).collect::<Vec<_>>();
    cells::build_folder(workspace, &compiler, &folder, &dist.cells, &flags)?;
    fs::write(&dist.sbom, sbom(workspace)?)
        .with_context(|| format!("cannot write {}", dist.sbom.display()))?;
    if dist.program.is_some() {
        build_program(workspace, &remaps)?;
    }
    dist.built()?.iter().try_for_each(|built| refuse_paths(built, &remaps))
}

fn refuse_paths(built: &Path, remaps: &[Remap]) -> Result<()> {
    let bytes = fs::read(built).with_context(|| format!("cannot read {}", built.display()))?;
    let leaked = remap::leaked(&bytes, remaps);
    ensure!(leaked.is_empty(), "{} holds paths of this machine: {leaked:?}", built.display());
    Ok(())
}

/// The program with its profile for shipping, glibc linked in.
fn build_program(workspace: &Workspace, remaps: &[Remap]) -> Result<()> {
    let host = Toolchain::active(workspace)?.host;
    ensure!(host.ends_with("-linux-gnu"), "{host} cannot link glibc statically: build on Linux with glibc");
    let variable = host.replace('-', "_");
    let rust_flags = ["-Ctarget-feature=+crt-static".to_owned()].into_iter();
    let rust_flags = rust_flags.chain(remaps.iter().map(Remap::rust_flag)).collect::<Vec<_>>();
    let c_flags = remaps.iter().map(Remap::c_flag).collect::<Vec<_>>();
    let mut cargo = workspace.cargo();
    cargo.args(["build", "--locked", "--profile", "dist", "--package", "cellmesh", "--target", &host]);
    // Flags for the program alone: what runs while it is built is for another target, and stays dynamic.
    cargo.env("CARGO_ENCODED_RUSTFLAGS", rust_flags.join("\u{1f}"));
    cargo.env(format!("CFLAGS_{variable}"), c_flags.join(" "));
    // C code of the allocator has date and time in it.
    cargo.env("SOURCE_DATE_EPOCH", "0");
    // Symbols stay, for the names in a backtrace; line tables would double the image.
    cargo.env("CARGO_PROFILE_DIST_DEBUG", "false");
    command::run(&mut cargo)
}

/// Before what takes minutes.
fn ensure_cyclonedx(workspace: &Workspace) -> Result<()> {
    if !command::succeeds(workspace.cargo().args(["cyclonedx", "--version"])) {
        bail!("`cargo cyclonedx` is not installed: run `cargo install cargo-cyclonedx --locked`");
    }
    Ok(())
}

/// What the program is made of, as CycloneDX.
fn sbom(workspace: &Workspace) -> Result<String> {
    let host = Toolchain::active(workspace)?.host;
    let manifest = workspace.root.join("runtime/Cargo.toml");
    let mut cargo = workspace.cargo();
    cargo.args(["cyclonedx", "--format", "json", "--spec-version", "1.5", "--no-build-deps"]);
    cargo.args(["--target", &host, "--override-filename", SBOM, "--quiet", "--manifest-path"]).arg(&manifest);
    // Neither the time nor a random serial number then.
    let made = command::run(cargo.env("SOURCE_DATE_EPOCH", "0"));
    // It writes one beside the manifest of each member.
    let mut found = None;
    for package in Metadata::of(&manifest)?.packages {
        let folder = package.manifest_path.parent().context("a manifest lies in a folder")?;
        for entry in fs::read_dir(folder)?.flatten() {
            if entry.file_name().to_string_lossy().starts_with(SBOM) {
                let text = fs::read_to_string(entry.path())?;
                fs::remove_file(entry.path())?;
                found = found.or((package.name == "cellmesh").then_some(text));
            }
        }
    }
    made?;
    let text = found.context("cargo-cyclonedx wrote nothing about cellmesh")?;
    Ok(text.replace(&*workspace.root.to_string_lossy(), "/cellmesh"))
}
