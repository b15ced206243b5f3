//! What the checks let through, in their order, and what is given back.

use super::*;

const ANY: HeadView<'_> = HeadView { target: b"/", headers: HeaderLines(b"") };

fn policies(text: &str) -> Policies {
    let settings = serde_json::from_str(text).expect("policies");
    let services = ["s0", "s1"].map(|name| name.parse().expect("a name")).to_vec();
    Policies::new(&settings, &Routes::new(services, ServiceId(0)).expect("valid routes"))
}

fn permit(policies: &Policies, service: u16) -> Permit {
    policies.admit(ServiceId(service), ANY, Nanos(0)).expect("admitted")
}

/// A request to the first service, which says nothing.
fn message() -> RequestMessage {
    RequestMessage {
        service: ServiceId(0),
        deadline: Nanos::MAX,
        hops: 0,
        method_len: 0,
        target_len: 0,
        head: Default::default(),
        body: Default::default(),
    }
}

/// A timeout shortens what there is and never lengthens it; other services are not concerned.
#[test]
fn timeout_shortens_the_deadline() {
    let policies = policies(r#"{"s1": {"timeout": "2ms"}}"#);
    let deadline = |service, limit| permit(&policies, service).deadline(Nanos(7), Nanos(limit));
    assert_eq!(deadline(1, 5_000_000), Nanos(2_000_007));
    assert_eq!(deadline(1, 1_000_000), Nanos(1_000_000));
    assert_eq!(deadline(0, 5_000_000), Nanos(5_000_000));
}

/// An empty table is no policy: calls of cells to the service may pass the DPU by.
#[test]
fn empty_policies_are_none() {
    assert!(policies(r#"{"s1": {}}"#).of(ServiceId(1)).is_none());
    assert!(policies(r#"{"s1": {"timeout": "1s"}}"#).of(ServiceId(1)).is_some());
}

/// A policy that says the same after a change of others goes on; one that says something else begins anew.
#[test]
fn unchanged_policies_stay() {
    let services = ["s0", "s1"].map(|name| name.parse().expect("a name")).to_vec();
    let routes = Routes::new(services, ServiceId(0)).expect("valid routes");
    let read = |text| serde_json::from_str(text).expect("policies");
    let first = Policies::new(&read(r#"{"s0": {"timeout": "1s"}, "s1": {"timeout": "1s"}}"#), &routes);
    let next = first.followed_by(&read(r#"{"s0": {"timeout": "1s"}, "s1": {"timeout": "2s"}}"#), &routes);
    let is_same = |service| {
        let of = |policies: &Policies| Rc::clone(policies.of(ServiceId(service)).expect("a policy"));
        Rc::ptr_eq(&of(&first), &of(&next))
    };
    assert_eq!([is_same(0), is_same(1)], [true, false]);
}

/// What is learned of a service outlasts a change that has nothing to do with it.
#[test]
fn tries_go_on_while_what_they_go_by_stays() {
    let services = ["s0"].map(|name| name.parse().expect("a name")).to_vec();
    let routes = Routes::new(services, ServiceId(0)).expect("valid routes");
    let read = |text| serde_json::from_str(text).expect("policies");
    let first = Policies::new(&read(r#"{"s0": {"breaker": {}}}"#), &routes);
    let goes_on = |text| {
        let next = first.followed_by(&read(text), &routes);
        let tries = |policies: &Policies| policies.of(ServiceId(0)).and_then(|policy| policy.tries.clone());
        Rc::ptr_eq(&tries(&first).expect("tries"), &tries(&next).expect("tries"))
    };
    assert!(goes_on(r#"{"s0": {"breaker": {}, "in_flight_max": 2}}"#));
    assert!(!goes_on(r#"{"s0": {"breaker": {"failures_max": 2}}}"#));
    assert!(!goes_on(r#"{"s0": {"breaker": {}, "timeout": "1s"}}"#));
}

/// Lanes go on with one budget when their policy changes: the one that both had, or the new one's.
#[test]
fn lanes_share_budgets_across_changes() {
    let services = ["s0"].map(|name| name.parse().expect("a name")).to_vec();
    let routes = Routes::new(services, ServiceId(0)).expect("valid routes");
    let read = |text| -> BTreeMap<String, ServicePolicy> { serde_json::from_str(text).expect("policies") };
    let first = read(r#"{"s0": {"hedge": {"budget_ratio": 1}}}"#);
    let message = message();
    for next in [
        r#"{"s0": {"hedge": {"budget_ratio": 1}, "in_flight_max": 2}}"#,
        r#"{"s0": {"hedge": {"budget_ratio": 0.5}}}"#,
    ] {
        let next = read(next);
        let lane = || Policies::new(&first.clone(), &routes).followed_by(&next.clone(), &routes);
        let [one, other] = [lane(), lane()];
        let tries =
            |lane: &Policies| lane.of(ServiceId(0)).and_then(|policy| policy.tries.clone()).expect("tries");
        const S: u64 = 1_000_000_000;
        (0..4).for_each(|second| tries(&one).borrow_mut().begin(Nanos(second * S)));
        assert!(tries(&other).borrow_mut().hedge(&message, Nanos(4 * S)).is_some(), "{next:?}");
    }
}

/// Requests that are in flight when a policy changes count for the new one, and for what is told of it.
#[test]
fn requests_in_flight_count_for_the_next_policy() {
    let services = ["s0"].map(|name| name.parse().expect("a name")).to_vec();
    let routes = Routes::new(services, ServiceId(0)).expect("valid routes");
    let read = |text| serde_json::from_str(text).expect("policies");
    let first = Policies::new(&read(r#"{"s0": {"in_flight_max": 2}}"#), &routes);
    let mut message = message();
    let mut permits: Vec<Permit> = (0..2).map(|_| permit(&first, 0)).collect();
    permits.iter_mut().for_each(|permit| permit.dispatch(&mut message).expect("room"));
    let next = first.followed_by(&read(r#"{"s0": {"in_flight_max": 2, "timeout": "1s"}}"#), &routes);
    let admit = || next.admit(ServiceId(0), ANY, Nanos(0)).is_ok();
    assert_eq!((admit(), next.stats()[0].in_flight), (false, 2));
    permits.clear();
    assert_eq!((admit(), next.stats()[0].in_flight), (true, 0));
}

/// Headers of answers are the service's: what the mesh says stays as it is, and so does a head that would be too large.
#[test]
fn response_headers_are_for_answers_of_the_service() {
    let policies = policies(r#"{"s0": {"response_headers": {"add": {"x-from": "policy"}}}}"#);
    let permit = permit(&policies, 0);
    let head_after = |fault, head: &str| {
        let head = head.to_owned().into();
        let mut answer = ResponseMessage { status: 200, fault, head, body: Default::default() };
        permit.on_answer(&mut answer);
        String::from_utf8(answer.head.to_vec()).expect("text")
    };
    assert_eq!(head_after(Fault::None, "x-own: 1\n"), "x-own: 1\nx-from: policy\n");
    let lines = "x-own: 1\n".repeat(HeadLimits::with_added().lines_max);
    for (fault, head) in
        [(Fault::Deadline, ""), (Fault::None, "x-cellmesh-error: circuit-open\n"), (Fault::None, &lines)]
    {
        assert_eq!(head_after(fault, head), head);
    }
}

/// A time of nothing is refused with what would be right.
#[test]
fn values_have_bounds() {
    let policy = ServicePolicy {
        timeout: Some(TimeSpan::millis(0)),
        in_flight_max: Some(0),
        rate: Some(Rate { per_second: 0, burst: 1 }),
        split: [("s0".to_owned(), 101)].into(),
        response_headers: HeaderRules { remove: vec!["Connection".to_owned()], ..HeaderRules::default() },
        ..ServicePolicy::default()
    };
    let errors: Vec<String> = policy.validate().iter().map(ToString::to_string).collect();
    assert_eq!(
        errors,
        [
            "timeout = \"0ms\": must be from \"1ms\" to \"24h\"",
            "in_flight_max = 0: must be at least 1",
            "rate = { per_second = 0, burst = 1 }: must be per_second and burst from 1 to 1000000",
            "response_headers.remove = \"Connection\": must be a header that is not of the connection, the length or the host",
            "split = { s0 = 101 }: must be percents from 1, at most 100 together",
        ]
    );
}
