//! What a work model means, and what is said about one that means nothing.

use super::*;
use crate::body::ResponseBody;
use crate::stress::{Count, Cpu, Disk, Memory, Range, Sleep, Stress};

fn network() -> Network {
    let paths = HashMap::from([("s2".to_owned(), "/two".to_owned()), ("s3".to_owned(), "three".to_owned())]);
    Network { services: Some(["s0", "s1", "s2", "s3"].map(str::to_owned).into()), paths }
}

fn read(entry: &str) -> Service {
    Service::read("s0".to_owned(), entry, network()).unwrap()
}

fn problem(entry: &str) -> String {
    Service::read("s0".to_owned(), entry, network()).unwrap_err()
}

fn callee(url: &str, probability: f64) -> Callee {
    Callee { url: url.to_owned(), probability }
}

/// An entry as muBench's own tools write it, with all the hints for whoever deploys it.
#[test]
fn whole_entry_is_read() {
    let service = read(
        r#"{
        "external_services": [
            {"seq_len": 100, "services": ["s1", "s2__1", "s2__2"], "probabilities": {"s2__1": 0.5, "s2": 0.25}},
            {"seq_len": 1, "services": ["s3", "s1"]},
            {"seq_len": 1, "services": []}
        ],
        "internal_service": {"loader": {
            "cpu_stress": {"run": true, "range_complexity": [5, 7], "thread_pool_size": 3, "trials": 2},
            "memory_stress": {"run": true, "memory_size": 10, "memory_io": 20},
            "disk_stress": {"run": true, "tmp_file_name": "x", "disk_write_block_count": 3, "disk_write_block_size": 4},
            "sleep_stress": {"run": true, "sleep_time": 0.5},
            "mean_response_size": 1.5, "function_id": "f1"}},
        "request_method": "rest", "workers": 4, "threads": 16, "cpu-requests": "1000m", "sidecar": "x",
        "url": "s0.ns.svc.cluster.local", "path": "/api/v1", "image": "x", "namespace": "ns"}"#,
    );
    let behaviour = service.behaviour(None);
    let [first, second, third] = &behaviour.groups[..] else { panic!("three groups: {behaviour:?}") };
    let callees =
        [callee("http://s1/api/v1", 1.0), callee("http://s2/two", 0.5), callee("http://s2/two", 0.25)];
    assert_eq!((&first.callees[..], first.called_max), (&callees[..], 3));
    assert_eq!((second.callees[0].url.as_str(), second.called_max), ("http://s3/three", 1));
    assert_eq!((third.callees.len(), third.called_max), (0, 0));
    let stress = serde_json::from_str::<Stress>(
        r#"{"cpu": {"run": true, "range_complexity": [5, 7], "thread_pool_size": 3, "trials": 2},
            "memory": {"run": true, "memory_size": 10, "memory_io": 20},
            "disk": {"run": true, "tmp_file_name": "x", "disk_write_block_count": 3, "disk_write_block_size": 4},
            "sleep": {"run": true, "sleep_time": 0.5}}"#,
    );
    assert_eq!(behaviour.internal, Internal { stress: stress.unwrap(), body: ResponseBody::Random(1.5) });
}

/// A missing key takes its default, at every depth; only sleeping runs by default.
#[test]
fn missing_keys_take_their_defaults() {
    let internal = |entry: &str| read(entry).behaviour(None).internal.clone();
    let body = ResponseBody::Random(11.0);
    let stress = Stress { sleep: Some(Sleep::default()), ..Stress::default() };
    assert_eq!(internal(r#"{"internal_service": {"loader": {}}}"#), Internal { stress, body: body.clone() });

    let all = internal(
        r#"{"internal_service": {"loader": {"cpu_stress": {"run": true}, "memory_stress": {"run": true},
            "disk_stress": {"run": true}, "sleep_stress": {"run": false}}}}"#,
    );
    let stress = Stress {
        cpu: Some(Cpu { run: true, ..Cpu::default() }),
        memory: Some(serde_json::from_str::<Memory>(r#"{"run": true, "memory_size": 10000, "memory_io": 1000}"#).unwrap()),
        disk: Some(
            serde_json::from_str::<Disk>(
                r#"{"run": true, "tmp_file_name": "mubtestfile.txt", "disk_write_block_count": 1000, "disk_write_block_size": 1024}"#,
            )
            .unwrap(),
        ),
        sleep: None,
    };
    assert_eq!(all, Internal { stress, body });
    assert_eq!(internal("{}"), Internal { stress: Stress::default(), body: ResponseBody::Empty });
}

/// The other functions, and the older name of the response's size.
#[test]
fn functions_are_known_by_name() {
    let internal = |function: &str| {
        read(&format!(r#"{{"internal_service": {function}}}"#)).behaviour(None).internal.clone()
    };
    let pi = internal(r#"{"compute_pi": {}}"#);
    let once = Count::new(1);
    let cpu = Cpu { run: true, range_complexity: Range::of(50, 100), thread_pool_size: once, trials: once };
    assert_eq!(
        pi,
        Internal {
            stress: Stress { cpu: Some(cpu), ..Stress::default() },
            body: ResponseBody::Repeated(10.0)
        }
    );
    assert_eq!(internal(r#"{"compute_pi": {"mean_bandwidth": 3}}"#).body, ResponseBody::Repeated(3.0));
    assert_eq!(internal(r#"{"loader": {"mean_bandwidth": 3}}"#).body, ResponseBody::Random(3.0));
    let colosseum = internal(r#"{"colosseum": {}, "loader": {}}"#);
    assert!(
        colosseum.stress.is_nothing() && matches!(colosseum.body, ResponseBody::Fixed(_)),
        "the first counts"
    );
}

/// An alternative replaces what it names; an id that is none is the default.
#[test]
fn behaviours_are_chosen_by_id() {
    let service = read(
        r#"{"external_services": [{"services": ["s1"]}], "internal_service": {"compute_pi": {}},
            "alternative_behaviors": {
                "calls": {"external_services": [{"services": ["s2"]}]},
                "works": {"internal_services": {"colosseum": {}}},
                "rests": {"internal_services": {"loader": {"sleep_stress": {"run": false}}}, "external_services": []}}}"#,
    );
    let [default, calls, works, rests] =
        [None, Some("calls"), Some("works"), Some("rests")].map(|bid| service.behaviour(bid));
    assert_eq!((service.behaviour(Some("no such")), service.behaviour(Some("default"))), (default, default));
    assert_eq!(
        (&calls.internal, calls.groups[0].callees[0].url.as_str()),
        (&default.internal, "http://s2/two")
    );
    assert_eq!((&works.groups, &works.internal.stress), (&default.groups, &Stress::default()));
    assert!(rests.groups.is_empty() && rests.internal.body == ResponseBody::Random(11.0));
}

/// What cannot be meant is refused with the service, the key, what was found and what would be right.
#[test]
fn mistakes_name_their_place() {
    let check = |entry: &str, parts: &[&str]| {
        let problem = problem(entry);
        let all = parts.iter().all(|part| problem.contains(part));
        assert!(all && problem.starts_with("work model of service `s0`: "), "{problem}");
    };
    check("[", &["EOF while parsing"]);
    check(r#"{"external_services": {}}"#, &["external_services: invalid type: map, expected a sequence"]);
    check(
        r#"{"external_services": [{}, {"services": ["s9"]}]}"#,
        &["external_services[1]: service `s9` is not in the work model, which has s0, s1, s2, s3"],
    );
    check(
        r#"{"external_services": [{"seq_len": -1}]}"#,
        &["external_services[0].seq_len: -1: must be a whole number from 0"],
    );
    check(
        r#"{"internal_service": {"run_away": {}}}"#,
        &["internal_service", "no function `run_away`: it has loader, compute_pi and colosseum"],
    );
    let loader = |parameters: &str| format!(r#"{{"internal_service": {{"loader": {{{parameters}}}}}}}"#);
    check(
        &loader(r#""cpu_stress": {"range_complexity": [9, 1]}"#),
        &["internal_service.loader.cpu_stress.range_complexity: [9, 1]: the first must not"],
    );
    check(
        &loader(r#""cpu_stress": {"trials": "two"}"#),
        &["internal_service.loader.cpu_stress.trials: invalid type: string"],
    );
    check(
        &loader(r#""cpu_stress": {"thread_pool_size": 0}"#),
        &["internal_service.loader.cpu_stress.thread_pool_size = 0: must be from 1 to 1024"],
    );
    check(
        &loader(r#""sleep_stress": {"sleep_time": -1}"#),
        &["internal_service.loader.sleep_stress.sleep_time = -1: must be a number of seconds from 0"],
    );
    check(
        &loader(r#""mean_response_size": -1"#),
        &["internal_service.loader.mean_response_size = -1: must be a number of kB from 0"],
    );
    check(
        r#"{"alternative_behaviors": {"b1": {"external_services": [{"services": ["s9"]}]}}}"#,
        &["alternative_behaviors.b1: external_services[0]: service `s9`"],
    );
}
