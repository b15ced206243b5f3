//! What the active Rust toolchain is and has.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::command::{self, Bounded, Patience};
use crate::workspace::Workspace;

/// The oldest compiler that the workspace builds with (`rust-version` of the root manifest).
pub(crate) const OLDEST_RUST: &str = env!("CARGO_PKG_RUST_VERSION");

/// `rustup` waits for ever where there is no network. A working download shows its first bytes within
/// seconds; on a slow line the whole may take minutes.
const DOWNLOAD: Patience = Patience { idle: Duration::from_secs(30), total: Duration::from_secs(15 * 60) };

/// One installed compiler with its libraries.
#[derive(Debug, Clone)]
pub(crate) struct Toolchain {
    /// For example `x86_64-unknown-linux-gnu`.
    pub(crate) host: String,
    pub(crate) version: Version,
    pub(crate) sysroot: PathBuf,
}

impl Toolchain {
    /// The toolchain that cargo uses in `workspace`.
    pub(crate) fn active(workspace: &Workspace) -> Result<Self> {
        let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        Self::of(Path::new(&rustc), &workspace.root)
    }

    /// The toolchain of a compiler; `folder` decides which one a rustup proxy stands for.
    pub(crate) fn of(rustc: &Path, folder: &Path) -> Result<Self> {
        let ask = |arg: &[&str]| command::capture(Command::new(rustc).args(arg).current_dir(folder));
        let sysroot = PathBuf::from(ask(&["--print", "sysroot"])?.trim());
        Self::parse(&ask(&["-vV"])?, sysroot)
    }

    /// Reads what `rustc -vV` says.
    fn parse(verbose_version: &str, sysroot: PathBuf) -> Result<Self> {
        let field = |name: &str| {
            verbose_version
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
                .with_context(|| format!("`rustc -vV` names no {name}"))
        };
        Ok(Self { host: field("host")?.to_owned(), version: field("release")?.parse()?, sysroot })
    }

    /// `lib/rustlib` of the sysroot.
    pub(crate) fn rustlib(&self) -> PathBuf {
        self.sysroot.join("lib/rustlib")
    }

    /// Whether programs for `target` can be compiled with the installed standard library.
    pub(crate) fn has_target(&self, target: &str) -> bool {
        let Ok(entries) = std::fs::read_dir(self.rustlib().join(target).join("lib")) else {
            return false;
        };
        entries.flatten().any(|entry| {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            name.starts_with("libstd-") && name.ends_with(".rlib")
        })
    }

    /// Whether rustup made it, and so can add to it.
    pub(crate) fn is_from_rustup(&self) -> bool {
        self.rustlib().join("multirust-channel-manifest.toml").is_file()
            && command::succeeds(Command::new("rustup").arg("--version"))
    }
}

/// Runs `rustup <args>` in `workspace`; gives up when nothing arrives.
pub(crate) fn rustup(workspace: &Workspace, args: &[&str]) -> Result<Bounded> {
    let mut rustup = Command::new("rustup");
    rustup.args(args).current_dir(&workspace.root);
    command::run_bounded(&mut rustup, DOWNLOAD, downloaded_bytes)
}

/// How much rustup has loaded so far: it grows while a download is alive.
fn downloaded_bytes() -> u64 {
    let Some(home) = rustup_home() else { return 0 };
    ["downloads", "tmp"].iter().map(|name| folder_bytes(&home.join(name))).sum()
}

fn rustup_home() -> Option<PathBuf> {
    std::env::var_os("RUSTUP_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".rustup")))
}

fn folder_bytes(folder: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return 0;
    };
    entries.flatten().filter_map(|entry| entry.metadata().ok()).map(|file| file.len()).sum()
}

/// Makes sure that `cargo <tool>` works; `component` is what rustup calls it.
pub(crate) fn require_component(workspace: &Workspace, tool: &str, component: &str) -> Result<()> {
    let has_tool = || command::succeeds(workspace.cargo().args([tool, "--version"]));
    if has_tool() {
        return Ok(());
    }
    let managed = Toolchain::active(workspace)?.is_from_rustup();
    if managed && rustup(workspace, &["component", "add", component])? == Bounded::Succeeded && has_tool() {
        return Ok(());
    }
    bail!(
        "`cargo {tool}` is not installed: run `rustup component add {component}` \
         where there is a network, or install your distribution's package of it"
    )
}

/// A released version of Rust; `1.96.0-nightly` counts as 1.96.0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version {
    pub(crate) major: u32,
    pub(crate) minor: u32,
}

impl Version {
    /// The oldest one that will do.
    pub(crate) fn oldest() -> Self {
        OLDEST_RUST.parse().expect("rust-version of the workspace is a version")
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl FromStr for Version {
    type Err = anyhow::Error;

    /// Reads the first two numbers: `1.95`, `1.96.0-nightly`, `1.96.0+dfsg1-1~deb12u2`.
    fn from_str(text: &str) -> Result<Self> {
        let mut numbers = text.split(['.', '-', '+', '~']).map(str::parse);
        match (numbers.next(), numbers.next()) {
            (Some(Ok(major)), Some(Ok(minor))) => Ok(Self { major, minor }),
            _ => bail!("`{text}` is no version: expected something like 1.95.0"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All the spellings that rustc and Debian use.
    #[test]
    fn versions_are_read_from_rustc_and_debian() {
        for (text, major, minor) in [
            ("1.95", 1, 95),
            ("1.95.0", 1, 95),
            ("1.101.0-nightly", 1, 101),
            ("1.96.0+dfsg1-1~deb12u2", 1, 96),
        ] {
            assert_eq!(text.parse::<Version>().unwrap(), Version { major, minor }, "{text}");
        }
        assert!("(none)".parse::<Version>().is_err());
    }

    /// 1.101 is newer than 1.95, although it sorts before it as text.
    #[test]
    fn versions_compare_as_numbers() {
        let [old, new] = ["1.95.0", "1.101.0"].map(|text| text.parse::<Version>().unwrap());
        assert!(new > old);
    }

    /// Host and version come from `rustc -vV`.
    #[test]
    fn toolchain_is_read_from_rustc() {
        let text = "rustc 1.95.0 (59807616e 2026-04-14)\nbinary: rustc\n\
                    host: x86_64-unknown-linux-gnu\nrelease: 1.95.0\n";
        let toolchain = Toolchain::parse(text, "/sys".into()).unwrap();
        assert_eq!(toolchain.host, "x86_64-unknown-linux-gnu");
        assert_eq!(toolchain.version, Version { major: 1, minor: 95 });
        assert_eq!(toolchain.rustlib(), Path::new("/sys/lib/rustlib"));
    }

    /// An empty folder, as an interrupted installation leaves it, is no standard library.
    #[test]
    fn target_needs_its_standard_library() {
        let dir = tempfile::tempdir().unwrap();
        let toolchain =
            Toolchain { host: "host".to_owned(), version: Version::oldest(), sysroot: dir.path().to_owned() };
        assert!(!toolchain.has_target("wasm32-wasip2"));
        let lib = toolchain.rustlib().join("wasm32-wasip2/lib");
        std::fs::create_dir_all(&lib).unwrap();
        assert!(!toolchain.has_target("wasm32-wasip2"));
        std::fs::write(lib.join("libstd-0123456789abcdef.rlib"), "").unwrap();
        assert!(toolchain.has_target("wasm32-wasip2"));
    }
}
