//! One place for builds: the same paths on every machine.
//!
//! ```text
//! checkout, cargo's folder, build results --bind--> /srv/source, /srv/cargo, /srv/target    in a mount namespace of its own
//! ```
//!
//! - Compilers do not only put paths into what they build, where an option replaces them: the order of a program's functions
//!   depends on them too, by way of hashes and generated code. Where bytes are compared, paths have to be the same.
//! - Root has mount namespaces; others have them where the system lets users make namespaces. Containers often do not.
//! - Nothing outside sees these mounts, and they are gone with the last process inside.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::workspace::Workspace;
use crate::{command, remap};

/// Covered inside. Every system that keeps to the Filesystem Hierarchy Standard has it, and few keep their tools there.
const COVERED: &str = "/srv";

/// The checkout, where cargo keeps packages, and what is built: inside.
const SOURCE: &str = "/srv/source";
const CARGO_HOME: &str = "/srv/cargo";
const TARGET: &str = "/srv/target";

/// Puts folders (named `$1` to `$3`) and a program (`$4`) where they are inside, then becomes that program with the arguments left.
///
/// Made beside the build results and covered with as a whole: what is in `/srv` can be one of those folders.
const ENTER: &str = r#"set -e
source=$1 cargo=$2 target=$3 program=$4 covered=$5
shift 5
new=$target/place
mkdir -p "$new"
mount -t tmpfs none "$new"
mkdir "$new/source" "$new/cargo" "$new/target"
touch "$new/program"
mount --rbind "$source" "$new/source"
mount --rbind "$cargo" "$new/cargo"
mount --rbind "$target" "$new/target"
mount --rbind "$program" "$new/program"
mount --rbind "$new" "$covered"
cd "$covered/source"
exec "$covered/program" "$@"
"#;

/// The workspace as it is seen inside.
pub(crate) fn workspace() -> Workspace {
    Workspace { root: SOURCE.into(), target: TARGET.into() }
}

/// Runs this program with other arguments inside, with what is in `target` kept. `false` if there can be no place here: without
/// mount namespaces, or with a toolchain in what they would cover.
///
/// # Errors
/// When there is one, and the program failed in it.
pub(crate) fn run(workspace: &Workspace, target: &Path, arguments: &[&str]) -> Result<bool> {
    let is_covered = std::env::var_os("CARGO").is_some_and(|cargo| Path::new(&cargo).starts_with(COVERED));
    let Some(mut unshare) = unshare().filter(|_| !is_covered) else {
        return Ok(false);
    };
    let cargo_home = remap::cargo_home()?;
    for folder in [&cargo_home, &target.to_path_buf()] {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let own = std::env::current_exe().context("this program has no path")?;
    let outside: [PathBuf; 4] = [workspace.root.clone(), cargo_home, target.to_path_buf(), own];
    unshare.args(["sh", "-c", ENTER, "place"]).args(outside).arg(COVERED).args(arguments);
    let status = unshare.env("CARGO_HOME", CARGO_HOME).status().context("cannot start unshare")?;
    ensure!(
        status.success(),
        "`cargo xtask {}`, with all in {COVERED}, failed: see above",
        arguments.join(" ")
    );
    Ok(true)
}

/// `unshare` with the options that this user needs for a mount namespace, if there are any.
fn unshare() -> Option<Command> {
    let ways: [&[&str]; 2] = [&["--mount"], &["--mount", "--user", "--map-root-user"]];
    ways.into_iter().find_map(|way| {
        let unshare = || {
            let mut unshare = Command::new("unshare");
            unshare.args(way);
            unshare
        };
        // As much as the place needs: where namespaces are there, mounts may be refused.
        let is_possible = command::succeeds(unshare().args(["mount", "-t", "tmpfs", "none", COVERED]));
        is_possible.then(unshare)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Inside, the folders are where they are on every machine, whatever they are called outside, also if that is in what is covered;
    /// what is written to the results is there outside too.
    #[test]
    fn paths_are_the_same_inside() {
        let Some(mut unshare) = unshare() else {
            eprintln!("left out: no mount namespaces for this user");
            return;
        };
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for folder in ["one", "two", "three"] {
            fs::create_dir(at(folder)).unwrap();
            fs::write(at(folder).join("name"), folder).unwrap();
        }
        let script = "#!/bin/sh\ncat /srv/source/name /srv/cargo/name /srv/target/name > /srv/target/seen; pwd >> /srv/target/seen; echo \"$1\" >> /srv/target/seen";
        fs::write(at("program"), script).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(at("program"), mode).unwrap();
        unshare.args(["sh", "-c", ENTER, "place"]);
        unshare.args([at("one"), at("two"), at("three"), at("program")]).args([COVERED, "argument"]);
        assert!(unshare.status().unwrap().success());
        let seen = fs::read_to_string(at("three/seen")).unwrap();
        assert_eq!(seen, "onetwothree/srv/source\nargument\n");
        assert!(!Path::new(TARGET).exists(), "the mounts are seen outside");
    }
}
