//! Cells that come from a registry, a real one.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use cellmesh_tests::upstream::{self, nobody};
use cellmesh_tests::{Artifact, Ca, Node, Registry, Reply, Run, Setup, Upstream, Wire, cell};
use tempfile::TempDir;

/// `wonderland`, as htpasswd keeps it (bcrypt).
const ALICE: &str = "alice:$2b$05$abcdefghijklmnopqrstuuA0vov2GDneHB3.8.cv9UF9g.RdvScIW";
/// `alice:wonderland` in base64.
const ALICES_AUTH: &str = "YWxpY2U6d29uZGVybGFuZA==";

/// A registry in cleartext that lets everybody in; none where tests have to do without.
fn registry() -> Option<Registry> {
    Registry::start(&Setup::default())
}

fn hello() -> Vec<u8> {
    fs::read(cell("hello")).expect("readable")
}

fn app(reference: &str) -> String {
    format!("[[cell]]\ncomponent = \"{reference}\"\nservices = [\"hello\"]\n")
}

/// Pulls with a cache of its own, and without the credentials of whoever runs this test.
struct Puller(TempDir);

impl Puller {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary folder"))
    }

    fn cache(&self) -> PathBuf {
        self.0.path().join("cache")
    }

    fn run(&self, app: &str) -> Run {
        let nothing = self.0.path().join("docker");
        Run::app(app).cache_dir(&self.cache()).env("DOCKER_CONFIG", nothing.to_str().expect("text"))
    }

    /// Serves the hello cell; how often something was pulled.
    #[track_caller]
    fn serves(&self, app: &str) -> usize {
        served(self.run(app).start())
    }

    /// A start that fails: status 1, nothing was served, a last line with these parts.
    #[track_caller]
    fn fails(&self, app: &str, parts: &[&str]) {
        self.run(app).end().failed_saying(parts);
    }

    fn write_docker_config(&self, registry: &str) {
        let folder = self.0.path().join("docker");
        fs::create_dir_all(&folder).expect("a folder");
        fs::write(folder.join("config.json"), docker_config(registry)).expect("writable");
    }
}

fn docker_config(registry: &str) -> String {
    format!(r#"{{"auths": {{"{registry}": {{"auth": "{ALICES_AUTH}"}}}}}}"#)
}

#[track_caller]
fn served(node: Node) -> usize {
    assert_eq!(node.get("hello", "/").ok().text(), "hello\n");
    node.stop().stderr.lines().filter(|line| line.contains("\"message\":\"pulled\"")).count()
}

/// The files of a cache that were pulled.
fn pulled(cache: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(cache.join("oci")).expect("something was pulled");
    files.map(|file| file.expect("readable").path()).collect()
}

/// A cell is served from the registry, and the next time without it.
#[test]
fn second_start_needs_no_registry() {
    let Some(mut registry) = registry() else { return };
    let (puller, app) = (Puller::new(), app(&registry.push("shop/hello", &hello())));
    assert_eq!(puller.serves(&app), 1);
    assert_eq!(pulled(&puller.cache()).len(), 2, "manifest and component");
    registry.stop();
    assert_eq!(puller.serves(&app), 0);
}

/// A changed byte in any file that was pulled is noticed, and the file pulled again; without a registry nothing is served.
#[test]
fn changed_file_is_pulled_again() {
    let Some(mut registry) = registry() else { return };
    let (puller, app) = (Puller::new(), app(&registry.push("hello", &hello())));
    assert_eq!(puller.serves(&app), 1);
    let change = |file: &Path| {
        let mut bytes = fs::read(file).expect("readable");
        bytes[7] ^= 1;
        fs::write(file, bytes).expect("writable");
    };
    let files = pulled(&puller.cache());
    for file in &files {
        let before = fs::read(file).expect("readable");
        change(file);
        assert_eq!(puller.serves(&app), 1, "{}", file.display());
        assert_eq!(fs::read(file).expect("readable"), before);
    }
    change(&files[0]);
    registry.stop();
    puller.fails(&app, &["cannot pull the component oci://", "no connection to the registry", "refused"]);
}

/// Other bytes than those that config names are not run, whoever serves them; the error has both digests.
#[test]
fn wrong_bytes_are_refused() {
    let Some(registry) = registry() else { return };
    let (puller, bytes) = (Puller::new(), hello());
    let app = app(&registry.push("hello", &bytes));
    let file = registry.file_of(&bytes);
    let mut changed = bytes.clone();
    changed[100] ^= 1;
    fs::write(&file, &changed).expect("writable");
    let digest = |bytes: &[u8]| {
        let digits = registry.file_of(bytes);
        let digits = digits.parent().and_then(Path::file_name).expect("a folder for each digest");
        format!("sha256:{}", digits.display())
    };
    let (expected, found) = (digest(&bytes), digest(&changed));
    puller.fails(&app, &["the registry's component is ", &found, "and not", &expected]);
    assert!(!puller.cache().join("oci").exists(), "nothing of it is kept");
    fs::write(&file, &bytes).expect("writable");
    assert_eq!(puller.serves(&app), 1);
}

/// What is not there, what is no cell, and nobody who answers: each says what it is.
#[test]
fn what_cannot_be_had_is_told() {
    let Some(registry) = registry() else { return };
    let (puller, name) = (Puller::new(), registry.name());
    let good = registry.push("hello", &hello());
    let (place, digest) = good.split_once('@').expect("a digest");
    let other = format!("{place}@sha256:{}", "0".repeat(64));
    puller.fails(&app(&other), &[&other, "has no such manifest in hello"]);
    let elsewhere = format!("oci://{name}/elsewhere@{digest}");
    puller.fails(&app(&elsewhere), &[&elsewhere, "has no such manifest in elsewhere"]);

    let cell = Artifact::cell("image", b"cell");
    let image = "application/vnd.oci.image.config.v1+json";
    let image = registry.push_as(&Artifact { config_type: image, ..cell });
    puller.fails(
        &app(&image),
        &["the config has the media type", "image.config", "must be", "vnd.wasm.config.v0+json"],
    );
    let cell = Artifact::cell("image", b"cell");
    let layer =
        registry.push_as(&Artifact { layer_type: "application/vnd.oci.image.layer.v1.tar+gzip", ..cell });
    puller.fails(&app(&layer), &["the layer has the media type", "tar+gzip", "must be \"application/wasm\""]);
    let garbage = registry.push("garbage", b"no component at all");
    puller.fails(&app(&garbage), &[&format!("component {garbage}")]);

    let nobody = format!("oci://{}/hello@{digest}", nobody());
    puller.fails(
        &app(&nobody),
        &["cannot pull the component", &nobody, "no connection to the registry", "refused"],
    );
}

/// `check` pulls what is not here, and says what cannot be had.
#[test]
fn check_pulls() {
    let Some(mut registry) = registry() else { return };
    let (puller, good) = (Puller::new(), registry.push("hello", &hello()));
    let few = "[dpu]\nconnections_max = 100\n";
    let check = |reference: &str| puller.run(&format!("{}{few}", app(reference))).arg("--verbose").check();
    let ended = check(&good.replace("hello@", "elsewhere@"));
    assert_eq!(ended.code, Some(1), "{}", ended.stdout);
    let parts = "has no such manifest in elsewhere: compare the reference with what was pushed there; remedy: see docs/";
    assert!(ended.stdout.contains(parts), "{}", ended.stdout);
    let ended = check(&good);
    assert_eq!(ended.code, Some(0), "{}", ended.stdout);
    assert!(ended.stdout.contains(&format!("ok: {good}: a cell, compiled at the start")), "{}", ended.stdout);
    registry.stop();
    assert_eq!(puller.serves(&app(&good)), 0, "it was pulled by the check");
}

/// A reference that is mistyped is a mistake of the config; a tag is told where its digest is.
#[test]
fn mistyped_reference_is_refused() {
    let check = |reference: &str, parts: &[&str]| {
        let ended = Run::app(&app(reference)).end();
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(2), ""), "{}", ended.stderr);
        for part in [&["app.toml:2: cell[0].component"], parts].concat() {
            assert!(ended.stderr.contains(part), "no {part:?} in {}", ended.stderr);
        }
    };
    check("oci://r.example/hello:1.0", &["the tag \"1.0\"", "add @sha256:", "/v2/hello/manifests/1.0"]);
    check("oci://r.example/hello@sha256:12", &["the digest \"sha256:12\" has 2 digits of 64"]);
    check("oci://r.example/Hello@sha256:12", &["\"Hello\" in the repository"]);
    check("oci://r.example:x/hello@sha256:12", &["the port \"x\" is none"]);
}

/// A registry that asks who is there is told from a file in the form of docker's; without one the error says where it may be.
#[test]
fn credentials_come_from_a_file() {
    let Some(registry) = Registry::start(&Setup { htpasswd: Some(ALICE), ..Setup::default() }) else {
        return;
    };
    let (puller, bytes, name) = (Puller::new(), hello(), registry.name());
    let authorization = format!("Basic {ALICES_AUTH}");
    let cell = Artifact { authorization: Some(&authorization), ..Artifact::cell("hello", &bytes) };
    let app = app(&registry.push_as(&cell));
    let login = format!("`docker login {name}`");
    puller.fails(
        &app,
        &["asks for credentials (401 Unauthorized)", "config.json", &login, "registry.credentials"],
    );
    puller.write_docker_config(&name);
    assert_eq!(puller.serves(&app), 1);

    let other = Puller::new();
    let named = format!("{app}[registry]\ncredentials = \"who.json\"\n");
    let run = |auth: &str| {
        let text = docker_config(&name).replace(ALICES_AUTH, auth);
        other.run(&named).with_file("who.json", text)
    };
    let wrong = run("YWxpY2U6c2VjcmV0"); // alice:secret
    wrong.end().failed_saying(&["refuses the credentials that", "who.json has for it (401 Unauthorized)"]);
    assert_eq!(served(run(ALICES_AUTH).start()), 1);
}

/// Over TLS a registry has to be vouched for by a CA that config names.
#[test]
fn tls_is_checked() {
    let ca = Ca::new();
    let identity = ca.sign();
    let Some(registry) = Registry::start(&Setup { tls: Some((&ca, &identity)), ..Setup::default() }) else {
        return;
    };
    let (puller, app) = (Puller::new(), app(&registry.push("hello", &hello())));
    let with = |pem: String| {
        let app = format!("{app}[registry]\nplain_http = []\nca = \"ca.pem\"\n");
        puller.run(&app).with_file("ca.pem", pem)
    };
    with(Ca::new().pem()).end().failed_saying(&["no connection to the registry localhost:", "certificate"]);
    assert_eq!(served(with(ca.pem()).start()), 1);
}

/// A registry may send elsewhere for a token, and elsewhere again for the bytes, which gets no token.
#[test]
fn token_is_had_and_kept_from_others() {
    let Some(registry) = registry() else { return };
    let reference = registry.push("hello", &hello());
    let behind = registry.name();
    let store = Upstream::start({
        let behind = behind.clone();
        move |head, _, stream| {
            let reply = passed_on(&behind, head);
            upstream::reply(stream, reply.status, "", &reply.body)
        }
    });
    let elsewhere = store.address();
    let front = Upstream::start(move |head, _, stream| {
        let (lower, host) = (head.to_lowercase(), header(head, "host"));
        let target = target(head);
        // A realm may be a host and nothing else.
        if target.starts_with("/?service=cells&scope=repository%3Ahello%3Apull") {
            assert_eq!(header(head, "authorization"), format!("Basic {ALICES_AUTH}"));
            return upstream::reply(stream, 200, "", br#"{"token": "t0ken", "expires_in": 60}"#);
        }
        if !lower.contains("authorization: bearer t0ken\r\n") {
            let challenge = format!(
                "www-authenticate: Bearer realm=\"http://{host}\",service=\"cells\",scope=\"repository:hello:pull\"\r\n"
            );
            return upstream::reply(stream, 401, &challenge, b"");
        }
        upstream::reply(stream, 307, &format!("location: http://{elsewhere}{target}\r\n"), b"")
    });
    let puller = Puller::new();
    let address = front.address().to_string();
    puller.write_docker_config(&address);
    assert_eq!(puller.serves(&app(&reference.replace(&behind, &address))), 1);
    let heads = store.heads();
    assert_eq!(heads.len(), 2, "manifest and component: {heads:?}");
    assert!(heads.iter().all(|head| !head.contains("authorization")), "{heads:?}");
    let asked_for_token = front.heads().iter().filter(|head| head.starts_with("get /?service")).count();
    assert_eq!(asked_for_token, 1, "the token is kept");
}

/// A registry that is busy for a moment is asked again; one that sends more than it said is not believed.
#[test]
fn hostile_and_busy_registries() {
    let Some(registry) = registry() else { return };
    let reference = registry.push("hello", &hello());
    let behind = registry.name();
    let busy = Upstream::start({
        let behind = behind.clone();
        let asked = AtomicUsize::new(0);
        move |head, _, stream| {
            if asked.fetch_add(1, Ordering::Relaxed).is_multiple_of(2) {
                return upstream::reply(stream, 503, "", b"busy");
            }
            let reply = passed_on(&behind, head);
            upstream::reply(stream, reply.status, "", &reply.body)
        }
    });
    let at = |upstream: &Upstream| app(&reference.replace(&behind, &upstream.address().to_string()));
    assert_eq!(Puller::new().serves(&at(&busy)), 1);

    let endless = Upstream::start(|_, _, stream| upstream::reply(stream, 200, "", &vec![b' '; 1 << 20]));
    Puller::new().fails(&at(&endless), &["the registry's manifest has more than the 262144 bytes"]);
    let circle = Upstream::start(|head, _, stream| {
        upstream::reply(stream, 307, &format!("location: {}\r\n", target(head)), b"")
    });
    Puller::new().fails(&at(&circle), &["redirects more than 5 times"]);
    let away = Upstream::start(|_, _, stream| {
        upstream::reply(stream, 307, "location: http://198.51.100.7/blob?signature=x\r\n", b"")
    });
    Puller::new().fails(&at(&away), &["leads to http://198.51.100.7/blob, which is not https://"]);
    let down = Upstream::start(|_, _, stream| upstream::reply(stream, 500, "", b""));
    Puller::new()
        .fails(&at(&down), &["answered 500 Internal Server Error when it was asked for the manifest"]);
    assert_eq!(down.connections(), 3, "a few tries");
}

/// What the registry says to the same request.
fn passed_on(registry: &str, head: &str) -> Reply {
    let mut wire = Wire::connect(registry.parse().expect("an address"));
    let (target, accept) = (target(head), header(head, "accept"));
    wire.send(format!("GET {target} HTTP/1.1\r\nhost: {registry}\r\naccept: {accept}\r\n\r\n"));
    wire.reply()
}

fn target(head: &str) -> &str {
    head.split(' ').nth(1).expect("a request line")
}

fn header<'h>(head: &'h str, name: &str) -> &'h str {
    let line = head.lines().find(|line| line.to_lowercase().starts_with(&format!("{name}: ")));
    line.map_or("", |line| &line[name.len() + 2..])
}
