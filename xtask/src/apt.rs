//! Packages of Debian and its relatives, where there is `apt-get` and we may use it.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::command;

/// What would speak against installing is decided where the answer is not downloaded: give up on a
/// dead mirror soon.
const OPTIONS: [&str; 5] =
    ["-y", "--no-install-recommends", "-oAcquire::http::Timeout=20", "-oAcquire::Retries=1", "-qq"];

/// Whether this system has it.
pub(crate) fn is_there() -> bool {
    Path::new("/usr/bin/apt-get").is_file()
}

/// The words that make a command run as root: none for root, `sudo -n` where it asks for no password.
pub(crate) fn as_root() -> Option<&'static [&'static str]> {
    if rustix::process::geteuid().is_root() {
        return Some(&[]);
    }
    command::succeeds(Command::new("sudo").args(["-n", "true"])).then_some(&["sudo", "-n"])
}

/// `apt-get <args>`; whether it succeeded.
pub(crate) fn get(as_root: &[&str], args: &[&str]) -> Result<bool> {
    let mut words = as_root.iter().chain(&["env", "DEBIAN_FRONTEND=noninteractive", "apt-get"]);
    let mut apt = Command::new(words.next().expect("there is at least `env`"));
    apt.args(words).args(OPTIONS).args(args);
    Ok(command::status(&mut apt)?.success())
}
