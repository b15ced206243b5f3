use std::path::PathBuf;

use super::*;

/// A folder with a file that passes for a component, and `text` as the config.
fn file(name: &str, text: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(folder.path().join("hello.wasm"), b"").expect("writable");
    std::fs::write(folder.path().join("mubench.wasm"), b"").expect("writable");
    let path = folder.path().join(name);
    std::fs::write(&path, text).expect("writable");
    (folder, path)
}

fn read(name: &str, text: &str) -> Result<App, Vec<String>> {
    let (folder, path) = file(name, text);
    let overrides = Overrides { cells_dir: Some(folder.path().to_owned()), ..Overrides::default() };
    load(&path, &overrides).map_err(|problems| {
        let shown = path.display().to_string();
        problems.0.iter().map(|problem| problem.to_string().replace(&shown, "FILE")).collect()
    })
}

/// The shortest manifest: everything else has a default.
#[test]
fn shortest_manifest_is_enough() {
    let app = read("app.toml", "[[cell]]\ncomponent = \"hello.wasm\"\nservices = [\"hello\", \"hi\"]\n")
        .expect("valid");
    assert_eq!(app.services.len(), 2);
    assert_eq!((app.entry, app.listen.to_string().as_str()), (0, "127.0.0.1:5005"));
    assert!(!app.services[0].setup.fresh_instances);
}

/// Every value that can be set is set.
#[test]
fn manifest_settings_are_taken() {
    let app = read(
        "app.toml",
        r#"
        name = "shop"
        entry = "b"
        listen = "127.0.0.1:0"
        [dpu]
        request_timeout = "250ms"
        [runtime]
        lanes = 3
        drain_timeout = "2s"
        [[cell]]
        component = "hello.wasm"
        services = ["a", "b"]
        memory_max = "2MiB"
        step_timeout = "1s"
        instances = "fresh"
        instances_max = 7
        config = { k = "v" }
        grants = { scratch = "temporary" }
        "#,
    )
    .expect("valid");
    let setup = &app.services[1].setup;
    assert_eq!((app.name.as_str(), app.entry, app.runtime.lanes), ("shop", 1, Some(3)));
    assert_eq!(app.dpu.request_timeout.0.as_millis(), 250);
    assert_eq!((setup.limits.memory_bytes_max, setup.fresh_instances), (2 << 20, true));
    assert_eq!(setup.config.get("k").map(String::as_str), Some("v"));
    assert_eq!(app.services[0].instances_max, 7);
}

/// Where a text is wanted nothing else is taken for one: no date, and no number that is too large to be one.
#[test]
fn texts_are_texts() {
    let cell = "[[cell]]\ncomponent = \"hello.wasm\"\nservices = [\"hello\"]\n";
    for (table, key) in [
        ("dpu.egress", "ca"),
        ("trace", "endpoint"),
        ("service.hello.jwt", "jwks"),
        ("service.hello.jwt", "issuer"),
        ("service.hello.headers.add", "x-day"),
        ("dpu.egress", "http2"),
        ("dpu.tls", "certificate"),
        ("registry", "ca"),
        ("runtime", "cache_dir"),
    ] {
        for value in ["1979-05-27", "07:32:00", "99999999999999999999", "1", "[1979-05-27]"] {
            let text = format!("{cell}[{table}]\n{key} = {value}\n");
            let problems = read("app.toml", &text).expect_err(&text).join("\n");
            let section = table.split('.').next().expect("it has a name");
            assert!(
                problems.contains(&format!("FILE:4: {section}"))
                    || problems.contains(&format!("FILE:5: {table}")),
                "{text}: {problems}"
            );
        }
    }
    let problems = read("app.toml", &format!("{cell}[dpu.egress]\nca = 1979-05-27\n")).expect_err("a date");
    assert_eq!(
        problems,
        [
            "FILE:5: dpu.egress.ca: the date 1979-05-27 does not fit; write text in quotes: no key takes a date"
        ]
    );
}

/// All problems come at once, each with line, key, what is wrong and what would be right.
#[test]
fn every_problem_is_listed() {
    let problems = read(
        "app.toml",
        "entry = \"nobody\"\n[runtime]\nlane = 2\n[dpu]\nrequest_timeout = \"soon\"\nheaders = 1\n[[cell]]\ncomponent = \"none.wasm\"\n\
         services = [\"a b\", \"x\", \"x\"]\nmemory_max = 64\n",
    )
    .expect_err("full of mistakes");
    for part in [
        "FILE:3: runtime.lane: unknown key; did you mean lanes?",
        "FILE:5: dpu.request_timeout: ",
        "FILE:6: dpu.headers: unknown key; did you mean header",
        "cell[0].component: there is no file",
        "cell[0].services[0]: service name \"a b\": must be 1 to 63 letters",
        "cell[0].services[2]: x is served twice",
        "FILE:10: cell[0].memory_max: 64 does not fit; write a size from",
        "entry: nobody is no service; name one of: a b, x, x",
    ] {
        assert!(problems.iter().any(|problem| problem.contains(part)), "{part:?} is not in {problems:#?}");
    }
}

/// Policy is of a service that there is, and its keys are checked like all others.
#[test]
fn policies_are_read_by_service() {
    let cell = "[[cell]]\ncomponent = \"hello.wasm\"\nservices = [\"hello\", \"hi\"]\n";
    let app = read("app.toml", &format!("{cell}[service.hi]\ntimeout = \"2s\"\n")).expect("valid");
    assert_eq!(app.dpu.services["hi"].timeout.expect("set").0.as_secs(), 2);
    let wrong = "[service.hello]\ntimeout = \"0ms\"\ntimeouts = 1\nsplit = { hello = 1, bye = 2 }\n[service.nobody]\ntimeout = 5\n";
    let problems = read("app.toml", &format!("{cell}{wrong}")).expect_err("mistakes");
    for part in [
        "FILE:5: service.hello.timeout: \"0ms\" does not fit; must be from \"1ms\" to \"24h\"",
        "FILE:6: service.hello.timeouts: unknown key; did you mean timeout?",
        "FILE:7: service.hello.split.hello: hello is no other service; name one of: hi",
        "FILE:7: service.hello.split.bye: ",
        "FILE:8: service.nobody: nobody is no service; name one of: hello, hi",
        "FILE:9: service.nobody.timeout: ",
    ] {
        assert!(problems.iter().any(|problem| problem.contains(part)), "{part:?} is not in {problems:#?}");
    }
}

/// What a policy says of tries is checked with the line of the key, or of its table.
#[test]
fn policies_of_tries_are_checked() {
    let cell = "[[cell]]\ncomponent = \"hello.wasm\"\nservices = [\"hello\", \"hi\"]\n";
    let right = "[service.hi]\nretry = { on = [\"timeout\", 503], budget_ratio = 0.5 }\nbreaker = {}\n";
    let app = read("app.toml", &format!("{cell}{right}")).expect("valid");
    assert_eq!(app.dpu.services["hi"].retry.as_ref().expect("set").on.len(), 2);
    assert_eq!(app.dpu.services["hi"].breaker.expect("set").failures_max, 5);
    let wrong = "[service.hello]\nretry = { on = [600] }\nhedge = { percentile = 100 }\n\
                 [service.hi.retry]\nbackoff = \"1s\"\n[service.hi.breaker]\nfailure = 1\n";
    let problems = read("app.toml", &format!("{cell}{wrong}")).expect_err("mistakes");
    for part in [
        "FILE:5: service.hello.retry.on: ",
        "or a status from 400 to 599",
        "FILE:6: service.hello.hedge.percentile: 100 does not fit; must be from 1 to 99",
        "FILE:7: service.hi.retry.backoff_max: \"250ms\" does not fit; must be at least retry.backoff",
        "FILE:10: service.hi.breaker.failure: unknown key; did you mean failures_max?",
    ] {
        assert!(problems.iter().any(|problem| problem.contains(part)), "{part:?} is not in {problems:#?}");
    }
}

/// All that is wrong in a table of another crate is told, each with its own key and line, however deep it is.
#[test]
fn every_problem_of_inner_tables_is_listed() {
    let cell = "[[cell]]\ncomponent = \"hello.wasm\"\nservices = [\"hello\"]\n";
    let wrong = "[service.hello.retry]\nretry_max = 3\non = [\"conect\"]\nbackoff = 1\n[service.hello]\ntimeuot = \"1s\"\n\
                 hedge = { percentil = 9, budget_ratio = \"x\" }\n[trace]\nendpont = \"x\"\nslow = 5\n[service.hello.jwt]\n\
                 jwks = \"hello.wasm\"\nrules = [{ path = \"/a\", claim = \"b\", values = [\"c\"], vlaues = 1 }]\n";
    let problems = read("app.toml", &format!("{cell}{wrong}")).expect_err("mistakes");
    for part in [
        "FILE:5: service.hello.retry.retry_max: unknown key; did you mean retries_max?",
        "FILE:6: service.hello.retry.on: ",
        "FILE:7: service.hello.retry.backoff: ",
        "FILE:9: service.hello.timeuot: unknown key; did you mean timeout?",
        "FILE:10: service.hello.hedge.percentil: unknown key; did you mean percentile?",
        "FILE:10: service.hello.hedge.budget_ratio: ",
        "FILE:12: trace.endpont: unknown key; did you mean endpoint?",
        "FILE:13: trace.slow: ",
        "FILE:16: service.hello.jwt.rules[0].vlaues: unknown key; did you mean values?",
    ] {
        assert!(problems.iter().any(|problem| problem.contains(part)), "{part:?} is not in {problems:#?}");
    }
}

/// What is not TOML is told with its line.
#[test]
fn broken_toml_is_told_with_its_line() {
    let problems = read("app.toml", "name = \"x\"\nlisten = \n").expect_err("no TOML");
    assert!(problems[0].starts_with("FILE:2: "), "{problems:?}");
}

/// A work model needs nothing but its services; `s0` is the entry wherever it stands.
#[test]
fn work_model_becomes_services() {
    let app = read(
        "w.json",
        r#"{"s1": {}, "s0": {"external_services": [{"services": ["s1__2"]}], "request_method": "grpc"}}"#,
    )
    .expect("valid");
    assert_eq!(&*app.services[app.entry].setup.service, "s0");
    assert_eq!(app.services[0].path, "/api/v1");
    assert_eq!(app.notes.len(), 1);
}

/// Every problem of a work model comes at once.
#[test]
fn work_model_problems_are_listed() {
    let problems = read(
        "w.json",
        r#"{"s0": {"external_services": [{"services": ["s9"], "probabilities": {"s9": 2}, "seq_len": "x"}], "path": "nope"},
            "s 1": {}, "s2": 7, "s3": {"internal_service": {"loader": 1}}}"#,
    )
    .expect_err("full of mistakes");
    for part in [
        "s0.external_services[0].services[0]: \"s9\" is no service of this model",
        "s0.external_services[0].probabilities.s9: 2 does not fit",
        "s0.external_services[0].seq_len: \"x\" does not fit",
        "s0.path: \"nope\" is no path",
        "s 1: service name",
        "s2: is not an object",
        "s3.internal_service.loader: is not an object",
    ] {
        assert!(problems.iter().any(|problem| problem.contains(part)), "{part:?} is not in {problems:#?}");
    }
}

/// What the cell would refuse at its first request is refused at the start: parameters of functions, at every depth,
/// and a service that is there twice.
#[test]
fn work_model_parameters_are_checked() {
    let problems = read(
        "w.json",
        r#"{"s0": {"internal_service": {"loader": {"cpu_stress": {"run": 1, "range_complexity": [9], "thread_pool_size": 0,
            "trials": 1.5}, "memory_stress": [], "disk_stress": {"tmp_file_name": 7, "disk_write_block_count": -1},
            "sleep_stress": {"sleep_time": "long"}, "mean_response_size": -1}}},
            "s1": {"internal_service": {"compute_pi": {"range_complexity": [9, 3]}},
                "alternative_behaviors": {"b": {"internal_services": {"colosseum": 7}}}},
            "s2": {"internal_service": {"fibonacci": {}}},
            "s0": {}}"#,
    )
    .expect_err("full of mistakes");
    let loader = "s0.internal_service.loader";
    for part in [
        &format!("{loader}.cpu_stress.run: 1 does not fit; write true or false"),
        &format!("{loader}.cpu_stress.range_complexity: [9] does not fit; write two whole numbers"),
        &format!("{loader}.cpu_stress.thread_pool_size: 0 does not fit; write a whole number from 1 to 1024"),
        &format!("{loader}.cpu_stress.trials: 1.5 does not fit"),
        &format!("{loader}.memory_stress: is not an object"),
        &format!("{loader}.disk_stress.tmp_file_name: 7 does not fit"),
        &format!("{loader}.disk_stress.disk_write_block_count: -1 does not fit"),
        &format!("{loader}.sleep_stress.sleep_time: \"long\" does not fit; write a number of seconds"),
        &format!("{loader}.mean_response_size: -1 does not fit; write a number of kB"),
        "s1.internal_service.compute_pi.range_complexity: [9,3] does not fit",
        "s1.alternative_behaviors.b.internal_services.colosseum: is not an object",
        "s2.internal_service.fibonacci: is no function of the muBench cell; name one of: loader, compute_pi, colosseum",
        "FILE: s0: is there twice",
    ] {
        assert!(problems.iter().any(|problem| problem.contains(part)), "{part:?} is not in {problems:#?}");
    }
    assert_eq!(problems.len(), 13, "{problems:#?}");
}

/// A key that is nearly a known one is a mistake, at every depth; others are muBench's or the user's, and told once.
#[test]
fn work_model_keys_are_checked() {
    let problems = read(
        "w.json",
        r#"{"s0": {"cpu-requets": "500m", "internal_servce": {}, "external_services": [{"service": [], "services": []}],
            "internal_service": {"loader": {"sleep_stres": {}, "sleep_stress": {"sleep_tiem": 1}}},
            "alternative_behaviors": {"b": {"external_service": []}}}}"#,
    )
    .expect_err("full of slips");
    for part in [
        "s0.cpu-requets: unknown key; did you mean cpu-requests?",
        "s0.internal_servce: unknown key; did you mean internal_service?",
        "s0.external_services[0].service: unknown key; did you mean services?",
        "s0.internal_service.loader.sleep_stres: unknown key; did you mean sleep_stress?",
        "s0.internal_service.loader.sleep_stress.sleep_tiem: unknown key; did you mean sleep_time?",
        "s0.alternative_behaviors.b.external_service: unknown key; did you mean external_services?",
    ] {
        assert!(problems.iter().any(|problem| problem.contains(part)), "{part:?} is not in {problems:#?}");
    }
    assert_eq!(problems.len(), 6, "{problems:#?}");
    let app = read(
        "w.json",
        r#"{"s0": {"url": "x", "workers": 4, "teastore_ref": "web", "internal_service": {"loader": {"function_id": "f1"}}},
            "s1": {"teastore_ref": "auth", "internal_service": {"loader": {"colour": 1}}}}"#,
    );
    let notes = app.expect("others' keys are no mistake").notes;
    let told = "keys that mean nothing here and are passed over: s1.internal_service.loader.colour, s0.teastore_ref (1 more)";
    assert_eq!(notes, [told]);
}

/// What the cell would not read is refused before it has to, with the key: other types, two names for one thing, keys that are there
/// twice, names that nobody could call, and files that are no work model.
#[test]
fn work_models_that_the_cell_would_refuse_are_refused() {
    let problems = read(
        "w.json",
        r#"{"s0": {"external_services": [7, {"services": ["s1"], "probabilities": [0.5], "seq_len": -1}],
                "alternative_behaviors": {"a": 5, "b": {"internal_services": {}, "internal_service": {}}},
                "request_method": "soap", "path": "/ä", "path": "/a?b"},
            "s1__a": {}, "s1": {"path": "/a b"}, "s2": {"ServiceParameters": {}}}"#,
    )
    .expect_err("full of mistakes");
    for part in [
        "s0.external_services[0]: is not an object",
        "s0.external_services[1].probabilities: is not an object",
        "s0.external_services[1].seq_len: -1 does not fit; write a whole number from 0",
        "s0.alternative_behaviors.a: is not an object",
        "s0.alternative_behaviors.b: internal_services and internal_service are two names",
        "s0.request_method: \"soap\" does not fit; write \"rest\" or \"grpc\"",
        "s0.path: is there twice",
        "s0.path: \"/a?b\" is no path",
        "s1__a: __ begins a suffix",
        "s1.path: \"/a b\" is no path",
        "s2: has no key of a service",
    ] {
        assert!(problems.iter().any(|problem| problem.contains(part)), "{part:?} is not in {problems:#?}");
    }
    assert_eq!(problems.len(), 11, "{problems:#?}");
}

/// What can be served and is hardly meant is told, and served: circles and long ways, calls that a graph has no room for, what the
/// usual limits do not give.
#[test]
fn work_models_that_are_hardly_meant_are_told() {
    let warned = |text: &str, parts: &[&str]| {
        let notes = read("w.json", text).expect("it can be served").notes;
        assert!(
            notes.len() == parts.len() && notes.iter().zip(parts).all(|(note, part)| note.contains(part)),
            "{notes:#?} where {parts:#?} is expected"
        );
    };
    let calls = |callee: &str| format!(r#"{{"external_services": [{{"services": ["{callee}"]}}]}}"#);
    warned(
        &format!(r#"{{"s0": {}, "s1": {}}}"#, calls("s1"), calls("s0__2")),
        &["s0 -> s1 -> s0 call each other in a circle: of a request that leads to more than 16,"],
    );
    let chain = |services: usize| {
        let entry = |at| {
            format!(
                r#""s{at}": {}"#,
                if at + 1 < services { calls(&format!("s{}", at + 1)) } else { "{}".into() }
            )
        };
        format!("{{{}}}", (0..services).map(entry).collect::<Vec<_>>().join(","))
    };
    warned(&chain(17), &[]);
    warned(&chain(18), &["s15 -> s16 -> s17 is a way of 17 calls"]);
    let many = |count: usize| {
        format!(
            r#"{{"s0": {{"external_services": [{{"services": ["s1"{}]}}]}}, "s1": {{}}}}"#,
            r#", "s1__2""#.repeat(count - 1)
        )
    };
    warned(&many(4093), &[]);
    warned(
        &many(4094),
        &["s0.external_services: 4094 calls for a request, of which a graph has at most 4093"],
    );
    let groups = |count: usize| {
        let group = r#"{"services": ["s1", "s1__2"]}"#;
        format!(r#"{{"s0": {{"external_services": [{}]}}, "s1": {{}}}}"#, vec![group; count].join(","))
    };
    warned(&groups(1364), &[]);
    warned(
        &groups(1365),
        &[
            "s0.external_services: 2730 calls and 1365 groups of several for a request, of which a graph has at most 4093",
        ],
    );
    warned(
        r#"{"s0": {"external_services": [{"services": ["s1__2"], "probabilities": {"s1": 0.5, "s1__2": 0.5, "s9": 0.5}}]},
            "s1": {"internal_service": {"loader": {"memory_stress": {"run": true, "memory_size": 200000},
                "disk_stress": {"run": true, "disk_write_block_size": 4000000000}, "sleep_stress": {"run": true, "sleep_time": 31},
                "mean_response_size": 2401}}},
            "s2": {"internal_service": {"loader": {"memory_stress": {"run": false, "memory_size": 200000},
                "sleep_stress": {"run": true, "sleep_time": 30}, "mean_response_size": 2400}}}}"#,
        &[
            "s0.external_services[0].probabilities.s9: this group does not call s9",
            "memory_stress.memory_size: 200000 is more than the 128 MiB of memory of a cell",
            "disk_stress.disk_write_block_size: 4000000000 is more than",
            "sleep_stress.sleep_time: 31 s are more than the 30 s that a request may take",
            "mean_response_size: 2401 kB: some bodies are longer than the 16 MiB",
        ],
    );
}

/// Editors that begin a file with a byte order mark are no problem; a file in another encoding is told so.
#[test]
fn encodings_are_told() {
    let model = read("w.json", "\u{feff}{\"s0\": {}}").expect("the mark is passed over");
    assert_eq!(model.services.len(), 1);
    let (_folder, path) = file("app.toml", "");
    std::fs::write(&path, b"name = \"caf\xe9\"").expect("writable");
    let problems = load(&path, &Overrides::default()).expect_err("Latin-1").to_string();
    assert!(problems.ends_with("is not UTF-8; save it as UTF-8"), "{problems}");
}

/// Names and paths that would be nothing, or the same thing twice, are refused, each with its key and line.
#[test]
fn empty_names_and_twins_are_refused() {
    let (folder, path) = file(
        "app.toml",
        r#"name = "a\nb"
            [[cell]]
            component = "folder"
            services = ["a"]
            [runtime]
            cache_dir = ""
            [dpa]
            socket = "d.sock"
            [[dpa.worker_socket]]
            path = ""
            services = ["a"]
            [[dpa.worker_socket]]
            path = "d.sock"
            services = []
            [worker]
            socket = " "
            services = []
            ring = { small = "20KiB", bulk_chunks = 3 }
            [service.a]
            split = { b = 5 }"#,
    );
    std::fs::create_dir(folder.path().join("folder")).expect("writable");
    let problems = load(&path, &Overrides::default()).expect_err("full of mistakes").to_string();
    for part in [
        ":1: name: ",
        ":3: cell[0].component: there is a folder ",
        ":6: runtime.cache_dir: ",
        ":10: dpa.worker_socket[0].path: ",
        ":13: dpa.worker_socket[1].path: d.sock is there twice",
        ":14: dpa.worker_socket[1].services: names no service",
        ":16: worker.socket: ",
        ":17: worker.services: names no service",
        ":18: worker.ring.small: 20480 is no power of two; write 16384 or 32768",
        ":18: worker.ring.bulk_chunks: 3 is no power of two; write 2 or 4",
        "service.a.split.b: b is no other service; leave it out: there is no other service",
    ] {
        assert!(problems.contains(part), "{part:?} is not in {problems}");
    }
    assert_eq!(problems.lines().count(), 11, "{problems}");
}

/// A work model that an `app.toml` names holds from the start on: what has changed in it since is named as what waits for the next.
#[test]
fn changed_work_model_waits_for_a_restart() {
    let (folder, path) = file("app.toml", "workmodel = \"w.json\"\n");
    let model = |text: &str| std::fs::write(folder.path().join("w.json"), text).expect("writable");
    let overrides = Overrides { cells_dir: Some(folder.path().to_owned()), ..Overrides::default() };
    let load = || load(&path, &overrides).expect("valid");
    model(r#"{"s0": {"path": "/a"}}"#);
    let old = load();
    model(r#"{"s0": {"path": "/b"}, "s1": {"path": "/c"}}"#);
    let Changes { live, restart } = changes(&old.origin, &load().origin);
    assert_eq!(
        (live, restart),
        (Vec::new(), vec!["workmodel.s0.path".to_owned(), "workmodel.s1.path".to_owned()])
    );
}

/// A value of the wrong type is told once, not also as missing.
#[test]
fn wrong_types_are_told_once() {
    let problems = read("app.toml", "[[cell]]\ncomponent = 7\nservices = \"a\"\n").expect_err("wrong types");
    assert_eq!(problems.len(), 2, "{problems:#?}");
}

/// JSON that is none is told with its line, and an empty model is none.
#[test]
fn broken_work_model_is_told() {
    assert!(read("w.json", "{\n\"s0\": }").expect_err("no JSON")[0].starts_with("FILE:2: is not JSON"));
    assert!(read("w.json", "{}").expect_err("empty")[0].contains("a key for each service"));
}

/// Without the muBench cell there is nothing to serve a model with: the folders that were looked in are named.
#[test]
fn missing_cell_is_told() {
    let (folder, path) = file("w.json", "{\"s0\": {}}");
    std::fs::remove_file(folder.path().join("mubench.wasm")).expect("there");
    let overrides = Overrides { cells_dir: Some(folder.path().to_owned()), ..Overrides::default() };
    let problems = load(&path, &overrides).expect_err("no cell").to_string();
    assert!(
        problems.contains("mubench.wasm: not found in") && problems.contains("cargo xtask cells"),
        "{problems}"
    );
}

/// A component may be in a registry; how registries are spoken to is a table of its own, whose files have to be there.
#[test]
fn components_of_registries_are_read() {
    let digest = format!("sha256:{}", "0".repeat(64));
    let cell = format!("[[cell]]\ncomponent = \"oci://r.shop:5000/a:1@{digest}\"\nservices = [\"a\"]\n");
    let app = read("app.toml", &cell).expect("valid");
    assert_eq!(app.services[0].setup.component.to_string(), format!("oci://r.shop:5000/a@{digest}"));
    assert_eq!(app.runtime.registry, crate::host::RegistrySettings::default());

    let table = "[registry]\nplain_http = [\"r.shop\"]\ncredentials = \"hello.wasm\"\n";
    let registry = read("app.toml", &format!("{cell}{table}")).expect("valid").runtime.registry;
    assert_eq!(registry.plain_http, Some(vec!["r.shop".into()]));
    assert!(registry.credentials.is_some_and(|file| file.ends_with("hello.wasm")));

    let wrong = "[registry]\nplain = true\ncredentials = \"none\"\nca = \"hello.wasm\"\n";
    let problems = read("app.toml", &format!("{cell}{wrong}")).expect_err("problems");
    for (found, part) in problems.iter().zip(["credentials: there is no file", "ca: ", "plain: unknown key"])
    {
        assert!(found.contains(&format!("registry.{part}")), "no {part:?} in {found:?}");
    }
    assert_eq!(problems.len(), 3, "{problems:?}");
}

/// A work model that a manifest names has its services, and the manifest the settings; what is wrong in it is told as its own.
#[test]
fn manifest_may_name_a_work_model() {
    let (folder, path) = file("app.toml", "workmodel = \"w.json\"\n[service.s1.deploy]\nreplicas = 4\n");
    let model = |text: &str| std::fs::write(folder.path().join("w.json"), text).expect("writable");
    let overrides = Overrides { cells_dir: Some(folder.path().to_owned()), ..Overrides::default() };
    model(r#"{"s1": {"replicas": 2, "cpu-limits": "1"}, "s0": {}}"#);
    let app = load(&path, &overrides).expect("valid");
    assert_eq!((app.services.len(), &*app.services[app.entry].setup.service), (2, "s0"));
    let deploy = &app.deploy["s1"];
    assert_eq!(
        (deploy.replicas, deploy.cpu.limits.as_ref().map(ToString::to_string)),
        (Some(4), Some("1".into()))
    );
    model(r#"{"s1": 7}"#);
    let problems = load(&path, &overrides).expect_err("no service").to_string();
    assert!(problems.contains("w.json: s1: is not an object") && problems.lines().count() == 1, "{problems}");
    let both = "workmodel = \"w.json\"\n[[cell]]\ncomponent = \"hello.wasm\"\nservices = [\"hello\"]\n";
    model("{\"s0\": {}}");
    std::fs::write(&path, both).expect("writable");
    let problems = load(&path, &overrides).expect_err("both").to_string();
    assert!(problems.contains("app.toml:1: workmodel: there are cells too"), "{problems}");
}
