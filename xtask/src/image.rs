//! `cargo xtask image`: one image with the one program, on nothing else.
//!
//! ```text
//! cargo build, glibc linked in --+
//! cells, CA certificates --------+--> target/image (the context) --> buildah --> NAME:VERSION
//! SBOM of cargo-cyclonedx -------+
//! ```
//!
//! - The same commit, compiler and CA certificates are meant to give the same image: files have fixed modes, times are zero, and no
//!   path of the machine that builds gets into the program or the SBOM; nor does the name of the folder that its registry's mirror has.
//! - That holds for one place (checkout, `CARGO_HOME`). In another the program differs in the order of its functions, since packages generate
//!   code that names where it came from, and cells hold the paths of their packages.
//! - musl would be linked statically too, but is no first tier of wasmtime.
//! - Not here: what the image is made of and how it is started (`deploy/Containerfile`), pushing and signing it.

use std::fs::{self, Permissions};
use std::os::unix::ffi::OsStrExt;
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
    let (program, bytes) = match &options.program {
        Some(program) => (program.clone(), read(program)?),
        None => {
            let remaps = remapped(workspace)?;
            let program = build(workspace, &remaps)?;
            let bytes = read(&program)?;
            let leaked = leaked(&bytes, &remaps);
            ensure!(leaked.is_empty(), "{} holds paths of this machine: {leaked:?}", program.display());
            (program, bytes)
        }
    };
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
fn build(workspace: &Workspace, remaps: &[Remap]) -> Result<PathBuf> {
    let host = Toolchain::active(workspace)?.host;
    ensure!(host.ends_with("-linux-gnu"), "{host} cannot link glibc statically: build on Linux with glibc");
    let variable = host.replace('-', "_");
    let rust_flags = ["-Ctarget-feature=+crt-static".to_owned()]
        .into_iter()
        .chain(remaps.iter().map(|Remap { from, to }| format!("--remap-path-prefix={}={to}", from.display())))
        .collect::<Vec<_>>();
    let c_flags = remaps
        .iter()
        .map(|Remap { from, to }| format!("-ffile-prefix-map={}={to}", from.display()))
        .collect::<Vec<_>>();
    let mut cargo = workspace.cargo();
    cargo.args(["build", "--locked", "--profile", "dist", "--package", "cellmesh", "--target", &host]);
    // Flags for the program alone: what runs while it is built is for another target, and stays dynamic.
    cargo.env("CARGO_ENCODED_RUSTFLAGS", rust_flags.join("\u{1f}"));
    cargo.env(format!("CFLAGS_{variable}"), c_flags.join(" "));
    // C code of the allocator has date and time in it.
    cargo.env("SOURCE_DATE_EPOCH", "0");
    // Symbols stay, for the names in a backtrace; line tables would double the image.
    cargo.env("CARGO_PROFILE_DIST_DEBUG", "false");
    command::run(&mut cargo)?;
    Ok(workspace.target.join(host).join("dist/cellmesh"))
}

/// What a path of this machine is called in the program.
#[derive(Debug)]
struct Remap {
    from: PathBuf,
    to: &'static str,
}

/// What paths of this machine are called in the program. Fetches the packages: only then there is a folder for them.
fn remapped(workspace: &Workspace) -> Result<Vec<Remap>> {
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let cargo_home = std::env::var_os("CARGO_HOME").map(PathBuf::from).or_else(|| Some(home?.join(".cargo")));
    let cargo_home = cargo_home.context("neither HOME nor CARGO_HOME is set")?;
    command::run(workspace.cargo().args(["fetch", "--locked"]))?;
    let sources = cargo_home.join("registry/src");
    let mut remaps = vec![Remap { from: cargo_home, to: "/cargo" }];
    // Of two that fit, the last one holds. A registry's folder is named after its mirror: the same package, other names.
    remaps.extend(folders(&sources)?.into_iter().map(|from| Remap { from, to: "/cargo/registry" }));
    remaps.push(Remap { from: workspace.root.clone(), to: "/cellmesh" });
    remaps.push(Remap { from: workspace.target.clone(), to: "/cellmesh/target" });
    Ok(remaps)
}

/// What is in a folder, in the order of the names. Nothing if it is not there: packages may be vendored.
fn folders(folder: &Path) -> Result<Vec<PathBuf>> {
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    paths.sort();
    Ok(paths)
}

/// Paths that should have another name in the program, but are in it.
fn leaked(program: &[u8], remaps: &[Remap]) -> Vec<PathBuf> {
    // What is also part of a new name cannot be told from it.
    let is_told = |from: &Path| !remaps.iter().any(|remap| remap.to.contains(&*from.to_string_lossy()));
    let found = |from: &Path| memchr::memmem::find(program, from.as_os_str().as_bytes()).is_some();
    // The name of a registry's folder, wherever that was said to be.
    let names = remaps
        .iter()
        .filter(|remap| remap.to == "/cargo/registry")
        .filter_map(|remap| remap.from.file_name());
    let all = remaps.iter().map(|remap| remap.from.clone()).chain(names.map(PathBuf::from));
    all.filter(|from| is_told(from) && found(from)).collect()
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

    /// Paths that were not replaced are found, new names are not taken for them, and a registry's folder is known by its name alone.
    #[test]
    fn leaked_paths_are_found() {
        let remap = |from: &str, to| Remap { from: from.into(), to };
        let remaps = [
            remap("/home/me/.cargo", "/cargo"),
            remap("/home/me/.cargo/registry/src/mirror-1f2e", "/cargo/registry"),
            remap("/cellmesh", "/cellmesh"),
        ];
        let leaked = |program: &str| leaked(program.as_bytes(), &remaps);
        assert_eq!(
            leaked("panicked at /cargo/registry/h2-0.4.20/src/lib.rs of /cellmesh/runtime"),
            Vec::<PathBuf>::new()
        );
        assert_eq!(leaked("\0/home/me/.cargo/git/x.rs\0"), [PathBuf::from("/home/me/.cargo")]);
        assert_eq!(leaked("/cargo/registry/src/mirror-1f2e/h2"), [PathBuf::from("mirror-1f2e")]);
    }
}
