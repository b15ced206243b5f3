//! The sockets where the processes of a node meet.

use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use cellmesh_shm::attach::Channel;

use super::Finding;
use super::folders::{Nearest, nearest};
use crate::cli::CheckPart;
use crate::config::App;

/// What is said when another socket would do.
const OTHER: &str = "name another (dpa.socket, --socket or CELLMESH_SOCKET)";

/// What is at the path of a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    Nothing,
    /// Somebody listens.
    Live,
    /// A DPA that is gone left it.
    Stale,
    /// No socket.
    Other,
    /// This user may not connect.
    Forbidden,
    /// The kernel has a bound on their length.
    TooLong,
    /// No path at all.
    Empty,
}

impl Found {
    /// Why no socket can ever be there.
    fn impossible(self) -> Option<&'static str> {
        match self {
            Self::TooLong => Some("is longer than 107 bytes"),
            Self::Empty => Some("its path is empty"),
            Self::Nothing | Self::Live | Self::Stale | Self::Other | Self::Forbidden => None,
        }
    }
}

/// Looks at the sockets that a command makes, or at the one that it attaches to.
pub(super) fn look(app: &App, part: CheckPart) -> Vec<Finding> {
    let node = &app.node;
    match part {
        CheckPart::Run => Vec::new(),
        CheckPart::Dpu => vec![attaches(&node.socket, found(&node.socket))],
        CheckPart::Worker => vec![attaches(node.socket_of_worker(), found(node.socket_of_worker()))],
        CheckPart::Node | CheckPart::Dpa => {
            let paths =
                std::iter::once(&node.socket).chain(node.worker_sockets.iter().map(|socket| &socket.path));
            paths.map(|path| listens(path, found(path), &folder(path))).collect()
        }
    }
}

fn folder(socket: &Path) -> Nearest {
    nearest(socket.parent().unwrap_or_else(|| Path::new("")))
}

fn found(path: &Path) -> Found {
    if path.as_os_str().is_empty() {
        return Found::Empty;
    }
    let connected = Channel::connect(path);
    let Err(error) = connected else { return Found::Live };
    let is_socket = path.symlink_metadata().is_ok_and(|file| file.file_type().is_socket());
    match (error.kind(), is_socket) {
        (io::ErrorKind::NotFound, _) => Found::Nothing,
        (io::ErrorKind::WouldBlock, _) => Found::Live,
        (io::ErrorKind::PermissionDenied, _) => Found::Forbidden,
        (io::ErrorKind::ConnectionRefused, true) => Found::Stale,
        _ if rustix::net::SocketAddrUnix::new(path).is_err() => Found::TooLong,
        _ => Found::Other,
    }
}

/// Of a DPA that is to listen there.
fn listens(path: &Path, found: Found, folder: &Nearest) -> Finding {
    let shown = path.display();
    let there = folder.path.display();
    if let Some(why) = found.impossible() {
        return Finding::error(format!("socket {shown}: {why}"), OTHER);
    }
    if !folder.is_folder {
        return Finding::error(format!("socket {shown}: {there} is no folder"), OTHER);
    }
    if found == Found::Live {
        let found = format!("socket {shown}: another DPA listens there");
        return Finding::error(found, format!("end that, or {OTHER}"));
    }
    if found == Found::Other {
        let found = format!("socket {shown}: a file is there that is no socket of a DPA");
        return Finding::error(found, format!("remove it, or {OTHER}"));
    }
    if found == Found::Forbidden || !folder.is_writable {
        let uid = rustix::process::getuid().as_raw();
        let found = format!("socket {shown}: user {uid} may not make files in {there}");
        return Finding::error(found, format!("let that user write there, or {OTHER}"));
    }
    let state = match (found == Found::Stale, folder.is_meant) {
        (true, _) => "a DPA that is gone left it; it is replaced at the start",
        (false, true) => "can be made",
        (false, false) => "can be made, with its folder",
    };
    Finding::ok(format!("socket {shown}: {state}"))
}

/// Of a process that is to attach there. It waits for a DPA, so nothing here stops it from starting.
fn attaches(path: &Path, found: Found) -> Finding {
    let shown = path.display();
    if let Some(why) = found.impossible() {
        return Finding::error(format!("socket {shown}: {why}"), OTHER);
    }
    let wait = "start `cellmesh node` or `cellmesh dpa` with this file; until then this one waits";
    match found {
        Found::Live => Finding::ok(format!("socket {shown}: a DPA listens there")),
        Found::Nothing => Finding::warning(format!("socket {shown}: no DPA listens there"), wait),
        Found::Stale => Finding::warning(format!("socket {shown}: the DPA that made it is gone"), wait),
        Found::Other | Found::TooLong | Found::Empty => {
            Finding::error(format!("socket {shown}: is no socket of a DPA"), OTHER)
        }
        Found::Forbidden => {
            let uid = rustix::process::getuid().as_raw();
            let remedy =
                "let that user enter its folder and write to the socket, which the DPA makes with its umask";
            Finding::error(format!("socket {shown}: user {uid} may not connect to it"), remedy)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use cellmesh_shm::attach::AttachListener;

    use super::*;

    /// What is at a path is told apart.
    #[test]
    fn states_of_a_socket_are_told_apart() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let at = |name: &str| dir.path().join(name);
        assert_eq!(found(&at("none")), Found::Nothing);
        let live = AttachListener::bind(&at("live")).expect("a free path");
        assert_eq!(found(live.path()), Found::Live);
        std::fs::write(at("file"), b"").expect("writable");
        assert_eq!(found(&at("file")), Found::Other);
        // A listener of the standard library leaves its file behind, and is of another kind while it lives.
        let other = UnixListener::bind(at("other")).expect("a free path");
        assert_eq!(found(&at("other")), Found::Other);
        drop(other);
        assert_eq!(found(&at(&"a".repeat(200))), Found::TooLong);
        assert_eq!(found(Path::new("")), Found::Empty);
    }

    /// What stops a DPA, and what does not.
    #[test]
    fn dpa_needs_a_free_path() {
        let folder = Nearest { path: "/f".into(), is_meant: true, is_folder: true, is_writable: true };
        let said = |found, folder: &Nearest| listens(Path::new("/f/s"), found, folder).to_string();
        assert_eq!(said(Found::Nothing, &folder), "ok: socket /f/s: can be made");
        assert!(said(Found::Stale, &folder).starts_with("ok: socket /f/s: a DPA that is gone left it"));
        assert!(
            said(Found::Live, &folder)
                .starts_with("error: socket /f/s: another DPA listens there; remedy: end")
        );
        assert!(said(Found::Other, &folder).contains("no socket of a DPA; remedy: remove it"));
        assert!(said(Found::TooLong, &folder).contains("longer than 107 bytes"));
        assert!(said(Found::Empty, &folder).contains("its path is empty; remedy: name another"));
        let closed = Nearest { is_writable: false, ..folder.clone() };
        assert!(said(Found::Nothing, &closed).contains("may not make files in /f; remedy: let that user"));
        let file = Nearest { is_folder: false, ..folder };
        assert!(said(Found::Nothing, &file).contains("/f is no folder"));
    }

    /// A worker may start before the DPA; where it can never attach is an error.
    #[test]
    fn worker_may_come_first() {
        let said = |found| attaches(Path::new("/f/s"), found).to_string();
        assert_eq!(said(Found::Live), "ok: socket /f/s: a DPA listens there");
        assert!(
            said(Found::Nothing).starts_with("warning: socket /f/s: no DPA listens there; remedy: start")
        );
        assert!(
            said(Found::Stale)
                .starts_with("warning: socket /f/s: the DPA that made it is gone; remedy: start")
        );
        assert!(said(Found::Forbidden).starts_with("error: ") && said(Found::Other).starts_with("error: "));
        assert!(
            said(Found::TooLong).contains("longer than 107 bytes") && said(Found::Empty).contains("is empty")
        );
    }
}
