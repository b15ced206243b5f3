//! What became of the requests for each service, by what has led clients to it.
//!
//! - A request is counted at one place only, that of its route: a service's own counts are sums, made when somebody asks.
//! - Few and fixed bytes for each service, whatever it is asked.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use super::{End, add};
use crate::faults::Reason;
use crate::histogram::Histogram;
use crate::routes::Route;

/// Of one service.
#[derive(Debug, Default)]
pub(super) struct OfService {
    /// By the places of [`Route::ALL`]; the last: what no route has led to it, requests of this process.
    routes: [OfRoute; Route::ALL.len() + 1],
    /// By the places of [`Reason::ALL`].
    refused: [Cell<u64>; Reason::ALL.len()],
    abandoned: Cell<u64>,
}

/// What has led a request to its service: a place of `OfService::routes`.
#[derive(Debug, Clone, Copy)]
pub(super) struct RoutePlace(usize);

impl From<Option<Route>> for RoutePlace {
    fn from(route: Option<Route>) -> Self {
        Self(route.map_or(Route::ALL.len(), |route| route as usize))
    }
}

/// Of these, by one route.
#[derive(Debug, Default)]
struct OfRoute {
    received: Cell<u64>,
    answered: Cell<u64>,
    failed: Cell<u64>,
    refused: Cell<u64>,
    durations: RefCell<Histogram>,
}

/// Requests of clients for one service, on one lane.
///
/// `received = answered + refused + abandoned + in_flight` always holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ServiceStats {
    /// The service, as it was asked for.
    pub service: String,
    /// Routed to it.
    pub received: u64,
    /// Answered by a cell or a host.
    pub answered: u64,
    /// Of these, with a status of 500 or more.
    pub failed: u64,
    /// Answered by the mesh.
    pub refused: u64,
    /// Of these, by why: the places of [`Reason::ALL`].
    pub refused_for: [u64; Reason::ALL.len()],
    /// The client went away first.
    pub abandoned: u64,
    /// Routed to it and not ended.
    pub in_flight: u64,
    /// Of those that were answered, from when the head was read until the answer was there.
    pub durations: Histogram,
    /// Of the requests of the network, by what has led to it: only routes that did, in the order of [`Route::ALL`].
    pub routes: Vec<(Route, RouteStats)>,
}

/// Of the requests for one service, those that one route has led to it. What is missing was abandoned, or has not ended.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RouteStats {
    /// Routed to it.
    pub received: u64,
    /// Answered by a cell or a host.
    pub answered: u64,
    /// Of these, with a status of 500 or more.
    pub failed: u64,
    /// Answered by the mesh.
    pub refused: u64,
    /// Of those that were answered, from when the head was read until the answer was there.
    pub durations: Histogram,
}

impl OfService {
    /// One came.
    pub(super) fn begin(&self, route: RoutePlace) {
        add(&self.routes[route.0].received, 1);
    }

    /// It ended.
    pub(super) fn end(&self, route: RoutePlace, end: End, took: Duration) {
        let route = &self.routes[route.0];
        match end {
            End::Abandoned => add(&self.abandoned, 1),
            // A refusal takes no time: with those of a flood a service would look the faster the more it refuses.
            End::Answered { status } => {
                add(&route.answered, 1);
                add(&route.failed, u64::from(status >= 500));
                route.durations.borrow_mut().record(took);
            }
            End::Refused { reason, .. } => {
                add(&route.refused, 1);
                add(&self.refused[reason as usize], 1);
            }
        }
    }

    pub(super) fn stats(&self, service: String) -> ServiceStats {
        let sum =
            |of: fn(&OfRoute) -> &Cell<u64>| self.routes.iter().map(|route| of(route).get()).sum::<u64>();
        let [received, answered] = [sum(|route| &route.received), sum(|route| &route.answered)];
        let [refused, abandoned] = [sum(|route| &route.refused), self.abandoned.get()];
        let mut durations = Histogram::default();
        self.routes.iter().for_each(|route| durations.add(&route.durations.borrow()));
        ServiceStats {
            service,
            received,
            answered,
            failed: sum(|route| &route.failed),
            refused,
            refused_for: self.refused.each_ref().map(Cell::get),
            abandoned,
            in_flight: received - answered - refused - abandoned,
            durations,
            routes: self.by_route(),
        }
    }

    fn by_route(&self) -> Vec<(Route, RouteStats)> {
        let asked = Route::ALL.into_iter().zip(&self.routes).filter(|(_, route)| route.received.get() > 0);
        asked.map(|(name, route)| (name, route.stats())).collect()
    }
}

impl OfRoute {
    fn stats(&self) -> RouteStats {
        RouteStats {
            received: self.received.get(),
            answered: self.answered.get(),
            failed: self.failed.get(),
            refused: self.refused.get(),
            durations: self.durations.borrow().clone(),
        }
    }
}

impl ServiceStats {
    /// Counts all that another lane has counted of the same service.
    pub fn add(&mut self, other: &Self) {
        self.received += other.received;
        self.answered += other.answered;
        self.failed += other.failed;
        self.refused += other.refused;
        self.refused_for.iter_mut().zip(other.refused_for).for_each(|(sum, more)| *sum += more);
        self.abandoned += other.abandoned;
        self.in_flight += other.in_flight;
        self.durations.add(&other.durations);
        for (route, stats) in &other.routes {
            match self.routes.iter_mut().find(|(known, _)| known == route) {
                Some((_, sum)) => sum.add(stats),
                None => self.routes.push((*route, stats.clone())),
            }
        }
    }
}

impl RouteStats {
    /// Counts all that another lane has counted of the same.
    pub fn add(&mut self, other: &Self) {
        self.received += other.received;
        self.answered += other.answered;
        self.failed += other.failed;
        self.refused += other.refused;
        self.durations.add(&other.durations);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOOK: Duration = Duration::from_micros(40);

    /// A service that was asked by two routes and by this process.
    fn asked() -> OfService {
        let service = OfService::default();
        let refused = End::Refused { status: 503, reason: Reason::Overloaded, is_shed: true };
        for (route, ends) in [
            (Some(Route::Host), &[End::Answered { status: 200 }, End::Answered { status: 500 }][..]),
            (Some(Route::Entry), &[refused, End::Abandoned]),
            (None, &[End::Answered { status: 499 }]),
        ] {
            for end in ends {
                service.begin(route.into());
                service.end(route.into(), *end, TOOK);
            }
        }
        service.begin(Some(Route::Entry).into());
        service
    }

    /// A request counts for its route and for its service, each once; routes that nobody took are not there.
    #[test]
    fn a_service_is_the_sum_of_its_routes() {
        let stats = asked().stats("s".into());
        assert_eq!((stats.received, stats.answered, stats.failed), (6, 3, 1));
        assert_eq!((stats.refused, stats.abandoned, stats.in_flight), (1, 1, 1));
        assert_eq!((stats.refused_for[Reason::Overloaded as usize], stats.durations.count()), (1, 3));
        let [(Route::Host, host), (Route::Entry, entry)] = &stats.routes[..] else { panic!("{stats:?}") };
        let of = |route: &RouteStats| {
            [route.received, route.answered, route.failed, route.refused, route.durations.count()]
        };
        assert_eq!((of(host), of(entry)), ([2, 2, 1, 0, 2], [3, 0, 0, 1, 0]));
    }

    /// Lanes are added up by route, whichever of them knows it.
    #[test]
    fn lanes_are_added_by_route() {
        let mut sum = ServiceStats::default();
        let other = OfService::default();
        other.begin(Some(Route::Path).into());
        for lane in [asked(), other, asked()] {
            sum.add(&lane.stats("s".into()));
        }
        let received: Vec<(Route, u64)> =
            sum.routes.iter().map(|(route, stats)| (*route, stats.received)).collect();
        assert_eq!(received, [(Route::Host, 4), (Route::Entry, 6), (Route::Path, 1)]);
        assert_eq!((sum.received, sum.durations.count(), sum.in_flight), (13, 6, 3));
    }
}
