//! A real browser: Chromium without a window, driven over WebDriver.
//!
//! - Over the harness' own HTTP: a client library of WebDriver would bring some twenty crates for ten commands.
//! - A script only looks. What a person would do is done with keys.
//! - Without the sandbox, which root cannot have: the only page that is opened is ours.
//! - `$CELLMESH_BROWSER`: `none` where there is none and that is known; the tests then say that they were skipped.
//!
//! Source: WebDriver, W3C; `goog/cdp/execute` and `se/log` are chromedriver's own.

use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::process::until;
use crate::{Log, Wire};

const DRIVER: &str = "chromedriver";
/// Nothing but the page: no sandbox for root, no shared memory that containers do not have, and no network of its own.
const ARGUMENTS: [&str; 12] = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-software-rasterizer",
    "--disable-dev-shm-usage",
    "--disable-extensions",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1280,900",
];

/// Keys by the code points that WebDriver gives them.
pub mod keys {
    /// Goes on to the next thing that can be used.
    pub const TAB: char = '\u{E004}';
    /// Uses it.
    pub const ENTER: char = '\u{E007}';
}

/// A browser with one tab. It and its driver are killed when it is dropped.
#[derive(Debug)]
pub struct Browser {
    /// Leads the process group of all that it starts.
    driver: Child,
    address: SocketAddr,
    session: String,
    /// Its profile.
    dir: TempDir,
}

impl Browser {
    /// Starts one. None, and a line on standard error, if it is said that there is none.
    ///
    /// # Panics
    /// If there is none and nobody said so.
    #[must_use]
    pub fn start() -> Option<Self> {
        match std::env::var("CELLMESH_BROWSER").as_deref() {
            Err(_) => Some(Self::started()),
            Ok("none") => {
                eprintln!("skipped: CELLMESH_BROWSER=none");
                None
            }
            Ok(other) => panic!("CELLMESH_BROWSER={other}: must be none, or not set"),
        }
    }

    fn started() -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let mut driver = Command::new(DRIVER);
        driver
            .arg("--port=0")
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut driver = driver.spawn().unwrap_or_else(|error| {
            panic!(
                "cannot start {DRIVER} ({error}): install Chromium and its driver (Debian: chromium chromium-driver), \
                 or set CELLMESH_BROWSER=none to leave out the tests that need them"
            )
        });
        let said = Log::of(driver.stdout.take().expect("stdout is piped"));
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        // From here on it is killed on every path.
        let mut browser = Self { driver, address: nowhere, session: String::new(), dir };
        until("the port of chromedriver", || {
            browser.address.set_port(port(&said.text()).unwrap_or_default());
            browser.address.port() != 0
        });
        browser.open_session();
        browser
    }

    fn open_session(&mut self) {
        let mut arguments: Vec<String> = ARGUMENTS.iter().map(ToString::to_string).collect();
        arguments.push(format!("--user-data-dir={}", self.dir.path().display()));
        let wanted = json!({
            "browserName": "chrome",
            "goog:chromeOptions": {"args": arguments},
            "goog:loggingPrefs": {"browser": "ALL"},
        });
        let got = self.post("/session", &json!({"capabilities": {"alwaysMatch": wanted}}));
        self.session = got["sessionId"].as_str().expect("a session").to_owned();
    }

    /// Opens a page and waits until it is loaded.
    pub fn open(&self, url: &str) {
        self.command("url", &json!({"url": url}));
    }

    /// What the body of a function returns in the page.
    #[must_use]
    pub fn script(&self, body: &str) -> Value {
        self.command("execute/sync", &json!({"script": body, "args": []}))
    }

    /// Waits until an expression is true in the page.
    pub fn until(&self, what: &str, expression: &str) {
        until(what, || self.script(&format!("return Boolean({expression})")) == true);
    }

    /// Presses a key and lets it go.
    pub fn press(&self, key: char) {
        let deeds = json!([{"type": "keyDown", "value": key}, {"type": "keyUp", "value": key}]);
        let keyboard = json!({"type": "key", "id": "keyboard", "actions": deeds});
        self.command("actions", &json!({"actions": [keyboard]}));
    }

    /// From now on it is a phone with a screen of this size, in CSS pixels.
    pub fn be_phone(&self, width: u32, height: u32) {
        let metrics = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": true});
        let deed = json!({"cmd": "Emulation.setDeviceMetricsOverride", "params": metrics});
        self.command("goog/cdp/execute", &deed);
    }

    /// What pages wrote to the console since this was asked last, and what the browser says of them there.
    #[must_use]
    pub fn console(&self) -> Vec<String> {
        let entries = self.command("se/log", &json!({"type": "browser"}));
        let entries = entries.as_array().expect("entries").iter();
        entries.map(|entry| format!("{}: {}", entry["level"], entry["message"])).collect()
    }

    fn command(&self, name: &str, what: &Value) -> Value {
        self.post(&format!("/session/{}/{name}", self.session), what)
    }

    fn post(&self, path: &str, what: &Value) -> Value {
        let reply = Wire::connect(self.address).post("localhost", path, what.to_string());
        let value = reply.json()["value"].take();
        assert_eq!(reply.status, 200, "{path}: {} {}", value["error"], value["message"]);
        value
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // It is not waited for yet, so its id names its group and no other. One that has ended already is what we want.
        let _ = kill_process_group(Pid::from_child(&self.driver), Signal::KILL);
        let _ = self.driver.wait();
    }
}

/// The port in what chromedriver says at its start.
fn port(said: &str) -> Option<u16> {
    let (_, rest) = said.split_once("started successfully on port ")?;
    rest.split('.').next()?.parse().ok()
}
