//! What clients got of each service, of all of it and by what has led them there.

use std::collections::BTreeMap;

use cellmesh_dpu::{Histogram, Reason, Route, RouteStats, ServiceStats};

use super::families::{self as f, Family};
use super::text::Text;
use super::{ByName, sums};

pub(super) fn write(text: &mut Text, services: &ByName<'_, ServiceStats>) {
    sums(text, &f::SERVICE_RECEIVED, services, |stats| stats.received);
    sums(text, &f::SERVICE_ANSWERED, services, |stats| stats.answered);
    sums(text, &f::SERVICE_FAILED, services, |stats| stats.failed);
    sums(text, &f::SERVICE_ABANDONED, services, |stats| stats.abandoned);
    sums(text, &f::SERVICE_IN_FLIGHT, services, |stats| stats.in_flight);
    refused(text, services);
    let mut durations: BTreeMap<[&str; 1], Histogram> = BTreeMap::new();
    let mut routes: BTreeMap<[&str; 2], RouteStats> = BTreeMap::new();
    for (service, stats) in services.iter().flat_map(|(name, lanes)| lanes.iter().map(|lane| (*name, lane))) {
        durations.entry([service]).or_default().add(&stats.durations);
        for (route, stats) in &stats.routes {
            routes.entry([service, route.name()]).or_default().add(stats);
        }
    }
    text.histograms(
        &f::SERVICE_DURATION,
        durations.iter().map(|(labels, durations)| (&labels[..], durations)),
    );
    by_route(text, &routes);
}

/// Why requests for each service were refused. Only reasons that there were: of all services, all would be too many.
fn refused(text: &mut Text, services: &ByName<'_, ServiceStats>) {
    let counts = services.iter().flat_map(|(service, lanes)| {
        let of = |reason: Reason| lanes.iter().map(|stats| stats.refused_for[reason as usize]).sum::<u64>();
        let counts = Reason::ALL.map(|reason| ([*service, reason.word()], of(reason)));
        counts.into_iter().filter(|(_, count)| *count > 0)
    });
    let counts: Vec<([&str; 2], u64)> = counts.collect();
    text.family(&f::SERVICE_REFUSED, counts.iter().map(|(labels, count)| (&labels[..], count)));
}

/// By what has led clients to a service. Only routes that did, but for how often: a rate misses what a series begins with.
fn by_route(text: &mut Text, routes: &BTreeMap<[&str; 2], RouteStats>) {
    let mut received: BTreeMap<[&str; 2], u64> = BTreeMap::new();
    for ([service, route], stats) in routes {
        for other in Route::ALL {
            received.entry([*service, other.name()]).or_default();
        }
        received.insert([*service, *route], stats.received);
    }
    text.family(&f::ROUTE_REQUESTS, received.iter().map(|(labels, count)| (&labels[..], count)));
    let mut counts = |family: &Family, of: fn(&RouteStats) -> u64| {
        text.family(family, routes.iter().map(|(labels, stats)| (&labels[..], of(stats))));
    };
    counts(&f::ROUTE_ANSWERED, |stats| stats.answered);
    counts(&f::ROUTE_FAILED, |stats| stats.failed);
    counts(&f::ROUTE_REFUSED, |stats| stats.refused);
    let durations = routes.iter().map(|(labels, stats)| (&labels[..], &stats.durations));
    text.histograms(&f::ROUTE_DURATION, durations);
}
