//! The DPA as a daemon: takes in processes that come through its sockets, and lets them go when their socket ends.
//!
//! ```text
//!   serve(listener) --accept--> serve_peer: Hello, admission, links, Welcome
//!                                   |
//!                                   +-- Leave: nothing new goes there; Left once its rings hold all that it was sent
//!                                   +-- end of the socket, or the DPA closed one of its endpoints: detach all of them
//! ```
//!
//! - A process is the socket that it came in on and what config says of that socket ([`Admission`]); what it says of itself
//!   is for the log. Its number is for that too, and for who has to wait; it is 0 where it lives in another container.
//! - Everything runs on the lane that pumps the DPA: attaching and detaching happen between two pumps.
//! - An endpoint that the DPA has closed takes the other lanes of its process with it: they are one peer.
//! - A peer that broke a rule waits before it may attach again (`host/offences.rs`); one that was only slow does not.
//! - A peer that is refused again and again is logged less and less often (`host/refusals.rs`).

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt::Write as _;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::rc::Rc;
use std::time::Duration;

use cellmesh_shm::attach::{
    AttachListener, Channel, ChannelError, FromDpa, Hello, LinkWelcome, Role, ToDpa, Welcome,
};
use cellmesh_shm::clock::Nanos;
use cellmesh_shm::ids::{EndpointId, ServiceId};
use cellmesh_shm::link::{Link, LinkFds};
use cellmesh_shm::outlier::OutlierRule;
use cellmesh_shm::profile::RingProfile;
use cellmesh_shm::progress::Progress;
use rustix::process::{Pid, PidfdFlags};
use tokio::io::unix::AsyncFd;
use tokio::net::UnixStream;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use crate::reactor::{BellWatch, watch};
use crate::{Closed, Dpa, DpaConfig, DpaError, DpaStats, WorkerCount};

mod offences;
mod refusals;

use offences::{KEPT_MOST, Offences, Origin};
use refusals::Refusals;

/// From accept to the hello, and from the welcome to its being taken. A process says hello at once.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(1);

/// Processes attached, or about to be, through one socket.
const PEERS_MAX: usize = 256;

/// Services of a process that its log lines name; there may be a thousand, which it says of itself.
const SERVICES_LOGGED: usize = 8;

/// Pause after an accept that failed for want of a resource.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What may come in through a socket.
#[derive(Debug, Clone, Default)]
pub struct Admission {
    /// Services that workers may serve; all of the node if none are named.
    pub services: Option<HashSet<String>>,
    /// Whether sidecars may come in here.
    pub sidecars: bool,
}

/// A DPA with its sockets. A cheap handle that never leaves its thread.
#[derive(Debug, Clone)]
pub struct DpaHost(Rc<Shared>);

#[derive(Debug)]
struct Shared {
    dpa: RefCell<Dpa>,
    config: DpaConfig,
    services: Vec<String>,
    bells: BellWatch,
    peers: RefCell<HashMap<EndpointId, Rc<Peer>>>,
    leaving: RefCell<Vec<Rc<Peer>>>,
    work: Notify,
}

/// A process that is attached.
#[derive(Debug, Default)]
struct Peer {
    /// What it serves, for logs; nothing if it is a sidecar.
    services: String,
    endpoints: RefCell<Vec<EndpointId>>,
    /// The DPA has closed one of its endpoints.
    expelled: Notify,
    /// And not because it was slow: it broke a rule.
    offended: Cell<bool>,
    /// All that it was sent is in its rings.
    flushed: Notify,
}

/// One socket: who may come in, who has to wait, and who was refused.
#[derive(Debug)]
struct Door {
    admission: Admission,
    offences: Offences,
    refusals: Refusals,
}

impl Door {
    /// `name`: what the process calls itself, as far as it has said so.
    fn log_refused(&self, (pid, uid): (i32, u32), name: &str, why: &str) {
        if let Some(times) = self.refusals.note(Origin::of(pid), name, why, Instant::now()) {
            tracing::warn!(peer = name, pid, uid, times, "a process was not attached: {why}");
        }
    }
}

/// What is known of the process behind a peer, for logs.
struct Process {
    name: String,
    pid: i32,
    uid: u32,
    /// Held so that the number means this process as long as the peer is attached.
    _pidfd: Option<OwnedFd>,
}

impl DpaHost {
    /// A DPA without endpoints. `services`: the names of all services of the node; a service's number is its place.
    /// Call it where a tokio runtime runs.
    /// # Errors
    /// The kernel's, for want of descriptors.
    pub fn new(config: DpaConfig, services: Vec<String>) -> io::Result<Self> {
        Ok(Self(Rc::new(Shared {
            dpa: RefCell::new(Dpa::new(config)),
            config,
            services,
            bells: BellWatch::new()?,
            peers: RefCell::default(),
            leaving: RefCell::default(),
            work: Notify::new(),
        })))
    }

    /// Attaches the sidecar of this thread. See [`Dpa::attach_sidecar_here`].
    /// # Errors
    /// As [`Dpa::attach_worker`].
    pub fn attach_sidecar_here(&self, profile: RingProfile) -> Result<Link, DpaError> {
        self.0.dpa.borrow_mut().attach_sidecar_here(profile)
    }

    /// Lets an endpoint of this thread go. See [`Dpa::detach`].
    pub fn detach_here(&self, endpoint: EndpointId) {
        self.0.dpa.borrow_mut().detach(endpoint);
        self.0.work.notify_one();
    }

    /// Rules for outliers of services, by name; those that are not named have none. See [`Dpa::set_outlier_rule`].
    pub fn set_outlier_rules(&self, rules: &BTreeMap<String, OutlierRule>) {
        let mut dpa = self.0.dpa.borrow_mut();
        for (id, name) in (0..=u16::MAX).map(ServiceId).zip(&self.0.services) {
            dpa.set_outlier_rule(id, rules.get(name).copied());
        }
    }

    /// See [`Dpa::pump`].
    pub fn pump(&self, now: Nanos) -> Progress {
        let mut dpa = self.0.dpa.borrow_mut();
        let progress = dpa.pump(now);
        while let Some(closed) = dpa.take_closed() {
            self.on_closed(&closed);
        }
        while let Some((service, endpoint, span)) = dpa.take_ejection() {
            let service = &self.0.services[usize::from(service.0)];
            tracing::warn!(
                service,
                endpoint = endpoint.0,
                "worker ejected for {span:?}: it fails again and again"
            );
        }
        let mut leaving = self.0.leaving.borrow_mut();
        leaving.retain(|peer| {
            let flushed = peer.endpoints.borrow().iter().all(|endpoint| dpa.is_flushed(*endpoint));
            if flushed {
                peer.flushed.notify_one();
            }
            !flushed
        });
        progress
    }

    /// Its name may be given to another at once: nobody may detach it by that name any more.
    fn on_closed(&self, closed: &Closed) {
        self.0.bells.remove(closed.endpoint);
        let Closed { endpoint, rule, slow } = closed;
        let peer = self.0.peers.borrow_mut().remove(endpoint);
        let services = peer.as_ref().map_or("", |peer| &peer.services);
        tracing::warn!(endpoint = endpoint.0, services, rule, "endpoint closed");
        if let Some(peer) = peer {
            peer.endpoints.borrow_mut().retain(|other| other != endpoint);
            peer.offended.set(peer.offended.get() || !slow);
            peer.expelled.notify_one();
        }
    }

    /// Waits until there may be something to pump: a bell has rung, or somebody was attached or detached.
    pub async fn woken(&self) {
        tokio::select! {
            () = self.0.bells.rung() => {}
            () = self.0.work.notified() => {}
        }
    }

    /// See [`Dpa::announce_sleep`].
    pub fn announce_sleep(&self) {
        let mut dpa = self.0.dpa.borrow_mut();
        dpa.announce_sleep();
        while let Some(endpoint) = dpa.take_hung_up() {
            self.0.bells.remove(endpoint);
        }
    }

    /// See [`Dpa::wake`].
    pub fn wake(&self) {
        self.0.dpa.borrow_mut().wake();
    }

    /// See [`Dpa::next_deadline`].
    #[must_use]
    pub fn next_deadline(&self) -> Option<Nanos> {
        self.0.dpa.borrow().next_deadline()
    }

    /// See [`Dpa::live`].
    #[must_use]
    pub fn live(&self) -> u32 {
        self.0.dpa.borrow().live()
    }

    /// A number that changes whenever a worker comes or goes.
    #[must_use]
    pub fn workers_version(&self) -> u64 {
        self.0.dpa.borrow().workers_version()
    }

    /// Services without a worker, by name. Cost: a look at each.
    #[must_use]
    pub fn unserved(&self) -> Vec<String> {
        let dpa = self.0.dpa.borrow();
        let numbered = (0..=u16::MAX).map(ServiceId).zip(&self.0.services);
        numbered.filter(|(id, _)| !dpa.is_served(*id)).map(|(_, name)| name.clone()).collect()
    }

    /// How many lanes of workers serve each service, by name. Cost: as [`DpaHost::unserved`].
    #[must_use]
    pub fn workers(&self) -> Vec<(String, WorkerCount)> {
        let dpa = self.0.dpa.borrow();
        let numbered = (0..=u16::MAX).map(ServiceId).zip(&self.0.services);
        numbered.map(|(id, name)| (name.clone(), dpa.workers(id))).collect()
    }

    /// See [`Dpa::stats`].
    #[must_use]
    pub fn stats(&self) -> DpaStats {
        self.0.dpa.borrow().stats()
    }

    /// Takes in processes until it is dropped. Await it on the `LocalSet` of the lane that pumps the DPA.
    /// # Errors
    /// If the listener cannot be waited for at all. Failing accepts are logged and waited out.
    pub async fn serve(self, listener: AttachListener, admission: Admission) -> io::Result<()> {
        let listener = watch(listener)?;
        let offences = Offences::new(self.0.config.reattach_delay);
        let door = Door { admission, offences, refusals: Refusals::default() };
        let (door, here) = (Rc::new(door), Rc::new(()));
        loop {
            let mut ready = listener.readable().await?;
            match ready.get_inner().accept() {
                Ok(channel) if Rc::strong_count(&here) > PEERS_MAX => {
                    let why = format!("{PEERS_MAX} processes are attached here: no more can be");
                    door.log_refused(credentials(&channel), "", &why);
                    // One that does not take it has left already.
                    let _ = channel.send_from_dpa(&FromDpa::Refused { why }, &[]);
                }
                Ok(channel) => {
                    let (host, door, here) = (self.clone(), Rc::clone(&door), Rc::clone(&here));
                    tokio::task::spawn_local(async move {
                        host.serve_peer(channel, &door).await;
                        drop(here);
                    });
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready.clear_ready(),
                Err(error) => {
                    tracing::warn!(%error, "cannot take in a process; trying again in {ACCEPT_PAUSE:?}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    async fn serve_peer(&self, channel: Channel, door: &Door) {
        let Ok(channel) = watch(channel) else { return };
        let credentials = credentials(channel.get_ref());
        let (origin, mut name) = (Origin::of(credentials.0), String::new());
        let shaking = self.shake_hands(&channel, door, origin, &mut name);
        let shaken = timeout(HANDSHAKE_TIMEOUT + KEPT_MOST, shaking).await;
        let (peer, process) = match shaken.unwrap_or_else(|_| Err("it did not say hello in time".into())) {
            Ok(attached) => attached,
            Err(why) => {
                door.log_refused(credentials, &name, &why);
                return;
            }
        };
        let Process { name, pid, uid, .. } = &process;
        let services = peer.services.as_str();
        tracing::info!(peer = name, services, pid, uid, "attached");
        let why = self.until_ended(&channel, &peer).await;
        let lost = self.detach(&peer);
        if peer.offended.get() {
            door.offences.note(origin, Instant::now());
        }
        tracing::info!(peer = name, services, pid, lost, "detached: {why}");
    }

    /// Hello, links, welcome. An error was told to the peer already. `name`: becomes what it calls itself.
    async fn shake_hands(
        &self,
        channel: &AsyncFd<Channel>,
        door: &Door,
        origin: Origin,
        name: &mut String,
    ) -> Result<(Rc<Peer>, Process), String> {
        let refuse = |why: String| {
            // One that does not take it has left already.
            let _ = channel.get_ref().send_from_dpa(&FromDpa::Refused { why: why.clone() }, &[]);
            why
        };
        let hello = match receive(channel).await {
            Ok(ToDpa::Hello(hello)) => hello,
            Ok(ToDpa::Leave) => return Err(refuse("it said something else before its hello".into())),
            Err(error) => return Err(refuse(error.to_string())),
        };
        name.clone_from(&hello.name);
        door.offences.wait(origin).await.map_err(refuse)?;
        let (peer, welcome, links) = self.admit(&hello, &door.admission).map_err(refuse)?;
        if let Err(error) = send(channel, &FromDpa::Welcome(welcome), &links).await {
            self.detach(&peer);
            return Err(error.to_string());
        }
        Ok((peer, Process::of(hello.name, channel.get_ref())))
    }

    /// Makes the links of a process that may have them; none if one of them cannot be made.
    fn admit(
        &self,
        hello: &Hello,
        admission: &Admission,
    ) -> Result<(Rc<Peer>, Welcome, Vec<LinkFds>), String> {
        let services = self.admitted_services(hello, admission)?;
        let profile = hello.profile.unwrap_or(self.0.config.profile);
        let peer = Rc::new(Peer { services: listed(&hello.services), ..Peer::default() });
        let mut links = Vec::new();
        for _ in 0..hello.lanes {
            match self.attach(hello.role, &services, profile, &peer) {
                Ok(link) => links.push(link),
                Err(error) => {
                    self.detach(&peer);
                    return Err(error.to_string());
                }
            }
        }
        self.0.work.notify_one();
        Ok((peer, self.welcome(&links), links))
    }

    fn admitted_services(&self, hello: &Hello, admission: &Admission) -> Result<Vec<ServiceId>, String> {
        if hello.role == Role::Sidecar && !admission.sidecars {
            return Err("sidecars may not attach to this socket".into());
        }
        let id = |name: &String| {
            let index = self.0.services.iter().position(|service| service == name);
            let index = index.ok_or_else(|| {
                format!("service \"{name}\" is not known here; known: {}", self.0.services.join(", "))
            })?;
            if admission.services.as_ref().is_some_and(|allowed| !allowed.contains(name)) {
                return Err(format!("service \"{name}\" may not be served through this socket"));
            }
            Ok(ServiceId(u16::try_from(index).expect("at most SERVICES_MAX")))
        };
        hello.services.iter().map(id).collect()
    }

    fn attach(
        &self,
        role: Role,
        services: &[ServiceId],
        profile: RingProfile,
        peer: &Rc<Peer>,
    ) -> Result<LinkFds, Box<dyn std::error::Error>> {
        let mut dpa = self.0.dpa.borrow_mut();
        let link = match role {
            Role::Worker => dpa.attach_worker(services, profile)?,
            Role::Sidecar => dpa.attach_sidecar(profile)?,
        };
        let endpoint = link.spec.endpoint;
        peer.endpoints.borrow_mut().push(endpoint);
        self.0.peers.borrow_mut().insert(endpoint, Rc::clone(peer));
        let bell = dpa.wait_fd(endpoint).expect("just attached");
        self.0.bells.add(endpoint, bell)?;
        Ok(link)
    }

    fn welcome(&self, links: &[LinkFds]) -> Welcome {
        let link = |link: &LinkFds| LinkWelcome {
            endpoint: link.spec.endpoint.0,
            generation: link.spec.generation,
            profile: link.spec.profile,
        };
        Welcome {
            services: self.0.services.clone(),
            calls_max: self.0.config.calls_max,
            message_bytes_max: self.0.config.message_bytes_max,
            links: links.iter().map(link).collect(),
        }
    }

    /// Until the peer has ended, or has to. Says why.
    async fn until_ended(&self, channel: &AsyncFd<Channel>, peer: &Rc<Peer>) -> String {
        loop {
            tokio::select! {
                said = receive(channel) => match said {
                    Ok(ToDpa::Leave) => self.begin_leaving(peer),
                    Ok(ToDpa::Hello(_)) => {
                        peer.offended.set(true);
                        return "it said hello a second time".into();
                    }
                    Err(ChannelError::Ended) => return "it has ended".into(),
                    Err(error) => {
                        peer.offended.set(true);
                        return error.to_string();
                    }
                },
                () = peer.flushed.notified() => {
                    if let Err(error) = send(channel, &FromDpa::Left, &[]).await {
                        return error.to_string();
                    }
                }
                () = peer.expelled.notified() => return "one of its endpoints was closed".into(),
            }
        }
    }

    fn begin_leaving(&self, peer: &Rc<Peer>) {
        let mut dpa = self.0.dpa.borrow_mut();
        peer.endpoints.borrow().iter().for_each(|endpoint| dpa.leave(*endpoint));
        let mut leaving = self.0.leaving.borrow_mut();
        if !leaving.iter().any(|other| Rc::ptr_eq(other, peer)) {
            leaving.push(Rc::clone(peer));
        }
        self.0.work.notify_one();
    }

    /// Lets go of all endpoints of a peer. Returns how many requests it had not answered.
    fn detach(&self, peer: &Rc<Peer>) -> u64 {
        let mut dpa = self.0.dpa.borrow_mut();
        let before = dpa.stats().faulted_total();
        for endpoint in peer.endpoints.borrow_mut().drain(..) {
            self.0.bells.remove(endpoint);
            self.0.peers.borrow_mut().remove(&endpoint);
            dpa.detach(endpoint);
        }
        self.0.leaving.borrow_mut().retain(|other| !Rc::ptr_eq(other, peer));
        self.0.work.notify_one();
        dpa.stats().faulted_total() - before
    }
}

impl Process {
    fn of(name: String, channel: &Channel) -> Self {
        let (pid, uid) = credentials(channel);
        let pidfd =
            Pid::from_raw(pid).and_then(|pid| rustix::process::pidfd_open(pid, PidfdFlags::empty()).ok());
        Self { name, pid, uid, _pidfd: pidfd }
    }
}

/// Names for a log line: the first few, each once, and how many more there are.
fn listed(services: &[String]) -> String {
    let names: BTreeSet<&str> = services.iter().map(String::as_str).collect();
    let mut text = names.iter().take(SERVICES_LOGGED).copied().collect::<Vec<_>>().join(", ");
    if let Some(more @ 1..) = names.len().checked_sub(SERVICES_LOGGED) {
        _ = write!(text, " and {more} more");
    }
    text
}

/// Number and user of the process at the other end.
fn credentials(channel: &Channel) -> (i32, u32) {
    let of = |channel: &Channel| {
        let socket = StdUnixStream::from(channel.as_fd().try_clone_to_owned()?);
        let credentials = UnixStream::from_std(socket)?.peer_cred()?;
        io::Result::Ok((credentials.pid().unwrap_or(0), credentials.uid()))
    };
    of(channel).unwrap_or((0, u32::MAX))
}

async fn receive(channel: &AsyncFd<Channel>) -> Result<ToDpa, ChannelError> {
    loop {
        let mut ready = channel.readable().await?;
        match ready.get_inner().receive_as_dpa() {
            Err(error) if error.would_block() => ready.clear_ready(),
            received => return received,
        }
    }
}

async fn send(channel: &AsyncFd<Channel>, message: &FromDpa, links: &[LinkFds]) -> Result<(), ChannelError> {
    loop {
        let mut ready = channel.writable().await?;
        match ready.get_inner().send_from_dpa(message, links) {
            Err(error) if error.would_block() => ready.clear_ready(),
            sent => return sent,
        }
    }
}

#[cfg(test)]
mod tests;
