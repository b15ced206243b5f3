//! The Rust packages of Debian and its relatives: a compiler with the source of its standard library.
//!
//! Told by their files, not by their names, so that a distribution with other package names works when
//! it has the same things.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::{Attempt, is_new_enough, path_with};
use crate::toolchain::{OLDEST_RUST, Toolchain, Version};
use crate::{apt, command};

const CARGO: &str = "/usr/bin/cargo";
const RUSTC: &str = "/usr/bin/rustc";
/// The C library, where `wasi-libc` puts it.
const C_LIBRARY: &str = "/usr/lib/wasm32-wasi/libc.a";

/// Compile the standard library too, and find its C library, which rustup's target has inside. As a
/// setting, not as `RUSTFLAGS`: cargo joins it with the flags of config files.
pub(super) const OPTIONS: [&str; 3] = [
    "-Zbuild-std=std,panic_abort",
    "--config",
    r#"target.wasm32-wasip2.rustflags=["-L", "/usr/lib/wasm32-wasi"]"#,
];

/// The packages that bring it all, newest compiler first: Debian's stable releases have a recent Rust
/// under the `-web` names, because browsers need it.
const PACKAGE_SETS: [[&str; 4]; 2] =
    [["rustc-web", "cargo-web", "rust-web-src", "wasi-libc"], ["rustc", "cargo", "rust-src", "wasi-libc"]];

/// Whether all parts are installed and new enough.
pub(super) fn is_complete() -> bool {
    if !Path::new(CARGO).is_file() || !Path::new(C_LIBRARY).is_file() {
        return false;
    }
    let Ok(debian) = Toolchain::of(Path::new(RUSTC), Path::new("/")) else {
        return false;
    };
    let source = debian.rustlib().join("src/rust/library/std/Cargo.toml");
    source.is_file() && is_new_enough(debian.version)
}

/// `/usr/bin/cargo`, kept apart from the toolchain that runs this program.
pub(super) fn cargo(linker: &Path, wasm_ld_folder: &Path) -> Result<Command> {
    let mut cargo = Command::new(CARGO);
    for variable in ["CARGO", "RUSTC", "RUSTDOC", "RUSTUP_TOOLCHAIN", "LD_LIBRARY_PATH"] {
        cargo.env_remove(variable);
    }
    cargo
        .env("RUSTC_BOOTSTRAP", "1") // lets a stable compiler take -Zbuild-std
        .env("CARGO_TARGET_WASM32_WASIP2_LINKER", linker)
        .env("PATH", path_with(&[wasm_ld_folder, Path::new("/usr/bin")])?);
    Ok(cargo)
}

/// Whether there is a package manager, and whether we may use it.
pub(super) fn installable() -> Attempt {
    if !apt::is_there() {
        return Attempt::Impossible("this system has no apt-get".to_owned());
    }
    if apt::as_root().is_none() {
        return Attempt::Impossible(format!(
            "this user may not install them; run\n      \
             sudo apt-get update && sudo apt-get install {}",
            PACKAGE_SETS[0].join(" ")
        ));
    }
    Attempt::Possible
}

/// Installs the first set of packages that is new enough. Returns what to say if it does not help.
pub(super) fn install() -> Result<String> {
    let as_root = apt::as_root().context("apt-get can be used as root only")?;
    apt::get(as_root, &["update"])?;
    let Some(packages) = choose(candidate) else {
        return Ok(format!(
            "apt knows no Rust {OLDEST_RUST} or newer (rustc-web or rustc); a newer release or its \
             security updates may have one"
        ));
    };
    let install: Vec<&str> = std::iter::once("install").chain(packages).collect();
    Ok(if apt::get(as_root, &install)? {
        format!("installed {}, but something is still missing", packages.join(" "))
    } else {
        format!("`apt-get install {}` failed, see above", packages.join(" "))
    })
}

/// The first set whose compiler is new enough, by the version that apt would install.
fn choose(candidate: impl Fn(&str) -> Option<Version>) -> Option<[&'static str; 4]> {
    PACKAGE_SETS.into_iter().find(|packages| candidate(packages[0]).is_some_and(is_new_enough))
}

fn candidate(package: &str) -> Option<Version> {
    let policy = command::capture(Command::new("apt-cache").args(["policy", package])).ok()?;
    candidate_in(&policy)
}

/// Reads the output of `apt-cache policy`.
fn candidate_in(policy: &str) -> Option<Version> {
    let version = policy.lines().find_map(|line| line.trim().strip_prefix("Candidate: "))?;
    let without_epoch = version.split_once(':').map_or(version, |(_, rest)| rest);
    without_epoch.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: &str = "rustc-web:\n  Installed: (none)\n  Candidate: 1.96.0+dfsg1-1~deb12u2\n  \
                          Version table:\n     1.85.0+dfsg3-1~deb12u3 500\n";

    /// What apt would install, not what is installed or listed further down.
    #[test]
    fn candidate_is_read_from_policy() {
        assert_eq!(candidate_in(POLICY), "1.96".parse().ok());
        let with_epoch = POLICY.replace("Candidate: ", "Candidate: 2:");
        assert_eq!(candidate_in(&with_epoch), "1.96".parse().ok());
        let none = POLICY.replace("1.96.0+dfsg1-1~deb12u2", "(none)");
        assert_eq!(candidate_in(&none), None);
        assert_eq!(candidate_in(""), None);
    }

    /// A compiler that is too old for cells is not installed in vain.
    #[test]
    fn first_set_that_is_new_enough_is_chosen() {
        let offers = |web: &'static str, plain: &'static str| {
            choose(move |package| match package {
                "rustc-web" => web.parse().ok(),
                "rustc" => plain.parse().ok(),
                other => panic!("asked for {other}"),
            })
        };
        assert_eq!(offers("1.96.0", "1.96.0"), Some(PACKAGE_SETS[0]));
        assert_eq!(offers("1.85.0", "1.97.0"), Some(PACKAGE_SETS[1]));
        assert_eq!(offers("(none)", "1.95.0"), Some(PACKAGE_SETS[1]));
        assert_eq!(offers("1.85.0", "1.63.0"), None);
    }

    /// The compiler of the packages must not see the toolchain that runs this program.
    #[test]
    fn cargo_is_kept_apart_from_rustup() {
        let cargo = cargo(Path::new("/t/bin/wasm-component-ld"), Path::new("/t/bin/gcc-ld")).unwrap();
        let variable = |name: &str| {
            let found = cargo.get_envs().find(|(key, _)| *key == name);
            found.map(|(_, value)| value.map(|value| value.to_string_lossy().into_owned()))
        };
        assert_eq!(variable("RUSTUP_TOOLCHAIN"), Some(None), "is removed");
        assert_eq!(variable("RUSTC_BOOTSTRAP"), Some(Some("1".to_owned())));
        let path = variable("PATH").flatten().unwrap();
        assert!(path.starts_with("/t/bin/gcc-ld:/usr/bin:"), "{path}");
    }
}
