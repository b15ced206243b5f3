//! Addresses of services off the node: which of them a call goes to, where the service has a rule for outliers.
//!
//! ```text
//! host --looked up, now and then--> directory --without those that are ejected, in turn--> a lane's connection --> a call
//!                                       ^                                                                           |
//!                                       '----------------------------------- note ----------------------------------'
//! ```
//!
//! - All lanes of a process go by one [`Directory`]: what one has found or seen fail serves the others. Connections are a lane's
//!   own ([`Connected`]).
//! - Each address has connections of its own: so it is known which of them has failed, and none is used while it is ejected.
//! - What ejects an address, for how long and how many at once is decided by [`Outliers`], as for workers at the DPA. An
//!   address that is found no more is forgotten, with its connections.
//! - Pure: addresses, time and what a connection is are passed in. Not here: looking a host up and judging what was found
//!   (`connect.rs`), making calls (`egress.rs`).

use std::collections::HashMap;
use std::net::SocketAddr;
use std::ptr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use cellmesh_shm::clock::Nanos;
use cellmesh_shm::outlier::{Ejection, OutlierRule, Outliers};

/// How long addresses that were found are believed. Source: what cluster resolvers give their answers (CoreDNS: 5 s).
const FOUND_FOR: Duration = Duration::from_secs(5);

/// How long they serve while the host is found no more: then they may be somebody else's.
const SERVE_FOR: Duration = Duration::from_secs(60);

/// Addresses of one host that are used: more are passed over.
const ADDRESSES_MAX: usize = 64;

/// Hosts of one service that are known: a cell has a say in the port of a service, and could name them all.
const HOSTS_OF_SERVICE_MAX: usize = 16;

/// Hosts that are known, of all services together.
pub(super) const HOSTS_MAX: usize = 256;

/// What the lanes of a process know of the addresses of services. Clones are the same; it is no setting, so all are equal.
///
/// - It belongs to one config of a DPU: another one (`EgressConfig`) has another directory, in which nothing is known and nobody ejected.
/// - cost: a lock that is held for a look at the addresses of one host; of all hosts where a new one takes the place of another, or
///   where metrics are read.
#[derive(Debug, Clone, Default)]
pub struct Directory(Arc<Mutex<Hosts>>);

impl PartialEq for Directory {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Directory {}

/// Where a call to a host may go.
#[derive(Debug)]
pub(super) struct Choice {
    /// The host: nobody else has this when it is forgotten.
    host: Arc<()>,
    /// All of its addresses: the same list until they are others.
    known: Arc<[SocketAddr]>,
    /// Those that are not ejected, in the order in which to try; at least one.
    chosen: Vec<SocketAddr>,
}

impl Directory {
    #[cfg(test)]
    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Nothing in there is half done where somebody could panic.
    fn hosts(&self) -> MutexGuard<'_, Hosts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the addresses of a host are to be looked for before it is called. Says so once in a while: who is told does
    /// it, and others use those that are known until then.
    pub(super) fn wants_lookup(&self, host: &str, now: Nanos) -> bool {
        let mut hosts = self.hosts();
        let Some(known) = hosts.0.get_mut(host) else { return true };
        let is_old = known.sought.saturating_add(FOUND_FOR) <= now;
        if is_old {
            known.sought = now;
        }
        is_old
    }

    /// These are the addresses of a service's host from now on. `rule`: when one of them is left out; it is that of the host for as
    /// long as this lives.
    pub(super) fn found(&self, of: (&str, &str), rule: OutlierRule, addresses: &[SocketAddr], now: Nanos) {
        self.hosts().found(of, rule, addresses, now);
    }

    /// The same, and at once the turn of the call that they were looked for, before others can take the host's place.
    pub(super) fn found_for_call(
        &self,
        of: (&str, &str),
        rule: OutlierRule,
        addresses: &[SocketAddr],
        now: Nanos,
    ) -> Option<Choice> {
        self.hosts().found(of, rule, addresses, now)?.turn(now)
    }

    /// Where to call a host, in the order in which to try: first that whose turn it is. None if nothing is known of it, or
    /// nothing was for too long.
    pub(super) fn turn(&self, host: &str, now: Nanos) -> Option<Choice> {
        let mut hosts = self.hosts();
        let known = hosts.0.get_mut(host)?;
        (now < known.found.saturating_add(SERVE_FOR)).then(|| known.turn(now))?
    }

    /// An address has answered, or has failed. Whether it is ejected for that.
    pub(super) fn note(
        &self,
        host: &str,
        address: SocketAddr,
        has_failed: bool,
        now: Nanos,
    ) -> Option<Ejection<SocketAddr>> {
        let mut hosts = self.hosts();
        let known = hosts.0.get_mut(host)?;
        known.outliers.readmit(now);
        known.outliers.note(address, has_failed, now)
    }

    /// Addresses that are ejected, of all hosts together.
    pub(super) fn ejected(&self, now: Nanos) -> usize {
        let ejected = |known: &mut Host| {
            known.outliers.readmit(now);
            known.outliers.ejected()
        };
        self.hosts().0.values_mut().map(ejected).sum()
    }
}

/// Hosts by their authority.
#[derive(Debug, Default)]
struct Hosts(HashMap<String, Host>);

impl Hosts {
    /// `(service, host)`; returns the host.
    fn found(
        &mut self,
        (service, host): (&str, &str),
        rule: OutlierRule,
        addresses: &[SocketAddr],
        now: Nanos,
    ) -> Option<&mut Host> {
        if !self.0.contains_key(host) {
            self.make_room(service);
            self.0.insert(host.to_owned(), Host::new(service, rule, now));
        }
        let known = self.0.get_mut(host)?;
        known.replace(&addresses[..addresses.len().min(ADDRESSES_MAX)], now);
        Some(known)
    }

    /// Forgets a host if there are too many: of the service, one of its own; of all, one of a service that has the most, so that
    /// none is driven out by another with more. Of these the one that was not called for the longest time.
    fn make_room(&mut self, service: &str) {
        let mut counts: HashMap<&str, usize> = HashMap::new();
        self.0.values().for_each(|known| *counts.entry(&known.service).or_default() += 1);
        let most = counts.values().copied().max().unwrap_or_default();
        let is_full = counts.get(service).is_some_and(|count| *count >= HOSTS_OF_SERVICE_MAX);
        if !is_full && self.0.len() < HOSTS_MAX {
            return;
        }
        let may_go = |known: &Host| {
            if is_full { *known.service == *service } else { counts.get(&*known.service) == Some(&most) }
        };
        let candidates = self.0.iter().filter(|(_, known)| may_go(known));
        let oldest = candidates.min_by_key(|(_, known)| known.used).map(|(host, _)| host.clone());
        if let Some(oldest) = oldest {
            self.0.remove(&oldest);
        }
    }
}

/// One host, and how its addresses have done.
#[derive(Debug)]
struct Host {
    /// Whose host it is.
    service: Box<str>,
    itself: Arc<()>,
    addresses: Arc<[SocketAddr]>,
    outliers: Outliers<SocketAddr>,
    /// Calls that were made to it.
    turns: usize,
    /// When its addresses were looked for, when they were found, and when one was asked for.
    sought: Nanos,
    found: Nanos,
    used: Nanos,
}

impl Host {
    fn new(service: &str, rule: OutlierRule, now: Nanos) -> Self {
        Self {
            service: service.into(),
            itself: Arc::default(),
            addresses: Arc::default(),
            outliers: Outliers::new(rule, &[]),
            turns: 0,
            sought: now,
            found: now,
            used: now,
        }
    }

    /// Those that stay keep their places.
    fn replace(&mut self, addresses: &[SocketAddr], now: Nanos) {
        (self.sought, self.found) = (now, now);
        let (kept, gone): (Vec<_>, Vec<_>) =
            self.addresses.iter().copied().partition(|known| addresses.contains(known));
        let mut all = kept;
        for address in addresses {
            if !all.contains(address) {
                all.push(*address);
                self.outliers.add(*address);
            }
        }
        // After the new ones are there: who is ejected may stay so.
        for address in gone {
            self.outliers.remove(address, now);
        }
        if *all != *self.addresses {
            self.addresses = all.into();
        }
    }

    fn turn(&mut self, now: Nanos) -> Option<Choice> {
        self.used = now;
        self.outliers.readmit(now);
        let chosen = self.addresses.iter().copied().filter(|address| !self.outliers.is_ejected(*address));
        let mut chosen: Vec<SocketAddr> = chosen.collect();
        let first = self.turns.checked_rem(chosen.len())?;
        chosen.rotate_left(first);
        self.turns = self.turns.wrapping_add(1);
        Some(Choice { host: Arc::clone(&self.itself), known: Arc::clone(&self.addresses), chosen })
    }
}

/// What a lane has made connections to addresses with, by host.
#[derive(Debug)]
pub(super) struct Connected<C>(HashMap<String, OfHost<C>>);

#[derive(Debug)]
struct OfHost<C> {
    /// Until it is forgotten.
    host: Weak<()>,
    /// Its addresses as they were.
    known: Weak<[SocketAddr]>,
    members: Vec<(SocketAddr, C)>,
}

impl<C> Default for Connected<C> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<C: Clone> Connected<C> {
    /// What a call is made with, in the order in which to try. `connect`: makes it for an address that has none.
    ///
    /// An address that is known no more loses its own with the next call to its host, a host when another one is new.
    pub(super) fn to(
        &mut self,
        host: &str,
        choice: &Choice,
        connect: impl Fn(SocketAddr) -> C,
    ) -> Vec<(SocketAddr, C)> {
        let is_same = |of: &&OfHost<C>| ptr::addr_eq(of.known.as_ptr(), Arc::as_ptr(&choice.known));
        if self.0.get(host).filter(is_same).is_none() {
            let old = self.0.remove(host).map(|old| old.members).unwrap_or_default();
            let old: HashMap<SocketAddr, C> = old.into_iter().collect();
            let member = |address: &SocketAddr| {
                (*address, old.get(address).cloned().unwrap_or_else(|| connect(*address)))
            };
            let members = choice.known.iter().map(member).collect();
            let known = Arc::downgrade(&choice.known);
            self.0.retain(|_, of| of.host.strong_count() > 0);
            self.0.insert(host.to_owned(), OfHost { host: Arc::downgrade(&choice.host), known, members });
        }
        let Some(of) = self.0.get(host) else { return Vec::new() };
        let member = |address: &SocketAddr| of.members.iter().find(|(known, _)| known == address).cloned();
        choice.chosen.iter().filter_map(member).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RULE: OutlierRule = OutlierRule {
        failures_max: 3,
        ejection: Duration::from_secs(10),
        ejection_max: Duration::from_secs(30),
        share_max: 50,
    };

    /// A service, and its host.
    const BACK: (&str, &str) = ("back", "back");

    fn address(number: u16) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, 1], 1 + number))
    }

    fn at(seconds: u64) -> Nanos {
        Nanos(seconds * 1_000_000_000)
    }

    /// One host at so many addresses.
    fn hosts(count: u16) -> Directory {
        let hosts = Directory::default();
        let addresses: Vec<SocketAddr> = (0..count).map(address).collect();
        hosts.found(BACK, RULE, &addresses, at(1));
        hosts
    }

    /// Where a call may go, in the order in which to try.
    fn turn(hosts: &Directory, host: &str, now: Nanos) -> Vec<SocketAddr> {
        hosts.turn(host, now).map(|choice| choice.chosen).unwrap_or_default()
    }

    fn first(hosts: &Directory, seconds: u64) -> SocketAddr {
        turn(hosts, "back", at(seconds))[0]
    }

    /// Calls go round; who is ejected is passed over until its time is over.
    #[test]
    fn calls_go_round_those_that_are_left() {
        let hosts = hosts(3);
        let [a, b, c] = [0, 1, 2].map(address);
        assert_eq!([2; 4].map(|now| first(&hosts, now)), [a, b, c, a]);
        let noted = [2, 2, 2].map(|now| hosts.note("back", b, true, at(now)).is_some());
        assert_eq!((noted, hosts.ejected(at(3))), ([false, false, true], 1));
        assert_eq!([3; 4].map(|now| first(&hosts, now)), [a, c, a, c]);
        assert_eq!(turn(&hosts, "back", at(11)).len(), 2);
        assert_eq!((turn(&hosts, "back", at(12)).len(), hosts.ejected(at(12))), (3, 0));
    }

    /// Addresses are looked for again after a while, by one caller.
    #[test]
    fn addresses_are_looked_for_now_and_then() {
        let hosts = hosts(2);
        assert!(Directory::default().wants_lookup("back", at(1)));
        assert_eq!([5, 6, 6].map(|now| hosts.wants_lookup("back", at(now))), [false, true, false]);
    }

    /// Addresses of a host that is found no more are somebody else's soon.
    #[test]
    fn addresses_do_not_serve_for_ever() {
        let hosts = hosts(2);
        assert!(hosts.wants_lookup("back", at(60)));
        assert_eq!([60, 61].map(|now| turn(&hosts, "back", at(now)).len()), [2, 0]);
        hosts.found(BACK, RULE, &[address(1)], at(61));
        assert_eq!(turn(&hosts, "back", at(62)).len(), 1);
    }

    /// However many hosts are named, few are kept, and of each few addresses. A service that names many drives out its own.
    #[test]
    fn what_is_kept_is_bounded() {
        let hosts = hosts(200);
        assert_eq!(turn(&hosts, "back", at(1)).len(), ADDRESSES_MAX);
        hosts.found(("other", "other"), RULE, &[address(0)], at(1));
        for port in 1..=1000 {
            hosts.found(("back", &format!("back:{port}")), RULE, &[address(0)], at(2));
        }
        assert_eq!(hosts.hosts().0.len(), HOSTS_OF_SERVICE_MAX + 1);
        assert!(turn(&hosts, "back", at(3)).is_empty(), "it was not called for the longest time");
        assert_eq!((turn(&hosts, "back:1000", at(3)).len(), turn(&hosts, "other", at(3)).len()), (1, 1));
    }

    /// Where there is no room for all, services with many hosts give way to those with few, whoever was called last; then those that
    /// were called last stay.
    #[test]
    fn services_with_few_hosts_keep_them() {
        let hosts = Directory::default();
        let found = |service: &str, host: &str, seconds| {
            hosts.found((service, host), RULE, &[address(0)], at(seconds));
            assert!(hosts.hosts().0.len() <= HOSTS_MAX);
            hosts.hosts().0.keys().filter(|known| known.starts_with("many")).count()
        };
        for number in 0..HOSTS_MAX - HOSTS_OF_SERVICE_MAX {
            found(&format!("few-{number}"), &format!("few-{number}"), 1);
        }
        let of_many = (1..=HOSTS_OF_SERVICE_MAX).fold(0, |_, port| found("many", &format!("many:{port}"), 2));
        assert_eq!(of_many, HOSTS_OF_SERVICE_MAX);
        let of_many =
            (1..HOSTS_OF_SERVICE_MAX).fold(0, |_, n| found(&format!("late-{n}"), &format!("late-{n}"), 3));
        assert_eq!(of_many, 1);
        assert_eq!(found("last", "last", 4), 1, "one of those that were not called since");
        assert_eq!(turn(&hosts, "late-1", at(5)).len(), 1);
    }

    /// Lanes go by the same addresses and failures; each makes its connections once for as long as an address is known.
    #[test]
    fn lanes_share_what_is_known() {
        let hosts = hosts(3);
        let (lanes, made) = ([hosts.clone(), hosts.clone()], std::cell::Cell::new(0));
        let connect = |_| {
            made.set(made.get() + 1);
            made.get()
        };
        let mut connected = Connected::default();
        let mut call = |lane: &Directory, seconds| {
            connected.to("back", &lane.turn("back", at(seconds)).expect("addresses"), connect)
        };
        let [a, b, c] = [0, 1, 2].map(address);
        assert_eq!(call(&lanes[0], 2), [(a, 1), (b, 2), (c, 3)]);
        assert_eq!(
            [1, 0, 1].map(|lane| lanes[lane].note("back", b, true, at(2)).is_some()),
            [false, false, true]
        );
        assert_eq!(call(&lanes[1], 2), [(c, 3), (a, 1)]);
        hosts.found(BACK, RULE, &[c, b, address(3)], at(3));
        assert_eq!(call(&lanes[0], 3), [(c, 3), (address(3), 4)]);
        hosts.found(BACK, RULE, &[a, b, c], at(4));
        assert_eq!(
            call(&lanes[0], 4).iter().find(|(address, _)| *address == a),
            Some(&(a, 5)),
            "it was forgotten"
        );
        assert_eq!(call(&lanes[0], 20).iter().find(|(address, _)| *address == b), Some(&(b, 2)));
    }

    /// What another lane finds of a host takes no connections from it here, whoever else is called.
    #[test]
    fn connections_outlast_other_addresses() {
        let (hosts, made) = (hosts(2), std::cell::Cell::new(0));
        let mut connected = Connected::default();
        let mut call = |choice: Option<Choice>, host| {
            let connect = |_| {
                made.set(made.get() + 1);
                made.get()
            };
            connected.to(host, &choice.expect("addresses"), connect)
        };
        assert_eq!(call(hosts.turn("back", at(1)), "back"), [(address(0), 1), (address(1), 2)]);
        hosts.found(BACK, RULE, &[address(1), address(2)], at(2));
        let other = hosts.found_for_call(("other", "other"), RULE, &[address(0)], at(2));
        assert_eq!(call(other, "other"), [(address(0), 3)]);
        let (mut again, expected) =
            (call(hosts.turn("back", at(2)), "back"), [(address(1), 2), (address(2), 4)]);
        again.sort_unstable();
        assert_eq!(again, expected);
    }

    /// Connections to hosts that are forgotten go with them.
    #[test]
    fn connections_are_bounded_too() {
        let (hosts, mut connected) = (Directory::default(), Connected::default());
        for port in 1..=1000 {
            let host = format!("back:{port}");
            hosts.found(("back", &host), RULE, &[address(0)], at(2));
            assert_eq!(connected.to(&host, &hosts.turn(&host, at(2)).expect("an address"), |_| ()).len(), 1);
            assert!(connected.0.len() <= HOSTS_OF_SERVICE_MAX);
        }
    }

    #[derive(Debug, Clone)]
    enum Event {
        Call { has_failed: bool },
        Late { number: u16, has_failed: bool },
        Pass { seconds: u64 },
        Found { numbers: Vec<u16> },
    }

    fn event() -> impl Strategy<Value = Event> {
        let failed = || prop::bool::weighted(0.8);
        prop_oneof![
            8 => failed().prop_map(|has_failed| Event::Call { has_failed }),
            4 => (0..6u16, failed()).prop_map(|(number, has_failed)| Event::Late { number, has_failed }),
            2 => (1..12u64).prop_map(|seconds| Event::Pass { seconds }),
            1 => prop::collection::vec(0..6u16, 1..6).prop_map(|numbers| Event::Found { numbers }),
        ]
    }

    proptest! {
        /// Whatever happens there is somewhere to call: all addresses that were found last and are not ejected, none twice; of
        /// those never more are ejected than the rule says, and none for longer.
        #[test]
        fn there_is_always_an_address(events in prop::collection::vec(event(), 0..200)) {
            let (hosts, mut all) = (hosts(4), (0..4).map(address).collect::<Vec<_>>());
            let (mut now, mut out) = (at(1), HashMap::new());
            let fail = |hosts: &Directory, out: &mut HashMap<_, _>, address, has_failed, now: Nanos| {
                if let Some(Ejection { member, span }) = hosts.note("back", address, has_failed, now) {
                    assert!(has_failed && member == address && !out.contains_key(&member));
                    assert!(RULE.ejection <= span && span <= RULE.ejection_max);
                    out.insert(member, now.saturating_add(span));
                }
            };
            for event in events {
                match event {
                    Event::Call { has_failed } => {
                        let called = turn(&hosts, "back", now)[0];
                        prop_assert!(!out.contains_key(&called));
                        fail(&hosts, &mut out, called, has_failed, now);
                    }
                    Event::Late { number, has_failed } => fail(&hosts, &mut out, address(number), has_failed, now),
                    Event::Pass { seconds } => {
                        now = now.saturating_add(Duration::from_secs(seconds));
                        hosts.found(BACK, RULE, &all, now);
                    }
                    Event::Found { numbers } => {
                        all = numbers.into_iter().map(address).collect();
                        all.sort_unstable();
                        all.dedup();
                        hosts.found(BACK, RULE, &all, now);
                        // Some may be back, for want of others.
                        let left: Vec<SocketAddr> = turn(&hosts, "back", now);
                        out.retain(|address, _| all.contains(address) && !left.contains(address));
                    }
                }
                out.retain(|_, until| now < *until);
                let mut left: Vec<SocketAddr> = turn(&hosts, "back", now);
                left.sort_unstable();
                let expected: Vec<SocketAddr> = all.iter().copied().filter(|address| !out.contains_key(address)).collect();
                prop_assert_eq!(left, expected);
                prop_assert_eq!(hosts.ejected(now), out.len());
                prop_assert!(out.len() <= (all.len() / 2).max(1).min(all.len() - 1));
            }
        }
    }
}
