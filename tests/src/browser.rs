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

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::places::screenshots_dir;
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

/// A screen, in CSS pixels.
#[derive(Debug, Clone, Copy)]
pub struct Screen {
    /// Its width.
    pub width: u32,
    /// Its height.
    pub height: u32,
    /// Whether it is touched.
    pub is_phone: bool,
}

/// What the browser itself sees in a picture that was taken of a page.
#[derive(Debug, Clone, Copy)]
pub struct Picture {
    /// Pixels from left to right.
    pub width: u64,
    /// Pixels from top to bottom.
    pub height: u64,
    /// How many colours are in it.
    pub colours: u64,
    /// Red, green and blue together of the first pixel, each of 255.
    pub first: u64,
}

/// Looks at a picture without the page's own network, which lets in nothing.
const SEE: &str = "
    const bytes = Uint8Array.from(atob('PICTURE'), (letter) => letter.charCodeAt(0));
    return createImageBitmap(new Blob([bytes], {type: 'image/png'})).then((image) => {
        const {width, height} = image;
        const context = new OffscreenCanvas(width, height).getContext('2d');
        context.drawImage(image, 0, 0);
        const {data} = context.getImageData(0, 0, width, height);
        const colours = new Set(new Uint32Array(data.buffer));
        return [width, height, colours.size, data[0] + data[1] + data[2]];
    });";

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
        self.be(Screen { width, height, is_phone: true });
    }

    /// From now on it has this screen.
    pub fn be(&self, Screen { width, height, is_phone }: Screen) {
        let metrics = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": is_phone});
        self.devtools("Emulation.setDeviceMetricsOverride", &metrics);
    }

    /// From now on its user prefers this, `light` or `dark`, and that nothing moves.
    pub fn prefer(&self, scheme: &str) {
        let feature = |name: &str, value: &str| json!({"name": name, "value": value});
        let wanted = [feature("prefers-color-scheme", scheme), feature("prefers-reduced-motion", "reduce")];
        self.devtools("Emulation.setEmulatedMedia", &json!({"features": wanted}));
    }

    /// Takes a picture of the whole page, keeps it as `target/screenshots/NAME.png`, and looks at it.
    ///
    /// # Panics
    /// If it is no PNG.
    #[must_use]
    pub fn picture(&self, name: &str) -> Picture {
        // What stays at the top of the window is at the top of the page then.
        assert!(self.script("scrollTo({top: 0, behavior: 'instant'})").is_null());
        self.until("the top of the page", "scrollY === 0");
        let size = self.script("return [innerWidth, document.documentElement.scrollHeight]");
        let clip = json!({"x": 0, "y": 0, "width": size[0], "height": size[1], "scale": 1});
        let how = json!({"format": "png", "captureBeyondViewport": true, "clip": clip});
        let taken = self.devtools("Page.captureScreenshot", &how);
        let base64 = taken["data"].as_str().expect("a picture");
        let bytes = BASE64_STANDARD.decode(base64).expect("base64");
        std::fs::write(screenshots_dir().join(name).with_extension("png"), bytes).expect("a picture is kept");
        let seen = self.script(&SEE.replace("PICTURE", base64));
        let [width, height, colours, first] =
            [0, 1, 2, 3].map(|place| seen[place].as_u64().expect("a picture that the browser can read"));
        Picture { width, height, colours, first }
    }

    /// What pages wrote to the console since this was asked last, and what the browser says of them there.
    #[must_use]
    pub fn console(&self) -> Vec<String> {
        let entries = self.command("se/log", &json!({"type": "browser"}));
        let entries = entries.as_array().expect("entries").iter();
        entries.map(|entry| format!("{}: {}", entry["level"], entry["message"])).collect()
    }

    fn devtools(&self, command: &str, params: &Value) -> Value {
        self.command("goog/cdp/execute", &json!({"cmd": command, "params": params}))
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
