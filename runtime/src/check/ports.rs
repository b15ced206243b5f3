//! Addresses: whether they can be bound, and if not, who has them.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::path::Path;

use super::Finding;

/// Processes that are looked at to find one that holds an address.
const PROCESSES_MAX: usize = 65_536;

/// The state of a listener in `/proc/net/tcp`. Source: `TCP_LISTEN`, include/net/tcp_states.h.
const LISTENING: &str = "0A";

/// An address that is to be listened on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    key: &'static str,
    option: &'static str,
    address: SocketAddr,
}

impl Wanted {
    /// - `key`: what in the file says so.
    /// - `option`: what else may.
    pub(super) fn new(key: &'static str, option: &'static str, address: SocketAddr) -> Self {
        Self { key, option, address }
    }
}

/// Binds all of them at once, as the start does, and lets them go.
pub(super) fn look(wanted: &[Wanted]) -> Vec<Finding> {
    let mut held: Vec<(Wanted, TcpListener)> = Vec::new();
    let mut findings = Vec::new();
    for one in wanted {
        match TcpListener::bind(one.address) {
            Ok(listener) => {
                findings.push(Finding::ok(format!("{} = {}: can be bound", one.key, one.address)));
                held.push((*one, listener));
            }
            Err(error) => {
                let holder = match held.iter().find(|(other, _)| other.address.port() == one.address.port()) {
                    Some((other, _)) => Some(format!("{} of the same file", other.key)),
                    None => holder(one.address),
                };
                findings.push(judge(one, &error, holder.as_deref()));
            }
        }
    }
    findings
}

fn judge(wanted: &Wanted, error: &io::Error, holder: Option<&str>) -> Finding {
    let Wanted { key, option, address } = wanted;
    let elsewhere =
        if key == option { format!("another {key}") } else { format!("another address ({key}, {option})") };
    let what = format!("{key} = {address}");
    if error.kind() == io::ErrorKind::AddrInUse {
        let holder = holder.unwrap_or("a process that this user cannot see");
        return Finding::error(
            format!("{what}: is taken by {holder}"),
            format!("end that, or name {elsewhere}"),
        );
    }
    let remedy = if error.kind() == io::ErrorKind::AddrNotAvailable {
        format!("`ip address` lists those of this machine; name {elsewhere}")
    } else if error.kind() == io::ErrorKind::PermissionDenied {
        format!(
            "ports below net.ipv4.ip_unprivileged_port_start need the capability CAP_NET_BIND_SERVICE; name {elsewhere}"
        )
    } else {
        format!("name {elsewhere}")
    };
    Finding::error(format!("{what}: cannot be bound: {error}"), remedy)
}

/// Who listens there, as `name (pid 7)`, where the system says so.
fn holder(address: SocketAddr) -> Option<String> {
    let tables =
        ["/proc/net/tcp", "/proc/net/tcp6"].map(|table| fs::read_to_string(table).unwrap_or_default());
    let inode = tables.iter().find_map(|table| inode_of_listener(table, address))?;
    let processes = fs::read_dir("/proc").ok()?.flatten().filter(is_process).take(PROCESSES_MAX);
    processes.map(|process| process.path()).find(|process| holds(process, &inode)).map(|process| {
        let name = fs::read_to_string(process.join("comm")).unwrap_or_default();
        format!("{} (pid {})", name.trim(), process.file_name().unwrap_or_default().display())
    })
}

/// Not `/proc/self`, nor anything else.
fn is_process(entry: &fs::DirEntry) -> bool {
    entry.file_name().to_str().is_some_and(|name| name.parse::<u32>().is_ok())
}

fn holds(process: &Path, inode: &str) -> bool {
    let socket = format!("socket:[{inode}]");
    let Ok(descriptors) = fs::read_dir(process.join("fd")) else { return false };
    descriptors.flatten().any(|descriptor| {
        fs::read_link(descriptor.path()).is_ok_and(|target| target.as_os_str() == socket.as_str())
    })
}

/// The inode of whoever listens at an address, or at all of them with its port. Source: proc_pid_net(5).
fn inode_of_listener(table: &str, address: SocketAddr) -> Option<String> {
    let line = table.lines().skip(1).find(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let local = fields.next().and_then(address_of);
        let state = fields.nth(1);
        state == Some(LISTENING) && local.is_some_and(|local| collide(local, address))
    })?;
    line.split_whitespace().nth(9).map(str::to_owned)
}

fn collide(one: SocketAddr, other: SocketAddr) -> bool {
    let any = one.ip().is_unspecified() || other.ip().is_unspecified();
    one.port() == other.port() && (any || one.ip().to_canonical() == other.ip().to_canonical())
}

/// An address as the kernel writes it: hexadecimal words in the machine's own order, and a port.
fn address_of(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let words = ip.as_bytes().chunks(8).map(|word| {
        let word = u32::from_str_radix(std::str::from_utf8(word).ok()?, 16).ok()?;
        Some(word.to_ne_bytes())
    });
    let bytes = words.collect::<Option<Vec<_>>>()?.concat();
    let ip = match bytes.len() {
        4 => IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?)),
        16 => IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?)),
        _ => return None,
    };
    Some(SocketAddr::new(ip, u16::from_str_radix(port, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel wrote on a machine of the usual byte order.
    #[cfg(target_endian = "little")]
    const TABLE: &str = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:138D 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4242 1 0000 100 0 0 10 0
   1: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 17 1 0000 100 0 0 10 0
   2: 0100007F:1F90 0100007F:0016 01 00000000:00000000 00:00000000 00000000     0        0 18 1 0000 100 0 0 10 0
   3: 0000000000000000FFFF00000100007F:1770 00000000000000000000000000000000:0000 0A 0:0 0:0 0 0 0 19 1 0 100 0 0
   garbage";

    /// Listeners are found by their address, or because they have all of them; connections are none.
    #[cfg(target_endian = "little")]
    #[test]
    fn listeners_are_found_in_the_table() {
        let inode = |address: &str| inode_of_listener(TABLE, address.parse().expect("an address"));
        assert_eq!(inode("127.0.0.1:5005").as_deref(), Some("4242"));
        assert_eq!(inode("0.0.0.0:5005").as_deref(), Some("4242"));
        assert_eq!(inode("127.0.0.2:5005"), None);
        assert_eq!(inode("10.0.0.1:22").as_deref(), Some("17"));
        assert_eq!(inode("127.0.0.1:8080"), None);
        assert_eq!(inode("127.0.0.1:6000").as_deref(), Some("19"));
    }

    /// This process is found as the holder of its own listener, and the finding says what to do.
    #[test]
    fn holder_is_named() {
        let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = taken.local_addr().expect("bound");
        let found = look(&[Wanted::new("listen", "--listen or CELLMESH_LISTEN", address)]);
        let said = found[0].to_string();
        assert!(said.starts_with(&format!("error: listen = {address}: is taken by ")), "{said}");
        assert!(said.contains(&format!("(pid {})", std::process::id())), "{said}");
        assert!(
            said.ends_with(
                "; remedy: end that, or name another address (listen, --listen or CELLMESH_LISTEN)"
            )
        );
    }

    /// Two of our own that are one are told from somebody else's.
    #[test]
    fn two_of_ours_collide() {
        let free = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port");
        let found =
            look(&[Wanted::new("listen", "--listen", free), Wanted::new("admin.listen", "--admin", free)]);
        assert!(found[1].to_string().contains("is taken by listen of the same file"), "{}", found[1]);
    }

    /// Each reason has its own remedy.
    #[test]
    fn remedies_fit_the_reason() {
        let wanted =
            Wanted::new("dpu.tls.listen", "dpu.tls.listen", "10.1.2.3:443".parse().expect("an address"));
        let said = |kind: io::ErrorKind| judge(&wanted, &kind.into(), None).to_string();
        assert!(said(io::ErrorKind::AddrNotAvailable).contains("`ip address` lists those of this machine"));
        assert!(
            said(io::ErrorKind::PermissionDenied)
                .contains("CAP_NET_BIND_SERVICE; name another dpu.tls.listen")
        );
        assert!(said(io::ErrorKind::AddrInUse).contains("is taken by a process that this user cannot see"));
    }
}
