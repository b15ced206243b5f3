//! `cargo xtask image`: one image with the one program, on nothing else.
//!
//! ```text
//! cargo build, glibc linked in --+
//! cells, CA certificates --------+--> target/image (the context) --> buildah --> NAME:VERSION
//! SBOM of cargo-cyclonedx -------+
//! ```
//!
//! - The same commit, compiler and CA certificates give the same image: files have fixed modes, times are zero, and no path of the
//!   machine that builds gets into the program or the SBOM.
//! - musl would be linked statically too, but is no first tier of wasmtime.
//! - Not here: what the image is made of and how it is started (`deploy/Containerfile`), pushing and signing it.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;

use crate::toolchain::Toolchain;
use crate::workspace::{Metadata, Workspace};
use crate::{cells, command};

/// Cells that come with the image: the example's, and what serves a muBench application.
const CELLS: [&str; 3] = ["fanout", "hello", "mubench"];

/// Where distributions keep the certificates of the CAs that they trust: Debian, then Fedora, then SUSE and Alpine.
const CA_BUNDLES: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem"];

/// Nobody that a host knows; `runAsNonRoot` of Kubernetes wants a number.
const PASSWD: &str = "root:x:0:0:root:/:/sbin/nologin\ncellmesh:x:65532:65532:cellmesh:/:/sbin/nologin\n";
const GROUP: &str = "root:x:0:\ncellmesh:x:65532:\n";

/// Where the SBOM of each member is left by cargo-cyclonedx, without the ending.
const SBOM: &str = "cellmesh-image-sbom";

const FILE: u32 = 0o644;
const PROGRAM: u32 = 0o755;
const FOLDER: u32 = 0o755;

#[derive(Args)]
pub(crate) struct Options {
    /// Name and tag [default: cellmesh, with the version of the workspace].
    #[arg(long)]
    tag: Option<String>,
    /// Where the source is, for the image's labels [default: the remote `origin`].
    #[arg(long)]
    source: Option<String>,
    /// A program that was built before, statically linked, instead of building one.
    #[arg(long)]
    program: Option<PathBuf>,
}

/// Stages the context and builds the image, or says how to where buildah is not installed.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<ExitCode> {
    let program = match &options.program {
        Some(program) => program.clone(),
        None => build(workspace)?,
    };
    let bytes = fs::read(&program).with_context(|| format!("cannot read {}", program.display()))?;
    ensure!(
        interpreter(&bytes)?.is_none(),
        "{} needs shared libraries, which the image does not have: build it with `-C target-feature=+crt-static`",
        program.display()
    );
    let context = workspace.target.join("image");
    stage(workspace, &context, &bytes)?;
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

/// The program as it is shipped, without a shared library.
fn build(workspace: &Workspace) -> Result<PathBuf> {
    let host = Toolchain::active(workspace)?.host;
    ensure!(host.ends_with("-linux-gnu"), "{host} cannot link glibc statically: build on Linux with glibc");
    let variable = host.replace('-', "_");
    let remaps = remapped(workspace)?;
    let rust_flags = ["-Ctarget-feature=+crt-static".to_owned()]
        .into_iter()
        .chain(remaps.iter().map(|(from, to)| format!("--remap-path-prefix={}={to}", from.display())))
        .collect::<Vec<_>>();
    let c_flags = remaps
        .iter()
        .map(|(from, to)| format!("-ffile-prefix-map={}={to}", from.display()))
        .collect::<Vec<_>>();
    let mut cargo = workspace.cargo();
    cargo.args(["build", "--locked", "--profile", "dist", "--package", "cellmesh", "--target", &host]);
    // Flags for the program alone: what runs while it is built is for another target, and stays dynamic.
    cargo.env("CARGO_ENCODED_RUSTFLAGS", rust_flags.join("\u{1f}"));
    cargo.env(format!("CFLAGS_{variable}"), c_flags.join(" "));
    // Symbols stay, for the names in a backtrace; line tables would double the image.
    cargo.env("CARGO_PROFILE_DIST_DEBUG", "false");
    command::run(&mut cargo)?;
    Ok(workspace.target.join(host).join("dist/cellmesh"))
}

/// What paths of this machine are called in the program.
fn remapped(workspace: &Workspace) -> Result<Vec<(PathBuf, &'static str)>> {
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let cargo_home = std::env::var_os("CARGO_HOME").map(PathBuf::from).or_else(|| Some(home?.join(".cargo")));
    Ok(vec![
        (cargo_home.context("neither HOME nor CARGO_HOME is set")?, "/cargo"),
        // Of two that fit, the last one holds.
        (workspace.root.clone(), "/cellmesh"),
        (workspace.target.clone(), "/cellmesh/target"),
    ])
}

/// Makes the context anew: `rootfs` is what the image has.
fn stage(workspace: &Workspace, context: &Path, program: &[u8]) -> Result<()> {
    let built = cells::build(workspace)?;
    let sbom = sbom(workspace)?;
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
        place(&rootfs.join("cells").join(&name), FILE, &read(&built.join(&name))?)?;
    }
    place(&rootfs.join("etc/cellmesh/app.toml"), FILE, &read(&deploy.join("kustomize/base/app.toml"))?)?;
    place(&rootfs.join("etc/passwd"), FILE, PASSWD.as_bytes())?;
    place(&rootfs.join("etc/group"), FILE, GROUP.as_bytes())?;
    place(&rootfs.join("etc/ssl/certs/ca-certificates.crt"), FILE, &read(ca_bundle()?)?)?;
    place(&rootfs.join("usr/share/cellmesh/LICENSE"), FILE, &read(&workspace.root.join("LICENSE"))?)?;
    place(&rootfs.join("usr/share/cellmesh/sbom.cdx.json"), FILE, sbom.as_bytes())?;
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

/// What the program is made of, as CycloneDX.
fn sbom(workspace: &Workspace) -> Result<String> {
    let mut cargo = workspace.cargo();
    if !command::succeeds(cargo.args(["cyclonedx", "--version"])) {
        bail!("`cargo cyclonedx` is not installed: run `cargo install cargo-cyclonedx --locked`");
    }
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

/// What differs from one image to the next, and is said in its labels.
struct Labels {
    version: &'static str,
    revision: String,
    created: String,
    source: String,
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
        let source = match source {
            Some(source) => source.to_owned(),
            None if git(&["remote"])?.lines().any(|name| name == "origin") => {
                git(&["remote", "get-url", "origin"])?
            }
            None => String::new(),
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
        let values =
            [("VERSION", *version), ("REVISION", revision), ("CREATED", created), ("SOURCE", source)];
        let arguments = values.map(|(name, value)| format!("--build-arg={name}={value}"));
        [format!("--tag={tag}")].into_iter().chain(arguments).collect()
    }
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
            source: String::new(),
        };
        let arguments = labels.arguments("cellmesh:1.2.3");
        let containerfile = include_str!("../../deploy/Containerfile");
        for argument in arguments.iter().filter_map(|argument| argument.strip_prefix("--build-arg=")) {
            let name = argument.split('=').next().unwrap();
            assert!(containerfile.contains(&format!("ARG {name}")), "{name}");
        }
        assert_eq!(arguments[0], "--tag=cellmesh:1.2.3");
    }
}
