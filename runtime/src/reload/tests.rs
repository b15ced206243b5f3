use cellmesh_dpu::Acceptor;
use cellmesh_dpu::units::ByteSize;

use super::*;
use crate::config::{Overrides, Part};

const APP: &str = r#"
    entry = "front"
    [[cell]]
    component = "a.wasm"
    services = ["front", "back"]
    egress = { allow = ["one.example"] }
    [dpu]
    body_bytes_max = "1MiB"
"#;

/// A process that began with `APP`, and the lane that it tells.
struct Process {
    reload: Reload,
    lane: LaneReload,
    folder: tempfile::TempDir,
}

impl Process {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("app.toml");
        let overrides = Overrides { part: Part::Daemon, ..Overrides::default() };
        let app = config::parse(&path, APP.into(), &overrides).expect("valid");
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let (acceptor, _intakes) = Acceptor::new(listener, 1, &app.dpu);
        let mut reload = Reload::new(&app, Cells::Here, acceptor.caps(), Reloads::default());
        let lane = reload.lane();
        Self { reload, lane, folder }
    }

    /// What the lane gets when the file says `text`; nothing if it is refused.
    async fn read(&mut self, text: &str) -> Option<Arc<LaneSettings>> {
        self.taken(async |reload| reload.read(Ok(text.to_owned())).await).await
    }

    /// What the lane gets when what was refused is tried again; nothing if it is refused again.
    async fn try_again(&mut self) -> Option<Arc<LaneSettings>> {
        self.taken(async |reload| reload.try_again().await).await
    }

    async fn taken(&mut self, deed: impl AsyncFnOnce(&mut Reload)) -> Option<Arc<LaneSettings>> {
        let reading = deed(&mut self.reload);
        let taking = async {
            let (settings, applied) = self.lane.0.recv().await.expect("the process goes on");
            applied.send(()).expect("somebody waits");
            settings
        };
        tokio::pin!(reading);
        tokio::select! {
            biased;
            settings = taking => {
                reading.await;
                Some(settings)
            }
            () = &mut reading => None,
        }
    }

    /// Keys that a file with this text would leave for a restart.
    fn restart(&self, text: &str) -> Vec<String> {
        let Origin { path, overrides, .. } = &self.reload.app.origin;
        self.reload.restart(&config::parse(path, text.into(), overrides).expect("valid"))
    }
}

/// What can change changes, for every lane; what cannot is named and stays.
#[tokio::test]
async fn files_are_taken_over() {
    let mut process = Process::new();
    let text = APP.replace("entry = \"front\"", "entry = \"back\"\nlisten = \"127.0.0.1:1\"");
    let text = text.replace("one.example", "two.example").replace("1MiB", "1KiB");
    assert_eq!(process.restart(&text), ["listen"]);
    let settings = process.read(&text).await.expect("taken over");
    assert_eq!(settings.routes.entry().0, 1);
    assert_eq!(settings.dpu.body_bytes_max, ByteSize::kib(1));
    let allowed = |text: &str| vec![text.parse::<HostPattern>().expect("a pattern")];
    assert_eq!(settings.dpu.egress.allow, allowed("two.example"));
    assert_eq!(settings.allow, [allowed("two.example"), allowed("two.example")]);
    let again = process.read(APP).await.expect("taken over");
    assert_eq!((again.routes.entry().0, again.dpu.body_bytes_max), (0, ByteSize::mib(1)));
}

/// A file with a mistake changes nothing, whatever else it says.
#[tokio::test]
async fn bad_files_are_refused_as_a_whole() {
    let mut process = Process::new();
    let before = process.reload.app.clone();
    let bad = APP.replace("entry = \"front\"", "entry = \"back\"\nentri = 1");
    assert!(process.read(&bad).await.is_none());
    assert_eq!(
        (process.reload.app.entry, process.reload.app.origin.text),
        (before.entry, before.origin.text)
    );
}

/// Services are those of the start: others are named, those that are gone keep what they had, and the entry is one of them.
#[tokio::test]
async fn services_are_those_of_the_start() {
    let mut process = Process::new();
    let text = r#"
        entry = "new"
        namespace = "shop"
        [[cell]]
        component = "a.wasm"
        services = ["new", "back"]
    "#;
    assert_eq!(process.restart(text), ["cell[0].services", "dpu.body_bytes_max", "entry"]);
    let settings = process.read(text).await.expect("taken over");
    assert_eq!(settings.routes.entry().0, 0);
    assert_eq!(settings.routes.id_of_host("back.other"), None);
    assert_eq!(settings.allow.iter().map(Vec::len).collect::<Vec<_>>(), [1, 0]);
    assert_eq!(settings.dpu.body_bytes_max, ByteSize::mib(1));
}

/// Where cells are in workers, those have to be started again for what is theirs.
#[test]
fn workers_are_told_of() {
    let mut process = Process::new();
    let text = APP.replace("one.example", "two.example") + "retry_worker_lost = true";
    assert_eq!(process.restart(&text), Vec::<String>::new());
    process.reload.cells = Cells::InWorkers;
    assert_eq!(process.restart(&text), ["cell[0].egress.allow (workers)", "dpu.retry_worker_lost (workers)"]);
}

/// What was refused for a file that it names is taken over when that is there, and is forgotten then. Another text takes its place.
#[tokio::test]
async fn refused_text_is_tried_again() {
    let mut process = Process::new();
    let text =
        APP.replace("entry = \"front\"", "entry = \"back\"") + "[service.back.jwt]\njwks = \"keys.json\"\n";
    assert!(process.read(&text).await.is_none() && process.try_again().await.is_none());
    assert_eq!(process.reload.refused.as_ref().map(|refused| refused.wait), Some(2 * AGAIN_FIRST));
    let keys = include_str!("../../../daemons/dpu/src/policy/jwt/testdata/jwks.json");
    std::fs::write(process.folder.path().join("keys.json"), keys).expect("a file in a temporary folder");
    let settings = process.try_again().await.expect("taken over");
    assert_eq!(settings.routes.entry().0, 1);
    assert!(process.reload.refused.is_none() && process.try_again().await.is_none());

    assert!(process.read("entri = 1").await.is_none());
    let _ = process.read(APP).await.expect("taken over");
    assert!(process.reload.refused.is_none());
}

/// A file that is refused is shown as that until it is taken over, also when keys of what is in force change meanwhile: these are
/// taken over alone, and the file is tried again at once.
#[tokio::test]
async fn file_is_shown_as_refused_until_it_is_not() {
    let mut process = Process::new();
    let keys = include_str!("../../../daemons/dpu/src/policy/jwt/testdata/jwks.json");
    let write = |process: &Process, name: &str, text: &str| {
        std::fs::write(process.folder.path().join(name), text).expect("a file in a temporary folder");
    };
    let is_refused = |process: &Process| process.reload.reloads.is_refused();
    write(&process, "keys.json", keys);
    let in_force = format!("{APP}[service.back.jwt]\njwks = \"keys.json\"\n");
    process.read(&in_force).await.expect("taken over");
    assert!(!is_refused(&process));
    let wrong = in_force.replace("entry = \"front\"", "entry = \"back\"").replace("keys.json", "others.json");
    assert!(process.read(&wrong).await.is_none() && is_refused(&process));
    let next = process.reload.refused.as_ref().expect("it is tried again").next;

    write(&process, "keys.json", &keys.replacen("\"keys\"", "\"x\": 1, \"keys\"", 1));
    let settings = process.taken(async |reload| reload.look_at_keys().await).await.expect("other keys");
    assert_eq!(settings.routes.entry().0, 0, "what is in force, with its other keys");
    assert!(is_refused(&process), "the file still is");
    let refused = process.reload.refused.as_ref().expect("it is tried again");
    assert!(refused.text.as_ref() == Some(&wrong) && refused.next < next, "it may be right now");

    write(&process, "others.json", keys);
    let settings = process.try_again().await.expect("taken over");
    assert!(settings.routes.entry().0 == 1 && !is_refused(&process));
}

/// What is still wrong is not told again; what is wrong instead is. Waits grow up to a bound.
#[test]
fn refusals_are_told_once() {
    let problems = |wrong: &[&str]| {
        let problem = |wrong: &&str| config::Problem::of_file(Path::new("app.toml"), wrong, "write it");
        Problems(wrong.iter().map(problem).collect())
    };
    let mut refused = Refused::new(None, &problems(&["a"]));
    let news = ["a", "b", "b", "a"].map(|wrong| refused.is_news(&problems(&[wrong])));
    assert_eq!(news, [false, true, false, true]);
    assert!(refused.is_news(&problems(&["a", "b"])));
    let mut waits = Vec::new();
    for _ in 0..7 {
        waits.push(refused.wait.as_secs());
        refused.wait_longer();
    }
    assert_eq!(waits, [2, 4, 8, 16, 32, 60, 60]);
}
