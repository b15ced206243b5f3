//! Servers as child processes: started, found by the address that they print, measured, killed when dropped.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::serve::NativeService;

/// The address of a process that listens nowhere.
const NOWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// How often and how long a server is waited for.
const READY_TRIES: u32 = 200;
const READY_PAUSE: Duration = Duration::from_millis(50);

/// A server that is running, with the servers that it calls.
pub(crate) struct Server {
    child: Child,
    address: SocketAddr,
    callees: Vec<Server>,
    socket: Option<PathBuf>,
    admin: Option<SocketAddr>,
    /// The folder of its config.
    _folder: Option<tempfile::TempDir>,
}

impl Server {
    /// `cellmesh run` on a config of this text.
    pub(crate) fn cellmesh(program: &Path, file: &str, config: &str) -> Result<Self> {
        Self::cellmesh_with(program, file, config, &[])
    }

    /// The same, with further arguments.
    pub(crate) fn cellmesh_with(program: &Path, file: &str, config: &str, args: &[&str]) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join(file);
        fs::write(&path, config)?;
        let mut command = Command::new(program);
        command.arg("run").arg(path).args(["--listen", "127.0.0.1:0"]).args(args);
        Self::start(command, Some(folder))
    }

    /// `cellmesh node` on a config of this text, and a worker for each service.
    pub(crate) fn cellmesh_split(
        program: &Path,
        file: &str,
        config: &str,
        services: &[&str],
    ) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let (path, socket) = (folder.path().join(file), folder.path().join("dpa.sock"));
        fs::write(&path, config)?;
        let command = |name: &str| {
            let mut command = Command::new(program);
            command.arg(name).arg(&path).arg("--socket").arg(&socket).env("RUST_LOG", "error");
            command
        };
        let mut node = command("node");
        node.args(["--listen", "127.0.0.1:0"]);
        let mut workers = Vec::new();
        for service in services {
            let mut worker = command("worker");
            let child = worker.args(["--service", service]).stdout(Stdio::null()).spawn()?;
            workers.push(Self::running(child, NOWHERE, None));
        }
        let mut server = Self::start(node, Some(folder))?.with(workers);
        server.socket = Some(socket);
        Ok(server)
    }

    /// Where workers attach to it, if it is split.
    pub(crate) fn socket(&self) -> Option<&Path> {
        self.socket.as_deref()
    }

    /// Waits until a `GET` is answered with 200.
    pub(crate) fn until_ready(&self, path: &str) -> Result<()> {
        for _ in 0..READY_TRIES {
            let mut stream = TcpStream::connect(self.address)?;
            write!(stream, "GET {path} HTTP/1.1\r\nhost: ready\r\nconnection: close\r\n\r\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            if answer.starts_with("HTTP/1.1 200") {
                return Ok(());
            }
            std::thread::sleep(READY_PAUSE);
        }
        bail!("{} does not answer 200", self.address)
    }

    /// This program as a native service.
    pub(crate) fn native(service: &NativeService) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("native-service").args(service.callees.iter().map(ToString::to_string));
        command.arg(format!("--pi-digits={}", service.pi_digits));
        Self::start(command, None)
    }

    /// A program that says nothing and will listen at `address`; waits until it does.
    pub(crate) fn silent(
        mut command: Command,
        address: SocketAddr,
        folder: Option<tempfile::TempDir>,
    ) -> Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().with_context(|| format!("cannot start {command:?}"))?;
        let server = Self::running(child, address, folder);
        for _ in 0..READY_TRIES {
            if TcpStream::connect(address).is_ok() {
                return Ok(server);
            }
            std::thread::sleep(READY_PAUSE);
        }
        bail!("{command:?} does not listen on {address}")
    }

    /// A process that listens at `address`.
    fn running(child: Child, address: SocketAddr, folder: Option<tempfile::TempDir>) -> Self {
        Self { child, address, callees: Vec::new(), socket: None, admin: None, _folder: folder }
    }

    /// The same server; `callees` belong to it from now on.
    pub(crate) fn with(mut self, callees: impl IntoIterator<Item = Self>) -> Self {
        self.callees.extend(callees);
        self
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Processor time booked so far, callees included.
    pub(crate) fn cpu_time(&self) -> Result<Duration> {
        let own = booked(&fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?)?;
        self.callees.iter().try_fold(own, |sum, callee| Ok(sum + callee.cpu_time()?))
    }

    /// Memory that is in use, in bytes: `VmRSS`, which counts memory shared with nobody else too.
    pub(crate) fn resident_bytes(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no such process")?;
        let kib: u64 = line.trim().trim_end_matches(" kB").trim().parse()?;
        Ok(kib * 1024)
    }

    /// With the admin port that its config names.
    pub(crate) fn with_admin(mut self, admin: SocketAddr) -> Self {
        self.admin = Some(admin);
        self
    }

    /// A counter of `/metrics`, by its name with labels; 0 if it is not there.
    pub(crate) fn metric(&self, name: &str) -> Result<u64> {
        let mut stream = TcpStream::connect(self.admin.context("it has no admin port")?)?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        Ok(value.map(str::parse).transpose()?.unwrap_or(0))
    }

    /// Entries of a folder of `/proc` about it: `fd`, `task`.
    pub(crate) fn count_of(&self, what: &str) -> Result<usize> {
        Ok(fs::read_dir(format!("/proc/{}/{what}", self.child.id()))?.count())
    }

    /// Mappings of its memory.
    pub(crate) fn mappings(&self) -> Result<usize> {
        Ok(fs::read_to_string(format!("/proc/{}/maps", self.child.id()))?.lines().count())
    }

    fn start(mut command: Command, folder: Option<tempfile::TempDir>) -> Result<Self> {
        let mut child =
            command.stdout(Stdio::piped()).spawn().with_context(|| format!("cannot start {command:?}"))?;
        let stdout = child.stdout.take().context("its standard output")?;
        match BufReader::new(stdout).lines().map_while(Result::ok).find_map(|line| address_in(&line)) {
            Some(address) => Ok(Self::running(child, address, folder)),
            None => {
                child.kill()?;
                bail!("{command:?} ended without saying where it listens")
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to kill or to wait for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The address behind `http://` in a line.
fn address_in(line: &str) -> Option<SocketAddr> {
    let (_, rest) = line.split_once("http://")?;
    rest.split(|c: char| c == '/' || c.is_whitespace()).next()?.parse().ok()
}

/// User and system time in a line of `/proc/<pid>/stat`: fields 14 and 15, in ticks of 10 ms. Source: proc(5); the
/// tick is 100 Hz on every Linux that userland has been compiled for.
fn booked(stat: &str) -> Result<Duration> {
    // The name in field 2 may hold spaces; what follows its closing bracket does not.
    let (_, rest) = stat.rsplit_once(')').context("no such process")?;
    let ticks = rest.split_whitespace().skip(11).take(2).map(str::parse::<u64>).sum::<Result<u64, _>>()?;
    Ok(Duration::from_millis(ticks * 10))
}

/// An address that is free now.
pub(crate) fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

/// The folder of the compiled cells.
pub(crate) fn cells() -> Result<PathBuf> {
    let dir = std::env::var_os("CELLMESH_CELLS")
        .context("CELLMESH_CELLS is not set: run cargo xtask bench serve")?;
    PathBuf::from(dir).canonicalize().context("the folder of the cells")
}

/// The program.
pub(crate) fn cellmesh() -> Result<PathBuf> {
    let program =
        std::env::var_os("CELLMESH_BIN").context("CELLMESH_BIN is not set: run cargo xtask bench serve")?;
    Ok(PathBuf::from(program))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Name and spaces in it do not shift the fields.
    #[test]
    fn booked_time_is_read() {
        let stat = "7 (a b) c) S 1 7 7 0 -1 4194304 100 0 0 0 12 3 0 0 20 0";
        assert_eq!(booked(stat).unwrap(), Duration::from_millis(150));
    }

    /// The first line of either server names its address.
    #[test]
    fn address_is_found() {
        assert_eq!(address_in("x: 3 services on http://127.0.0.1:81"), "127.0.0.1:81".parse().ok());
        assert_eq!(address_in("note"), None);
    }
}
