use proptest::prelude::*;

use super::*;

fn names(names: &[&str]) -> Vec<ServiceName> {
    names.iter().map(|name| name.parse().expect("a valid name")).collect()
}

/// Services `s0`, `s1`, `Shop-1`; the entry is `s0`.
fn routes() -> Routes {
    Routes::new(names(&["s0", "s1", "Shop-1"]), ServiceId(0)).expect("valid routes")
}

fn route(host: Option<&str>, service: Option<&str>, path: &str) -> Result<u16, UnknownService> {
    routes().route(RouteQuery { host, service, path }).map(|(id, _)| id.0)
}

/// Every form in which clients and Kubernetes write a service's host.
#[test]
fn host_names_its_service_in_every_form() {
    for host in [
        "s1",
        "s1:5005",
        "S1",
        "s1.",
        "s1.:80",
        "s1.ns",
        "s1.ns.svc.cluster.local",
        "S1.NS.svc.cluster.local.:5005",
    ] {
        assert_eq!(route(Some(host), None, "/"), Ok(1), "host {host:?}");
    }
    assert_eq!(route(Some("shop-1.default"), None, "/"), Ok(2));
}

/// What has decided is told: the first of host, name and path that names a service, or none of them.
#[test]
fn what_has_decided_is_told() {
    for (host, service, path, (id, route)) in [
        (Some("s1"), Some("s0"), "/s0", (1, Route::Host)),
        (Some("localhost"), Some("s1"), "/s0", (1, Route::Service)),
        (Some("localhost"), None, "/s1/a", (1, Route::Path)),
        (None, None, "/a/s1", (0, Route::Entry)),
    ] {
        assert_eq!(routes().route(RouteQuery { host, service, path }), Ok((ServiceId(id), route)));
    }
}

/// Hosts that name nothing leave the decision to what follows.
#[test]
fn other_hosts_decide_nothing() {
    for host in [
        "",
        ":80",
        ".",
        ".s1",
        "localhost:5005",
        "127.0.0.1:5005",
        "10.0.0.1",
        "[::1]:5005",
        "[::1]",
        "::1",
        "s1x",
    ] {
        assert_eq!(route(Some(host), None, "/"), Ok(0), "host {host:?}");
        assert_eq!(route(Some(host), None, "/s1"), Ok(1), "host {host:?}");
    }
}

/// A service whose name is a number is not mistaken for the start of an address, nor the other way.
#[test]
fn numeric_names_are_not_addresses() {
    let routes = Routes::new(names(&["s0", "10"]), ServiceId(0)).expect("valid routes");
    let of =
        |host| routes.route(RouteQuery { host: Some(host), service: None, path: "/" }).map(|(id, _)| id.0);
    assert_eq!(of("10.0.0.1"), Ok(0));
    assert_eq!(of("10:5005"), Ok(1));
    assert_eq!(of("10.ns.svc"), Ok(1));
}

/// The header comes after the host and before the path; case matters in it.
#[test]
fn header_decides_after_host() {
    assert_eq!(route(Some("s1"), Some("Shop-1"), "/s0"), Ok(1));
    assert_eq!(route(Some("localhost"), Some("Shop-1"), "/s1"), Ok(2));
    assert_eq!(route(None, Some("s1"), "/"), Ok(1));
}

/// A header that names no service is an answer, not a fall-back to the entry.
#[test]
fn unknown_header_is_refused_by_name() {
    for name in ["s9", "", "S1", "s1.ns", "s1/"] {
        assert_eq!(route(None, Some(name), "/s1"), Err(UnknownService { name: name.to_owned() }));
    }
    let long = route(None, Some(&"x".repeat(1000)), "/").unwrap_err();
    assert_eq!(long.name.len(), NAME_BYTES_MAX);
}

/// The first segment counts only when it is exactly a name.
#[test]
fn path_names_its_service() {
    for (path, id) in [
        ("/s1", 1),
        ("/s1/", 1),
        ("/s1/api/v1", 1),
        ("/s1?x=/s0", 1),
        ("/Shop-1/x", 2),
        ("/", 0),
        ("//s1", 0),
        ("/S1", 0),
        ("/s1x", 0),
        ("/x/s1", 0),
        ("*", 0),
        ("", 0),
        ("/s1%2f", 0),
        ("/%73%31", 0),
    ] {
        assert_eq!(route(None, None, path), Ok(id), "path {path:?}");
    }
}

/// A list that cannot be routed to says which rule it breaks.
#[test]
fn bad_lists_are_refused() {
    let error =
        |services: &[&str], entry| Routes::new(names(services), ServiceId(entry)).unwrap_err().to_string();
    assert_eq!(error(&[], 0), "no services: at least one is needed");
    assert_eq!(error(&["a", "A"], 0), "service \"A\" is listed twice (upper and lower case are one name)");
    assert_eq!(error(&["a"], 1), "entry service 1: must be less than the number of services (1)");
}

/// What may be a name, and that a refusal says the rule.
#[test]
fn names_follow_the_rule() {
    for good in ["a", "S-1_x", "0", &"x".repeat(63)] {
        assert!(good.parse::<ServiceName>().is_ok(), "{good:?}");
    }
    for bad in ["", "a.b", "a b", "ä", "a/b", &"x".repeat(64)] {
        assert!(bad.parse::<ServiceName>().is_err(), "{bad:?}");
    }
    assert_eq!(
        "a.b".parse::<ServiceName>().unwrap_err().to_string(),
        "service name \"a.b\": must be 1 to 63 letters, digits, '-' or '_'"
    );
}

proptest! {
    /// No text from a client panics the router or leads to an id that does not exist.
    #[test]
    fn any_text_routes_or_is_refused(host in ".{0,80}", service in proptest::option::of(".{0,80}"), path in ".{0,80}") {
        let query = RouteQuery { host: Some(&host), service: service.as_deref(), path: &path };
        if let Ok((id, _)) = routes().route(query) {
            prop_assert!(id.0 < 3);
        }
    }
}
