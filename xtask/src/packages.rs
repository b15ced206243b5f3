//! Packages of the distribution that some tests need: found, or installed where that is allowed.

use std::process::Command;

use anyhow::{Context, Result};

use crate::command;

/// What would speak against installing is decided where the answer is not downloaded: give up on a
/// dead mirror soon.
const APT_OPTIONS: [&str; 5] =
    ["-y", "--no-install-recommends", "-oAcquire::http::Timeout=20", "-oAcquire::Retries=1", "-qq"];

/// Whether `program` can be started; if it cannot, and there is apt-get that we may use, `package` is installed first.
pub(crate) fn installed_or_installable(package: &str, program: &str) -> bool {
    if is_installed(program) {
        return true;
    }
    let Some(as_root) = as_root() else { return false };
    let did = |args: &[&str]| apt_get(as_root, args).unwrap_or(false);
    // Lists may be as old as the image; without a network the packages at hand are still worth a try.
    (did(&["install", package]) || did(&["update"]) && did(&["install", package])) && is_installed(program)
}

/// Whether `program` can be started.
pub(crate) fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// The words that make a command run as root: none for root, `sudo -n` where it asks for no password.
pub(crate) fn as_root() -> Option<&'static [&'static str]> {
    if rustix::process::geteuid().is_root() {
        return Some(&[]);
    }
    command::succeeds(Command::new("sudo").args(["-n", "true"])).then_some(&["sudo", "-n"])
}

/// Whether apt-get did it.
pub(crate) fn apt_get(as_root: &[&str], args: &[&str]) -> Result<bool> {
    let mut words = as_root.iter().chain(&["env", "DEBIAN_FRONTEND=noninteractive", "apt-get"]);
    let mut apt = Command::new(words.next().context("there is at least `env`")?);
    apt.args(words).args(APT_OPTIONS).args(args);
    Ok(command::status(&mut apt)?.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is there is not installed.
    #[test]
    fn programs_are_found() {
        assert!(installed_or_installable("no-such-package", "sh"));
        assert!(!is_installed("no-such-program-anywhere"));
    }
}
