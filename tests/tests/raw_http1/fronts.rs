//! Behind another proxy that reads the same bytes (H-3 of the threat model): where it counts one request, the node never counts
//! two. It takes a while: only with `CELLMESH_FRONTS=1`, where they are installed.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use cellmesh_tests::upstream::nobody;
use cellmesh_tests::{Log, Run, Wire, sample, until};
use tempfile::TempDir;

use super::cases;

/// A proxy in front of a node, which writes a line for each request. Killed when this is dropped.
struct Front {
    child: Child,
    address: SocketAddr,
    log: Log,
    _dir: TempDir,
}

impl Drop for Front {
    fn drop(&mut self) {
        // One that has ended already is what we want.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Front {
    /// `None`: there is no such program here. `config`: with `{listen}`, `{node}` and `{dir}`.
    fn start(program: &str, args: &[&str], config: &str, node: SocketAddr) -> Option<Self> {
        let (address, dir) = (nobody(), tempfile::tempdir().expect("a temporary folder"));
        let file = dir.path().join("front.conf");
        let text = config
            .replace("{listen}", &address.to_string())
            .replace("{node}", &node.to_string())
            .replace("{dir}", &dir.path().display().to_string());
        std::fs::write(&file, text).expect("a file in a temporary folder");
        let child = Command::new(found(program)?)
            .args(args)
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn();
        let mut child = child.expect("a program that is installed starts");
        let log = Log::of(child.stdout.take().expect("stdout is piped"));
        until("the front listens", || std::net::TcpStream::connect(address).is_ok());
        Some(Self { child, address, log, _dir: dir })
    }

    /// Requests so far: lines of its log that begin as ours do.
    fn count(&self) -> usize {
        self.log.text().lines().filter(|line| line.starts_with("request ")).count()
    }
}

/// Also where only root looks for programs.
fn found(program: &str) -> Option<std::path::PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain([Path::new("/usr/sbin").to_owned()]);
    folders.map(|folder| folder.join(program)).find(|file| file.is_file())
}

const HAPROXY: &str = "
global
    log stdout format raw local0
defaults
    mode http
    log global
    log-format \"request %ST\"
    timeout connect 5s
    timeout client 100ms
    timeout http-request 100ms
    timeout http-keep-alive 100ms
    timeout server 10s
    retries 0
    http-reuse always
frontend front
    bind {listen}
    default_backend node
backend node
    server node {node}
";

const NGINX: &str = "
daemon off;
master_process off;
pid {dir}/pid;
error_log /dev/null;
events {}
http {
    log_format line 'request $status';
    access_log /dev/stdout line;
    client_body_temp_path {dir}/body;
    proxy_temp_path {dir}/proxy;
    fastcgi_temp_path {dir}/fastcgi;
    uwsgi_temp_path {dir}/uwsgi;
    scgi_temp_path {dir}/scgi;
    client_body_timeout 100ms;
    client_header_timeout 100ms;
    keepalive_timeout 100ms;
    lingering_close off;
    upstream node { server {node}; keepalive 4; }
    server {
        listen {listen};
        location / {
            proxy_pass http://node;
            proxy_http_version 1.1;
            proxy_set_header Connection \"\";
            proxy_next_upstream off;
        }
    }
}
";

/// Sends every case through the front, over connections to the node that the front uses again and again.
fn compare(program: &str, args: &[&str], config: &str) {
    if std::env::var_os("CELLMESH_FRONTS").is_none() {
        return eprintln!("skipped: CELLMESH_FRONTS is not set");
    }
    let admin = nobody();
    let toml = format!(
        "[admin]\nlisten = \"{admin}\"\n[[cell]]\ncomponent = \"{{cells}}/unruly.wasm\"\nservices = [\"s1\"]\n\
         [dpu]\nbody_bytes_max = \"1KiB\"\n"
    );
    let node = Run::app(&toml).lanes(1).start();
    let Some(front) = Front::start(program, args, config, node.address()) else {
        return eprintln!("skipped: {program} is not installed");
    };
    let received = || usize::try_from(sample(admin, "requests_received_total")).expect("few");
    let mut passed_on = 0;
    for case in cases() {
        let (at_front, at_node) = (front.count(), received());
        let mut wire = Wire::connect(front.address);
        case.send_behind(&mut wire);
        wire.rest();
        let count = received() - at_node;
        until(
            &format!("{}: {program} has told of the {count} requests that the node got", case.name()),
            || front.count() - at_front >= count,
        );
        passed_on += count;
    }
    assert!(passed_on > cases().len() / 2, "{program} let only {passed_on} requests through");
}

/// As HAProxy counts them.
#[test]
fn haproxy_counts_no_fewer() {
    compare("haproxy", &["-db", "-f"], HAPROXY);
}

/// As nginx counts them.
#[test]
fn nginx_counts_no_fewer() {
    compare("nginx", &["-c"], NGINX);
}
