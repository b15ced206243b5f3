//! Chromium and its driver, for the tests of the dashboard: found on this machine, or brought to it.
//!
//! They come while other tests run: a browser is a long download.

use std::process::Command;
use std::thread::{self, JoinHandle};

use crate::{apt, command};

/// What Debian calls them. The tests start `chromedriver`, which finds the browser.
const PACKAGES: [&str; 2] = ["chromium", "chromium-driver"];
const DRIVER: &str = "chromedriver";

/// A browser that may still be on its way.
#[derive(Debug)]
pub(crate) struct Browser(JoinHandle<Result<(), &'static str>>);

impl Browser {
    /// Looks for it, and else begins to install it.
    pub(crate) fn bring() -> Self {
        Self(thread::spawn(found_or_installed))
    }

    /// Waits for it; the error says why there is none.
    pub(crate) fn wait(self) -> Result<(), &'static str> {
        self.0.join().unwrap_or(Err("installing it panicked, see above"))
    }
}

fn found_or_installed() -> Result<(), &'static str> {
    if is_installed() {
        return Ok(());
    }
    if !apt::is_there() {
        return Err("no chromedriver, and this system has no apt-get to install it with");
    }
    let Some(as_root) = apt::as_root() else {
        return Err("no chromedriver; run `sudo apt-get install chromium chromium-driver`");
    };
    let install: Vec<&str> = std::iter::once("install").chain(PACKAGES).collect();
    // The lists may be there and good enough: loading them again takes longer than to find out.
    let installed = |args: &[&str]| apt::get(as_root, args).unwrap_or(false);
    if installed(&install) || (installed(&["update"]) && installed(&install)) {
        return if is_installed() {
            Ok(())
        } else {
            Err("installed chromium-driver, but chromedriver does not run")
        };
    }
    Err("no chromedriver, and `apt-get install chromium chromium-driver` failed, see above")
}

fn is_installed() -> bool {
    command::succeeds(Command::new(DRIVER).arg("--version"))
}
