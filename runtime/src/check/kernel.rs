//! What the kernel has to do for rings between processes, tried out: sealed shared memory, descriptors through a socket that
//! keeps borders, and a set that hears bells.

use std::os::fd::AsFd;

use cellmesh_shm::attach::{Channel, FromDpa, LinkWelcome, Received, Welcome};
use cellmesh_shm::bells::Bells;
use cellmesh_shm::ids::EndpointId;
use cellmesh_shm::link::{Link, LinkSpec};
use cellmesh_shm::profile::RingProfile;

use super::Finding;

/// What was tried, and what is needed for it.
type Step = (&'static str, &'static str);

const SHARED_MEMORY: Step = (
    "shared memory (memfd_create, with seals)",
    "Linux 5.1 or newer; a seccomp profile must allow memfd_create and fcntl F_ADD_SEALS, and /proc be mounted",
);
const DESCRIPTORS: Step = (
    "descriptors through a Unix socket (SOCK_SEQPACKET, SCM_RIGHTS)",
    "a seccomp profile or security module must allow socketpair, sendmsg and recvmsg with descriptors",
);
const BELLS: Step = ("a set of bells (epoll)", "a seccomp profile must allow epoll_create1 and epoll_ctl");

/// Makes a link as a DPA does, sends it, and opens it as a worker does.
pub(super) fn look() -> Vec<Finding> {
    vec![judge(&tried())]
}

fn judge(tried: &Result<(), (Step, String)>) -> Finding {
    match tried {
        Ok(()) => Finding::ok("kernel: sealed shared memory, descriptors through sockets, and bells"),
        Err(((what, remedy), why)) => Finding::error(format!("kernel: {what}: {why}"), *remedy),
    }
}

fn tried() -> Result<(), (Step, String)> {
    let profile = RingProfile::default();
    let spec = LinkSpec { endpoint: EndpointId(1), generation: 1, profile, message_bytes_max: 1 << 20 };
    let (near, far) = Link::create(spec).map_err(|error| failed(SHARED_MEMORY, error))?;
    let welcome = Welcome {
        services: Vec::new(),
        calls_max: 1,
        message_bytes_max: spec.message_bytes_max,
        links: vec![LinkWelcome { endpoint: spec.endpoint.0, generation: spec.generation, profile }],
    };
    let (here, there) = Channel::pair().map_err(|error| failed(DESCRIPTORS, error))?;
    here.send_from_dpa(&FromDpa::Welcome(welcome), &[far]).map_err(|error| failed(DESCRIPTORS, error))?;
    let received = there.receive_from_dpa().map_err(|error| failed(DESCRIPTORS, error))?;
    let Received::Attached(mut attached) = received else {
        return Err((DESCRIPTORS, "something else came than was sent".into()));
    };
    let link = attached.links.pop().ok_or((DESCRIPTORS, "none came".to_owned()))?;
    Link::open(link).map_err(|error| failed(SHARED_MEMORY, error))?;
    let heard = Bells::new().and_then(|mut bells| bells.add(spec.endpoint, near.sleep.as_fd()));
    heard.map_err(|error| failed(BELLS, error))
}

fn failed(step: Step, error: impl Into<anyhow::Error>) -> (Step, String) {
    (step, format!("{:#}", error.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where these tests run it works; where it does not, what was tried is named with what it needs.
    #[test]
    fn link_is_made_sent_and_opened() {
        assert_eq!(tried(), Ok(()));
        let refused = std::io::Error::from_raw_os_error(1);
        let said = judge(&Err(failed(DESCRIPTORS, refused))).to_string();
        assert!(said.starts_with("error: kernel: descriptors through a Unix socket"), "{said}");
        assert!(
            said.contains("Operation not permitted") && said.contains("; remedy: a seccomp profile"),
            "{said}"
        );
    }
}
