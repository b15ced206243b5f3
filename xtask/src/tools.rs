//! Programs that some tests need: found on this machine, or brought to it where that is allowed.
//!
//! They come while other tests run: a browser is a long download. One after the other: only one can install at a time.

use std::path::Path;
use std::process::Command;
use std::thread::{self, JoinHandle};

use crate::{apt, command};

/// A program that tests of one suite start.
#[derive(Debug)]
pub(crate) struct Tool {
    /// The suite.
    pub(crate) suite: &'static str,
    /// What its tests are told with `none` that they have to do without.
    pub(crate) variable: &'static str,
    program: &'static str,
    /// What Debian calls it.
    packages: &'static [&'static str],
    /// Where systemd runs, the package starts a service that nobody here asked for.
    is_service: bool,
}

const TOOLS: [Tool; 2] = [
    Tool {
        suite: "cells from a registry",
        variable: "CELLMESH_REGISTRY",
        program: "docker-registry",
        packages: &["docker-registry"],
        is_service: true,
    },
    Tool {
        suite: "dashboard in a browser",
        variable: "CELLMESH_BROWSER",
        program: "chromedriver",
        packages: &["chromium", "chromium-driver"],
        is_service: false,
    },
];

/// Tools that may still be on their way.
#[derive(Debug)]
pub(crate) struct Tools(JoinHandle<Vec<(Tool, String)>>);

impl Tools {
    /// Looks for them, and else begins to install them.
    pub(crate) fn bring() -> Self {
        Self(thread::spawn(|| {
            let missing = |tool: Tool| Some((why_missing(&tool)?, tool));
            TOOLS.into_iter().filter_map(missing).map(|(why, tool)| (tool, why)).collect()
        }))
    }

    /// Waits for them. The answer: those that there are not, and why.
    pub(crate) fn wait(self) -> Vec<(Tool, String)> {
        let panicked =
            |_| TOOLS.into_iter().map(|tool| (tool, "installing it panicked".to_owned())).collect();
        self.0.join().unwrap_or_else(panicked)
    }
}

fn why_missing(tool: &Tool) -> Option<String> {
    let Tool { program, packages, .. } = tool;
    if is_there(program) {
        return None;
    }
    let install = format!("apt-get install {}", packages.join(" "));
    if !apt::is_there() {
        return Some(format!("no {program}, and this system has no apt-get"));
    }
    if tool.is_service && Path::new("/run/systemd/system").exists() {
        return Some(format!("no {program}; `{install}` would start a service here, so that is left to you"));
    }
    let Some(as_root) = apt::as_root() else {
        return Some(format!("no {program}; run `sudo {install}`"));
    };
    let words: Vec<&str> = std::iter::once("install").chain(packages.iter().copied()).collect();
    // The lists may be there and good enough: loading them again takes longer than to find out.
    let did = |args: &[&str]| apt::get(as_root, args).unwrap_or(false);
    let installed = did(&words) || (did(&["update"]) && did(&words));
    (!installed || !is_there(program)).then(|| format!("no {program}, and `{install}` failed, see above"))
}

fn is_there(program: &str) -> bool {
    command::succeeds(Command::new(program).arg("--version"))
}
