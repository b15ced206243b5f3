//! `[dpu.tls]`: where TLS is spoken, and with which files.
//!
//! ```toml
//! [dpu.tls]
//! listen = "0.0.0.0:5443"
//! certificate = "tls/tls.crt"      # relative to this file
//! key = "tls/tls.key"
//! client_ca = "tls/ca.crt"
//! client_certificates = "optional"
//! ```

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use cellmesh_dpu::Tls;
use cellmesh_dpu::config::{ClientCa, TlsConfig};
use cellmesh_dpu::units::TimeSpan;

use super::manifest::{LONGEST, SHORTEST};
use super::reader::{Source, Table};

/// What the section is read with.
pub(super) struct Around<'a> {
    /// Of the file.
    pub(super) folder: &'a Path,
    /// Where cleartext is spoken.
    pub(super) listen: SocketAddr,
    /// Whether this process speaks to clients and to hosts off the node.
    pub(super) has_clients: bool,
    /// Whether the files are looked at. Not each process has clients, and the key is for those who do; and one that runs
    /// follows them by itself.
    pub(super) checks_files: bool,
}

/// Reads the section, if it is there, and checks the files that it names.
pub(super) fn read(
    source: &mut Source<'_>,
    dpu: &mut Table<'_, '_>,
    around: &Around<'_>,
) -> Option<TlsConfig> {
    let mut table = dpu.table(source, "tls")?;
    let listen = listen(source, &mut table, around.listen);
    let certificate = required_file(source, &mut table, "certificate", around.folder);
    let key = required_file(source, &mut table, "key", around.folder);
    let clients = clients(source, &mut table, around.folder);
    let timeout = table.duration(source, "handshake_timeout", SHORTEST, LONGEST);
    let config = TlsConfig {
        listen,
        certificate,
        key,
        clients,
        handshake_timeout: timeout.map_or(TlsConfig::HANDSHAKE_TIMEOUT, TimeSpan),
    };
    if around.checks_files {
        check_files(source, &table, &config);
    }
    table.finish(source);
    Some(config)
}

fn listen(source: &mut Source<'_>, table: &mut Table<'_, '_>, cleartext: SocketAddr) -> SocketAddr {
    let address = table.address(source, "listen");
    if !table.has("listen") {
        let right = "name an address and a port for TLS, for example \"0.0.0.0:5443\"";
        source.note(Some(table.line()), table.path("listen"), "is missing", right);
    }
    let Some(address) = address else { return cleartext };
    if collide(address, cleartext) {
        let wrong = format!("{address} is where cleartext is spoken (listen = {cleartext})");
        let line = table.line_of_key(source, "listen");
        source.note(line, table.path("listen"), wrong, "name another port");
    }
    address
}

/// Whether two listeners cannot both be there; port 0 is a free one each time.
fn collide(one: SocketAddr, other: SocketAddr) -> bool {
    let any = one.ip().is_unspecified() || other.ip().is_unspecified();
    one.port() != 0 && one.port() == other.port() && (any || one.ip() == other.ip())
}

/// The path that a key names, empty if it names none.
fn required_file(
    source: &mut Source<'_>,
    table: &mut Table<'_, '_>,
    key: &'static str,
    folder: &Path,
) -> PathBuf {
    let file = table.text(source, key);
    if !table.has(key) {
        source.note(
            Some(table.line()),
            table.path(key),
            "is missing",
            "name a PEM file, relative to this one",
        );
    }
    file.map(|file| folder.join(file)).unwrap_or_default()
}

fn clients(source: &mut Source<'_>, table: &mut Table<'_, '_>, folder: &Path) -> Option<ClientCa> {
    let file = table.text(source, "client_ca");
    let choice = table.choice(source, "client_certificates", &["optional", "required"]);
    if choice.is_some() && !table.has("client_ca") {
        let line = table.line_of_key(source, "client_certificates");
        let right = "add client_ca, a PEM file with the CAs that sign certificates of clients";
        source.note(line, table.path("client_certificates"), "there is nothing to check them with", right);
    }
    file.map(|file| ClientCa { file: folder.join(file), required: choice != Some(0) })
}

fn check_files(source: &mut Source<'_>, table: &Table<'_, '_>, config: &TlsConfig) {
    let Err(problems) = Tls::load(config) else { return };
    // What is not named at all was told already.
    for problem in problems.0.into_iter().filter(|problem| table.has(problem.key)) {
        let line = table.line_of_key(source, problem.key);
        source.note(line, table.path(problem.key), problem.wrong, problem.right);
    }
}
