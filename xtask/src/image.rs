//! `cargo xtask image`: one image with the one program, on nothing else.
//!
//! ```text
//! program, cells, SBOM (dist) --+--> target/image (the context) --> buildah --> NAME:VERSION
//! CA certificates --------------+
//! ```
//!
//! - The same commit, compiler and CA certificates give the same image: what is built is the same in every checkout ([`dist`]), files have
//!   fixed modes, and times are zero.
//! - musl would be linked statically too, but is no first tier of wasmtime.
//! - Not here: what the image is made of and how it is started (`deploy/Containerfile`), pushing and signing it.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::dist::{Dist, Parts};
use crate::workspace::{Metadata, Workspace};
use crate::{command, dist};

/// Cells that come with the image: the example's, and what serves a muBench application.
const CELLS: [&str; 3] = ["fanout", "hello", "mubench"];

/// Where distributions keep the certificates of the CAs that they trust: Debian, then Fedora, then SUSE and Alpine.
const CA_BUNDLES: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem"];

/// Nobody that a host knows; `runAsNonRoot` of Kubernetes wants a number.
const PASSWD: &str = "root:x:0:0:root:/:/sbin/nologin\ncellmesh:x:65532:65532:cellmesh:/:/sbin/nologin\n";
const GROUP: &str = "root:x:0:\ncellmesh:x:65532:\n";

const FILE: u32 = 0o644;
const PROGRAM: u32 = 0o755;
const FOLDER: u32 = 0o755;

#[derive(Args)]
pub(crate) struct Options {
    /// Name and tag [default: cellmesh, with the version of the workspace].
    #[arg(long)]
    tag: Option<String>,
    /// Where the source is, for the image's labels [default: `repository` of the package, or the remote `origin` over HTTPS].
    #[arg(long)]
    source: Option<String>,
    /// A program that was built before, statically linked, instead of building one.
    #[arg(long)]
    program: Option<PathBuf>,
}

/// Stages the context and builds the image, or says how to where buildah is not installed.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<ExitCode> {
    let read = |path: &Path| fs::read(path).with_context(|| format!("cannot read {}", path.display()));
    let parts = if options.program.is_some() { Parts::WithoutProgram } else { Parts::All };
    let dist = dist::build(workspace, parts)?;
    let program = options.program.as_ref().or(dist.program.as_ref()).context("the program was built")?;
    let bytes = read(program)?;
    ensure!(
        interpreter(&bytes)?.is_none(),
        "{} needs shared libraries, which the image does not have: build it with `-C target-feature=+crt-static`",
        program.display()
    );
    let context = workspace.target.join("image");
    stage(workspace, &dist, &context, &bytes)?;
    let labels = Labels::of(workspace, options.source.as_deref())?;
    let tag = options.tag.clone().unwrap_or_else(|| format!("cellmesh:{}", labels.version));
    if !command::succeeds(Command::new("buildah").arg("--version")) {
        println!(
            "the context is in {}; buildah is not installed, so build it with one of",
            context.display()
        );
        for engine in ["podman build --timestamp 0", "docker build"] {
            println!("  {engine} {} {}", labels.arguments(&tag).join(" "), context.display());
        }
        return Ok(ExitCode::SUCCESS);
    }
    let mut buildah = Command::new("buildah");
    buildah.args(["build", "--isolation", "chroot", "--timestamp", "0"]);
    command::run(buildah.args(labels.arguments(&tag)).arg(&context))?;
    println!("{tag}");
    Ok(ExitCode::SUCCESS)
}

/// Makes the context anew: `rootfs` is what the image has.
fn stage(workspace: &Workspace, dist: &Dist, context: &Path, program: &[u8]) -> Result<()> {
    if context.exists() {
        fs::remove_dir_all(context).with_context(|| format!("cannot remove {}", context.display()))?;
    }
    let read = |path: &Path| fs::read(path).with_context(|| format!("cannot read {}", path.display()));
    let deploy = workspace.root.join("deploy");
    let rootfs = context.join("rootfs");
    place(&context.join("Containerfile"), FILE, &read(&deploy.join("Containerfile"))?)?;
    place(&rootfs.join("cellmesh"), PROGRAM, program)?;
    for cell in CELLS {
        let name = format!("{cell}.wasm");
        place(&rootfs.join("cells").join(&name), FILE, &read(&dist.cells.join(&name))?)?;
    }
    place(&rootfs.join("etc/cellmesh/app.toml"), FILE, &read(&deploy.join("kustomize/base/app.toml"))?)?;
    place(&rootfs.join("etc/passwd"), FILE, PASSWD.as_bytes())?;
    place(&rootfs.join("etc/group"), FILE, GROUP.as_bytes())?;
    place(&rootfs.join("etc/ssl/certs/ca-certificates.crt"), FILE, &read(ca_bundle()?)?)?;
    place(&rootfs.join("usr/share/cellmesh/LICENSE"), FILE, &read(&workspace.root.join("LICENSE"))?)?;
    place(&rootfs.join("usr/share/cellmesh/sbom.cdx.json"), FILE, &read(&dist.sbom)?)?;
    // Who runs the image without volumes has these; with a read-only root they are where volumes go.
    for folder in ["tmp", "run/cellmesh", "var/cache/cellmesh"] {
        make(&context.join("owned").join(folder))?;
    }
    Ok(())
}

fn ca_bundle() -> Result<&'static Path> {
    let found = CA_BUNDLES.iter().map(Path::new).find(|path| path.is_file());
    found.context("this machine has no CA certificates: install the package ca-certificates")
}

/// Writes a file whose mode is not that of our umask, and the folders above it.
fn place(path: &Path, mode: u32, bytes: &[u8]) -> Result<()> {
    make(path.parent().expect("files of the context lie in folders"))?;
    fs::write(path, bytes)
        .and_then(|()| fs::set_permissions(path, Permissions::from_mode(mode)))
        .with_context(|| format!("cannot write {}", path.display()))
}

/// Makes a folder and those above it, as [`place`] does files.
fn make(folder: &Path) -> Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    make(folder.parent().context("a path with a root")?)?;
    fs::create_dir(folder)
        .and_then(|()| fs::set_permissions(folder, Permissions::from_mode(FOLDER)))
        .with_context(|| format!("cannot make {}", folder.display()))
}

/// What differs from one image to the next, and is said in its labels.
struct Labels {
    version: &'static str,
    revision: String,
    created: String,
    /// None if nothing says it: an empty label would be wrong.
    source: Option<String>,
}

impl Labels {
    fn of(workspace: &Workspace, source: Option<&str>) -> Result<Self> {
        let git = |args: &[&str]| {
            let mut git = Command::new("git");
            git.current_dir(&workspace.root).args(args).env("TZ", "UTC");
            command::capture(&mut git).map(|text| text.trim().to_owned())
        };
        let changed = !git(&["status", "--porcelain", "--untracked-files=no"])?.is_empty();
        let commit = git(&["rev-parse", "HEAD"])?;
        let source = match source.map(str::to_owned).or(repository(workspace)?) {
            Some(source) => Some(source),
            None if git(&["remote"])?.lines().any(|name| name == "origin") => {
                Some(git(&["remote", "get-url", "origin"])?).filter(|origin| is_public(origin))
            }
            None => None,
        };
        Ok(Self {
            version: env!("CARGO_PKG_VERSION"),
            revision: if changed { format!("{commit}-dirty") } else { commit },
            created: git(&["log", "-1", "--format=%cd", "--date=format-local:%Y-%m-%dT%H:%M:%SZ"])?,
            source,
        })
    }

    fn arguments(&self, tag: &str) -> Vec<String> {
        let Self { version, revision, created, source } = self;
        let values = [("VERSION", *version), ("REVISION", revision), ("CREATED", created)];
        let arguments = values.map(|(name, value)| format!("--build-arg={name}={value}"));
        let source = source.iter().map(|source| format!("--label=org.opencontainers.image.source={source}"));
        [format!("--tag={tag}")].into_iter().chain(arguments).chain(source).collect()
    }
}

/// Where the manifest says that the source is.
fn repository(workspace: &Workspace) -> Result<Option<String>> {
    let packages = Metadata::of(&workspace.root.join("Cargo.toml"))?.packages;
    Ok(packages.into_iter().find(|package| package.name == "cellmesh").and_then(|package| package.repository))
}

/// Whether others can read this address of a repository, and nobody's token is in it.
fn is_public(url: &str) -> bool {
    url.strip_prefix("https://").is_some_and(|rest| !rest.contains('@'))
}

/// The dynamic linker that a program asks for: none if it needs no shared library.
///
/// # Errors
/// When it is no program of 64 bits for Linux, least significant byte first.
fn interpreter(elf: &[u8]) -> Result<Option<String>> {
    const PT_INTERP: u64 = 3;
    let number = |at: usize, bytes: usize| -> Result<u64> {
        let field = elf.get(at..at + bytes).context("the program is cut off")?;
        Ok(field.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)))
    };
    ensure!(elf.starts_with(b"\x7fELF\x02\x01"), "not a program of 64 bits for Linux");
    let (table, size, count) = (number(32, 8)?, number(54, 2)?, number(56, 2)?);
    for index in 0..count {
        let header = usize::try_from(table + index * size)?;
        if number(header, 4)? == PT_INTERP {
            let (at, bytes) =
                (usize::try_from(number(header + 8, 8)?)?, usize::try_from(number(header + 32, 8)?)?);
            let path = elf.get(at..at + bytes).context("the program is cut off")?;
            return Ok(Some(String::from_utf8_lossy(path).trim_end_matches('\0').to_owned()));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// This test program is linked dynamically, which an image on nothing cannot start.
    #[test]
    fn dynamic_program_is_told_from_a_static_one() {
        let own = fs::read(std::env::current_exe().unwrap()).unwrap();
        assert!(interpreter(&own).unwrap().unwrap().starts_with("/lib"));
        // A header with no program headers: nothing to interpret.
        let mut empty = own[..64].to_vec();
        empty[56..58].fill(0);
        assert_eq!(interpreter(&empty).unwrap(), None);
        assert!(interpreter(&own[..64]).is_err());
        assert!(interpreter(b"#!/bin/sh").is_err());
    }

    /// Modes are those of the image, whatever the umask of who builds it.
    #[test]
    fn staged_files_have_fixed_modes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("one/two/program");
        place(&path, PROGRAM, b"x").unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (PROGRAM, FOLDER));
    }

    /// What an engine is told: the tag, and a value for each argument of the Containerfile.
    #[test]
    fn labels_are_arguments_of_the_containerfile() {
        let labels = Labels {
            version: "1.2.3",
            revision: "abc".into(),
            created: "2026-01-02T03:04:05Z".into(),
            source: None,
        };
        let arguments = labels.arguments("cellmesh:1.2.3");
        let containerfile = include_str!("../../deploy/Containerfile");
        for argument in arguments.iter().filter_map(|argument| argument.strip_prefix("--build-arg=")) {
            let name = argument.split('=').next().unwrap();
            assert!(containerfile.contains(&format!("ARG {name}")), "{name}");
        }
        assert_eq!(arguments[0], "--tag=cellmesh:1.2.3");
        let is_source = |argument: &String| argument.contains("image.source");
        assert!(!arguments.iter().any(is_source) && !containerfile.contains("image.source"), "{arguments:?}");
        let known = Labels { source: Some("https://example.com/cellmesh".into()), ..labels };
        let source = "--label=org.opencontainers.image.source=https://example.com/cellmesh";
        assert!(known.arguments("t").iter().any(|argument| argument == source));
    }

    /// A label is read by everybody: neither tokens nor folders of this machine get there.
    #[test]
    fn source_is_an_address_for_everybody() {
        assert!(is_public("https://example.com/cellmesh.git"));
        for url in ["https://me:token@example.com/cellmesh", "/srv/cellmesh", "git@example.com:cellmesh", ""]
        {
            assert!(!is_public(url), "{url}");
        }
    }
}
