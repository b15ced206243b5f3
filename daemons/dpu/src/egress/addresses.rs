//! Addresses of services off the node: which of them a call goes to, where the service has a rule for outliers.
//!
//! ```text
//! host --looked up, now and then--> addresses --without those that are ejected, in turn--> a call --> note
//! ```
//!
//! - Each address has connections of its own: so it is known which of them has failed, and none is used while it is ejected.
//! - What ejects an address, for how long and how many at once is decided by [`Outliers`], as for workers at the DPA. An
//!   address that is found no more is forgotten, with its connections.
//! - Pure: addresses, time and what a connection is are passed in. Not here: looking a host up and judging what was found
//!   (`connect.rs`), making calls (`egress.rs`).

use std::collections::HashMap;
use std::net::SocketAddr;
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

/// Hosts by their authority, with what a connection to each address is made with.
#[derive(Debug)]
pub(super) struct Hosts<C>(HashMap<String, Host<C>>);

impl<C> Default for Hosts<C> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

/// One host, and how its addresses have done.
#[derive(Debug)]
struct Host<C> {
    /// Whose host it is.
    service: Box<str>,
    members: Vec<(SocketAddr, C)>,
    outliers: Outliers<SocketAddr>,
    /// Calls that were made to it.
    turns: usize,
    /// When its addresses were looked for, when they were found, and when one was asked for.
    sought: Nanos,
    found: Nanos,
    used: Nanos,
}

impl<C: Clone> Hosts<C> {
    /// Whether the addresses of a host are to be looked for before it is called. Says so once in a while: who is told does
    /// it, and others use those that are known until then.
    pub(super) fn wants_lookup(&mut self, host: &str, rule: OutlierRule, now: Nanos) -> bool {
        let Some(known) = self.0.get_mut(host).filter(|known| known.outliers.rule() == rule) else {
            return true;
        };
        let is_old = known.sought.saturating_add(FOUND_FOR) <= now;
        if is_old {
            known.sought = now;
        }
        is_old
    }

    /// These are the addresses of a service's host from now on.
    ///
    /// - `connect`: what connections to a new one are made with.
    pub(super) fn found(
        &mut self,
        (service, host): (&str, &str),
        rule: OutlierRule,
        addresses: &[SocketAddr],
        now: Nanos,
        connect: impl Fn(SocketAddr) -> C,
    ) {
        if self.0.get(host).is_none_or(|known| known.outliers.rule() != rule) {
            self.0.remove(host);
            self.make_room(service);
            self.0.insert(host.to_owned(), Host::new(service, rule, now));
        }
        if let Some(known) = self.0.get_mut(host) {
            known.replace(&addresses[..addresses.len().min(ADDRESSES_MAX)], now, connect);
        }
    }

    /// Where to call a host, in the order in which to try: first that whose turn it is. None that is ejected. Empty if
    /// nothing is known of the host, or nothing was for too long.
    pub(super) fn turn(&mut self, host: &str, rule: OutlierRule, now: Nanos) -> Vec<(SocketAddr, C)> {
        let known = self.0.get_mut(host).filter(|known| known.outliers.rule() == rule);
        let serves = known.filter(|known| now < known.found.saturating_add(SERVE_FOR));
        serves.map(|known| known.turn(now)).unwrap_or_default()
    }

    /// An address has answered, or has failed. Whether it is ejected for that.
    pub(super) fn note(
        &mut self,
        host: &str,
        address: SocketAddr,
        has_failed: bool,
        now: Nanos,
    ) -> Option<Ejection<SocketAddr>> {
        let known = self.0.get_mut(host)?;
        known.outliers.readmit(now);
        known.outliers.note(address, has_failed, now)
    }

    /// Addresses that are ejected, of all hosts together.
    pub(super) fn ejected(&mut self, now: Nanos) -> usize {
        let ejected = |known: &mut Host<C>| {
            known.outliers.readmit(now);
            known.outliers.ejected()
        };
        self.0.values_mut().map(ejected).sum()
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
        let may_go = |known: &Host<C>| {
            if is_full { *known.service == *service } else { counts.get(&*known.service) == Some(&most) }
        };
        let candidates = self.0.iter().filter(|(_, known)| may_go(known));
        let oldest = candidates.min_by_key(|(_, known)| known.used).map(|(host, _)| host.clone());
        if let Some(oldest) = oldest {
            self.0.remove(&oldest);
        }
    }
}

impl<C: Clone> Host<C> {
    fn new(service: &str, rule: OutlierRule, now: Nanos) -> Self {
        Self {
            service: service.into(),
            members: Vec::new(),
            outliers: Outliers::new(rule, &[]),
            turns: 0,
            sought: now,
            found: now,
            used: now,
        }
    }

    fn replace(&mut self, addresses: &[SocketAddr], now: Nanos, connect: impl Fn(SocketAddr) -> C) {
        (self.sought, self.found) = (now, now);
        for address in addresses {
            if self.members.iter().all(|(known, _)| known != address) {
                self.members.push((*address, connect(*address)));
                self.outliers.add(*address);
            }
        }
        // After the new ones are there: who is ejected may stay so.
        let (kept, gone): (Vec<_>, Vec<_>) =
            self.members.drain(..).partition(|(address, _)| addresses.contains(address));
        self.members = kept;
        for (address, _) in gone {
            self.outliers.remove(address, now);
        }
    }

    fn turn(&mut self, now: Nanos) -> Vec<(SocketAddr, C)> {
        self.used = now;
        self.outliers.readmit(now);
        let chosen = self.members.iter().filter(|(address, _)| !self.outliers.is_ejected(*address));
        let mut chosen: Vec<(SocketAddr, C)> = chosen.cloned().collect();
        if !chosen.is_empty() {
            let first = self.turns % chosen.len();
            chosen.rotate_left(first);
        }
        self.turns = self.turns.wrapping_add(1);
        chosen
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
    fn hosts(count: u16) -> Hosts<()> {
        let mut hosts = Hosts::default();
        let addresses: Vec<SocketAddr> = (0..count).map(address).collect();
        hosts.found(BACK, RULE, &addresses, at(1), |_| ());
        hosts
    }

    fn first(hosts: &mut Hosts<()>, seconds: u64) -> SocketAddr {
        hosts.turn("back", RULE, at(seconds))[0].0
    }

    /// Calls go round; who is ejected is passed over until its time is over.
    #[test]
    fn calls_go_round_those_that_are_left() {
        let mut hosts = hosts(3);
        let [a, b, c] = [0, 1, 2].map(address);
        assert_eq!([2; 4].map(|now| first(&mut hosts, now)), [a, b, c, a]);
        let noted = [2, 2, 2].map(|now| hosts.note("back", b, true, at(now)).is_some());
        assert_eq!((noted, hosts.ejected(at(3))), ([false, false, true], 1));
        assert_eq!([3; 4].map(|now| first(&mut hosts, now)), [a, c, a, c]);
        assert_eq!(hosts.turn("back", RULE, at(11)).len(), 2);
        assert_eq!((hosts.turn("back", RULE, at(12)).len(), hosts.ejected(at(12))), (3, 0));
    }

    /// Addresses are looked for again after a while, by one caller; another rule begins anew.
    #[test]
    fn addresses_are_looked_for_now_and_then() {
        let mut hosts = hosts(2);
        assert!(Hosts::<()>::default().wants_lookup("back", RULE, at(1)));
        assert_eq!([5, 6, 6].map(|now| hosts.wants_lookup("back", RULE, at(now))), [false, true, false]);
        let other = OutlierRule { failures_max: 1, ..RULE };
        assert!(hosts.wants_lookup("back", other, at(6)));
        hosts.found(BACK, other, &[address(0), address(1)], at(6), |_| ());
        assert!(hosts.note("back", address(0), true, at(6)).is_some());
    }

    /// Addresses of a host that is found no more are somebody else's soon.
    #[test]
    fn addresses_do_not_serve_for_ever() {
        let mut hosts = hosts(2);
        assert!(hosts.wants_lookup("back", RULE, at(60)));
        assert_eq!([60, 61].map(|now| hosts.turn("back", RULE, at(now)).len()), [2, 0]);
        hosts.found(BACK, RULE, &[address(1)], at(61), |_| ());
        assert_eq!(hosts.turn("back", RULE, at(62)).len(), 1);
    }

    /// However many hosts are named, few are kept, and of each few addresses. A service that names many drives out its own.
    #[test]
    fn what_is_kept_is_bounded() {
        let mut hosts = hosts(200);
        assert_eq!(hosts.turn("back", RULE, at(1)).len(), ADDRESSES_MAX);
        hosts.found(("other", "other"), RULE, &[address(0)], at(1), |_| ());
        for port in 1..=1000 {
            hosts.found(("back", &format!("back:{port}")), RULE, &[address(0)], at(2), |_| ());
        }
        assert_eq!(hosts.0.len(), HOSTS_OF_SERVICE_MAX + 1);
        assert!(hosts.turn("back", RULE, at(3)).is_empty(), "it was not called for the longest time");
        assert_eq!(
            (hosts.turn("back:1000", RULE, at(3)).len(), hosts.turn("other", RULE, at(3)).len()),
            (1, 1)
        );
    }

    /// Where there is no room for all, services with many hosts give way to those with few, whoever was called last; then those that
    /// were called last stay.
    #[test]
    fn services_with_few_hosts_keep_them() {
        let mut hosts = Hosts::default();
        let mut found = |service: &str, host: &str, seconds| {
            hosts.found((service, host), RULE, &[address(0)], at(seconds), |_| ());
            assert!(hosts.0.len() <= HOSTS_MAX);
            hosts.0.keys().filter(|known| known.starts_with("many")).count()
        };
        for number in 0..HOSTS_MAX - HOSTS_OF_SERVICE_MAX {
            found(&format!("few-{number}"), &format!("few-{number}"), 1);
        }
        let of_many = (1..=HOSTS_OF_SERVICE_MAX).map(|port| found("many", &format!("many:{port}"), 2)).last();
        assert_eq!(of_many, Some(HOSTS_OF_SERVICE_MAX));
        let of_many =
            (1..HOSTS_OF_SERVICE_MAX).map(|n| found(&format!("late-{n}"), &format!("late-{n}"), 3)).last();
        assert_eq!(of_many, Some(1));
        assert_eq!(found("last", "last", 4), 1, "one of those that were not called since");
        assert_eq!(hosts.turn("late-1", RULE, at(5)).len(), 1);
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
            let (mut hosts, mut all) = (hosts(4), (0..4).map(address).collect::<Vec<_>>());
            let (mut now, mut out) = (at(1), HashMap::new());
            let fail = |hosts: &mut Hosts<()>, out: &mut HashMap<_, _>, address, has_failed, now: Nanos| {
                if let Some(Ejection { member, span }) = hosts.note("back", address, has_failed, now) {
                    assert!(has_failed && member == address && !out.contains_key(&member));
                    assert!(RULE.ejection <= span && span <= RULE.ejection_max);
                    out.insert(member, now.saturating_add(span));
                }
            };
            for event in events {
                match event {
                    Event::Call { has_failed } => {
                        let called = hosts.turn("back", RULE, now)[0].0;
                        prop_assert!(!out.contains_key(&called));
                        fail(&mut hosts, &mut out, called, has_failed, now);
                    }
                    Event::Late { number, has_failed } => fail(&mut hosts, &mut out, address(number), has_failed, now),
                    Event::Pass { seconds } => {
                        now = now.saturating_add(Duration::from_secs(seconds));
                        hosts.found(BACK, RULE, &all, now, |_| ());
                    }
                    Event::Found { numbers } => {
                        all = numbers.into_iter().map(address).collect();
                        all.sort_unstable();
                        all.dedup();
                        hosts.found(BACK, RULE, &all, now, |_| ());
                        // Some may be back, for want of others.
                        let left: Vec<SocketAddr> = hosts.turn("back", RULE, now).into_iter().map(|(left, ())| left).collect();
                        out.retain(|address, _| all.contains(address) && !left.contains(address));
                    }
                }
                out.retain(|_, until| now < *until);
                let mut left: Vec<SocketAddr> = hosts.turn("back", RULE, now).into_iter().map(|(left, ())| left).collect();
                left.sort_unstable();
                let expected: Vec<SocketAddr> = all.iter().copied().filter(|address| !out.contains_key(address)).collect();
                prop_assert_eq!(left, expected);
                prop_assert_eq!(hosts.ejected(now), out.len());
                prop_assert!(out.len() <= (all.len() / 2).max(1).min(all.len() - 1));
            }
        }
    }
}
