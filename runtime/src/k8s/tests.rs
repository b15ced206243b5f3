//! What is rendered, mode by mode and key by key, and what is refused. Agreement with deploy/kustomize, schemas and Pod Security
//! are checked by deploy/check.sh.

use clap::Parser;

use super::*;
use crate::config;

/// A command line with a file name and what is behind it.
#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    options: Options,
}

/// Renders a file with this text, with options as on a command line.
fn render_file(name: &str, text: &str, options: &str) -> Result<Rendered, Vec<String>> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join(name);
    std::fs::write(&path, text).expect("writable");
    let line = ["k8s", path.to_str().expect("text")].into_iter().chain(options.split_whitespace());
    let options = Line::parse_from(line).options;
    let app = config::load(&path, &options.overrides());
    app.and_then(|app| render(&app, &options)).map_err(|problems| {
        let shown = path.display().to_string();
        problems.0.iter().map(|problem| problem.to_string().replace(&shown, "FILE")).collect()
    })
}

fn model(text: &str, options: &str) -> Rendered {
    render_file("bench.json", text, options).expect("it can be rendered")
}

fn app(text: &str, options: &str) -> Rendered {
    render_file("app.toml", text, options).expect("it can be rendered")
}

impl Rendered {
    #[track_caller]
    fn object(&self, kind: &str, name: &str) -> &Value {
        let is_it = |object: &&Value| object["kind"] == kind && object["metadata"]["name"] == name;
        self.objects.iter().find(is_it).unwrap_or_else(|| panic!("no {kind} {name}"))
    }

    fn pod(&self, kind: &str, name: &str) -> &Value {
        &self.object(kind, name)["spec"]["template"]["spec"]
    }

    /// Requests and limits of a container: processors, memory, processors, memory.
    #[track_caller]
    fn resources(&self, workload: &str, container: &str) -> [&str; 4] {
        let pod = self.pod("Deployment", workload);
        let lists = [&pod["initContainers"], &pod["containers"]];
        let mut all = lists.into_iter().filter_map(Value::as_array).flatten();
        let found = all.find(|one| one["name"] == container).expect("such a container");
        let text = |kind: &str, what: &str| found["resources"][kind][what].as_str().expect("text");
        [text("requests", "cpu"), text("requests", "memory"), text("limits", "cpu"), text("limits", "memory")]
    }

    fn config(&self) -> toml::Table {
        let text = self.object("ConfigMap", "cellmesh")["data"]["app.toml"].as_str().expect("a file");
        text.parse().expect("TOML")
    }
}

/// Three services: one says all, one a part, one nothing.
const MODEL: &str = r#"{
    "s0": {"external_services": [{"services": ["s1", "s2"]}], "replicas": 2, "cpu-requests": "100m", "cpu-limits": "500m",
        "memory-requests": "32Mi", "memory-limits": "128Mi"},
    "s1": {"replicas": "3", "cpu-requests": 1.5, "memory-limits": "48Mi", "pod_antiaffinity": true},
    "s2": {"workers": 4, "threads": 16, "sidecar": "mongo:4.4.9"}
}"#;

/// In `node` each service has what it asks for; what it does not say is usual, as far as it fits.
#[test]
fn services_in_pods_of_their_own_get_what_they_ask_for() {
    let rendered = model(MODEL, "--mode node");
    let replicas = |name: &str| rendered.object("Deployment", name)["spec"]["replicas"].as_u64();
    assert_eq!(["worker-s0", "worker-s1", "worker-s2"].map(replicas), [Some(2), Some(3), Some(1)]);
    assert_eq!(rendered.resources("worker-s0", "worker"), ["100m", "32Mi", "500m", "128Mi"]);
    assert_eq!(rendered.resources("worker-s1", "worker"), ["1.5", "48Mi", "1.5", "48Mi"]);
    assert_eq!(rendered.resources("worker-s2", "worker"), ["200m", "64Mi", "1", "256Mi"]);
    let affinity = |name: &str| &rendered.pod("Deployment", name)["affinity"]["podAntiAffinity"];
    let term = &affinity("worker-s1")["requiredDuringSchedulingIgnoredDuringExecution"][0];
    assert_eq!(term["topologyKey"], "kubernetes.io/hostname");
    assert_eq!(term["labelSelector"]["matchLabels"]["app.kubernetes.io/component"], "worker-s1");
    assert!(affinity("worker-s0").is_null() && affinity("worker-s2").is_null());
    let surge =
        |name: &str| &rendered.object("Deployment", name)["spec"]["strategy"]["rollingUpdate"]["maxSurge"];
    assert_eq!([surge("worker-s0"), surge("worker-s1")], [1, 0]);
}

/// In `pod` a service has a container with its own resources; pods are as many as one service wants, apart if one wants it.
#[test]
fn services_that_share_a_pod_keep_their_resources() {
    let rendered = model(MODEL, "");
    assert_eq!(rendered.object("Deployment", "cellmesh")["spec"]["replicas"], 3);
    assert_eq!(rendered.resources("cellmesh", "worker-s0"), ["100m", "32Mi", "500m", "128Mi"]);
    assert_eq!(rendered.resources("cellmesh", "worker-s1"), ["1.5", "48Mi", "1.5", "48Mi"]);
    assert_eq!(rendered.resources("cellmesh", "worker-s2"), ["200m", "64Mi", "1", "256Mi"]);
    let pod = rendered.pod("Deployment", "cellmesh");
    assert!(pod["affinity"]["podAntiAffinity"].is_object());
    let sidecars = pod["initContainers"].as_array().expect("sidecars");
    assert!(sidecars.iter().all(|sidecar| sidecar["restartPolicy"] == "Always"));
    // 4 delays and a drain of 30 s, beside what each of the five takes to end.
    assert_eq!(pod["terminationGracePeriodSeconds"], 5 * 5 + 30 + 5 * 5);
}

/// In `solo` resources are those of all services and of the daemons, exactly; without any they are the manifests' own.
#[test]
fn services_that_share_a_process_get_the_sum() {
    assert_eq!(model(MODEL, "--mode solo").resources("cellmesh", "cellmesh"), ["2", "208Mi", "4", "688Mi"]);
    let silent = model(r#"{"s0": {"cpu-limits": "250m"}}"#, "--mode solo");
    assert_eq!(silent.resources("cellmesh", "cellmesh"), ["400m", "128Mi", "1250m", "512Mi"]);
}

/// Keys that mean nothing, or something for others too, are told, each once; those that are taken as they are are not.
#[test]
fn what_a_key_does_not_do_is_told() {
    let told = |options: &str| {
        let notes = model(MODEL, options).notes;
        notes
            .iter()
            .map(|note| note.split(':').next().unwrap_or_default().trim().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        told("--mode node"),
        ["sidecar of s2", "threads of s2", "workers of s2", "memory-limits of s1"]
    );
    assert_eq!(
        told("--mode solo"),
        ["sidecar of s2", "threads of s2", "workers of s2", "replicas", "pod_antiaffinity"]
    );
    let all = [
        "sidecar of s2",
        "threads of s2",
        "workers of s2",
        "replicas",
        "pod_antiaffinity",
        "memory-limits of s1",
    ];
    assert_eq!(told("--mode pod"), all);
}

/// A work model is in the ConfigMap as it is, and what pods read with it is an application that can be run.
#[test]
fn work_model_is_served_as_it_is() {
    let rendered = model(MODEL, "--name bench");
    let data = &rendered.object("ConfigMap", "cellmesh")["data"];
    assert_eq!(data["workmodel.json"], MODEL);
    let folder = tempfile::tempdir().expect("a temporary folder");
    for (name, text) in data.as_object().expect("files") {
        std::fs::write(folder.path().join(name), text.as_str().expect("text")).expect("writable");
    }
    let overrides = Overrides { part: Part::Daemon, ..Overrides::default() };
    let app = config::load(&folder.path().join("app.toml"), &overrides).expect("nothing wrong");
    let names: Vec<&str> = app.services.iter().map(|spec| &*spec.setup.service).collect();
    assert_eq!((names, app.entry, app.name.as_str()), (vec!["s0", "s1", "s2"], 0, "bench"));
    assert_eq!((app.listen.to_string().as_str(), app.runtime.drain_delay.as_secs()), ("0.0.0.0:5005", 5));
    assert_eq!(app.node.worker_sockets.len(), 3);
}

/// An app.toml is in the ConfigMap with its own words, and with the addresses that the manifests count on.
#[test]
fn app_toml_keeps_what_the_manifests_do_not_need() {
    let text = "# Ours.\nlisten = \"127.0.0.1:80\"  # here\ndpa = { stall_timeout = \"9s\" }\n\
                [[cell]]\ncomponent = \"../x/hello.wasm\"\nservices = [\"hello\"]\n[runtime]\ndrain_delay = \"1s\"\n";
    let rendered = app(text, "");
    let file = rendered.object("ConfigMap", "cellmesh")["data"]["app.toml"].as_str().expect("a file");
    assert!(file.starts_with("# Ours.\nlisten = \"0.0.0.0:5005\"  # here\n"), "{file}");
    let config = rendered.config();
    assert_eq!(config["cell"][0]["component"].as_str(), Some("/cells/hello.wasm"));
    assert_eq!(config["dpa"]["stall_timeout"].as_str(), Some("9s"));
    assert_eq!(config["dpa"]["worker_socket"][0]["path"].as_str(), Some("/run/cellmesh/hello/dpa.sock"));
    assert_eq!(config["runtime"]["drain_delay"].as_str(), Some("1s"));
    assert_eq!(rendered.pod("Deployment", "cellmesh")["terminationGracePeriodSeconds"], 3 + 30 + 15);
    assert!(rendered.notes[0].contains("pods use the hello.wasm that is in"), "{:?}", rendered.notes);
}

/// A collector is reached by nobody until there is a policy for it, which is told; pods say where their spans come from.
#[test]
fn collector_needs_a_policy() {
    let cell = "[[cell]]\ncomponent = \"/cells/hello.wasm\"\nservices = [\"hello\"]\n";
    let text = format!("{cell}[trace]\nendpoint = \"http://collector.monitoring:4318\"\n");
    for mode in ["solo", "pod", "node"] {
        let rendered = app(&text, &format!("--mode {mode}"));
        let told =
            "trace.endpoint: http://collector.monitoring:4318/v1/traces needs a NetworkPolicy of its own";
        assert!(rendered.notes.iter().any(|note| note.starts_with(told)), "{:?}", rendered.notes);
    }
    let silent = app(cell, "--mode solo");
    assert!(!silent.notes.iter().any(|note| note.contains("trace.endpoint")), "{:?}", silent.notes);
    let pod = silent.pod("Deployment", "cellmesh");
    let env = pod["containers"][0]["env"].as_array().expect("variables");
    assert_eq!(env[0]["valueFrom"]["fieldRef"]["fieldPath"], "metadata.name");
    let list = env[3]["value"].as_str().expect("text");
    assert!(list.starts_with("k8s.pod.name=$(K8S_POD_NAME),"), "{list}");
}

/// `[service.NAME.deploy]` says what muBench's keys say, also over a work model that the file names.
#[test]
fn app_toml_asks_for_the_same() {
    let cell = "[[cell]]\ncomponent = \"/cells/hello.wasm\"\nservices = [\"hello\", \"hi\"]\n";
    let deploy = "[service.hi.deploy]\nreplicas = 7\ncpu_requests = \"2\"\nmemory_limits = \"1Gi\"\npod_antiaffinity = true\n";
    let rendered = app(&format!("{cell}{deploy}"), "--mode node");
    assert_eq!(rendered.object("Deployment", "worker-hi")["spec"]["replicas"], 7);
    assert_eq!(rendered.object("Deployment", "worker-hello")["spec"]["replicas"], 2);
    assert_eq!(rendered.resources("worker-hi", "worker"), ["2", "64Mi", "2", "1Gi"]);
    assert!(rendered.pod("Deployment", "worker-hi")["affinity"].is_object());
}

/// The command line names what objects are called, where they are, and what they run.
#[test]
fn options_are_in_every_object() {
    let rendered =
        model(r#"{"s0": {}}"#, "--mode node --name n --namespace m --image r.example.com:5000/c@sha256:0a");
    for object in &rendered.objects {
        let meta = &object["metadata"];
        assert_eq!(meta["labels"]["app.kubernetes.io/instance"], "n", "{object}");
        let is_cluster_wide = object["kind"] == "Namespace" || object["kind"] == "PersistentVolume";
        assert!(is_cluster_wide || meta["namespace"] == "m" || meta["namespace"] == "m-system", "{object}");
    }
    for (kind, name) in [("Deployment", "worker-s0"), ("DaemonSet", "cellmesh-node")] {
        assert_eq!(rendered.pod(kind, name)["containers"][0]["image"], "r.example.com:5000/c@sha256:0a");
    }
    let named = model(r#"{"s0": {"namespace": "mub"}, "s1": {"namespace": "mub"}}"#, "--mode solo");
    assert_eq!(named.object("Deployment", "cellmesh")["metadata"]["namespace"], "mub");
}

/// A name of a port has 15 letters at most, and each of a pod its own.
#[test]
fn ports_have_names_that_kubernetes_takes() {
    let rendered = model(r#"{"s0": {}, "recommendation": {}, "dpa": {}, "a--b": {}}"#, "");
    let ports = rendered.object("Service", "cellmesh-metrics")["spec"]["ports"].as_array().expect("ports");
    let names: Vec<&str> = ports.iter().filter_map(|port| port["name"].as_str()).collect();
    assert_eq!(names, ["admin", "admin-dpa", "admin-s0", "admin-5009", "admin-5010", "admin-5011"]);
}

/// Text that YAML would take for something else stays text, and each document is an object.
#[test]
fn yaml_keeps_text_text() {
    let yaml = model(r#"{"s0": {"cpu-limits": 2}, "on": {}, "null": {}, "e1": {}}"#, "").yaml();
    for part in [
        "cpu: \"2\"\n",
        "name: \"on\"\n",
        "name: \"null\"\n",
        "name: e1\n",
        "version: \"0.1.0\"\n",
        "workmodel.json: ",
    ] {
        assert!(yaml.contains(part), "{part:?} is not in {yaml}");
    }
    assert!(!yaml.contains("name: on\n") && !yaml.contains("name: null\n"), "{yaml}");
}

/// Every key that does not fit is told with its service; nothing is rendered.
#[test]
fn keys_that_do_not_fit_are_refused() {
    let problems = render_file(
        "w.json",
        r#"{"s0": {"replicas": 0, "cpu-requests": "2", "cpu-limits": "100m", "memory-requests": "64MB", "pod_antiaffinity": 1}}"#,
        "",
    )
    .expect_err("full of mistakes");
    let expected = [
        "FILE: s0.replicas: 0 does not fit; write a whole number from 1 to 10000",
        "FILE: s0.cpu-limits: 100m is less than what is requested, 2; raise it, or request less",
        "FILE: s0.memory-requests: \"64MB\" does not fit; write bytes as Kubernetes does, such as \"64Mi\" or \"1Gi\"",
        "FILE: s0.pod_antiaffinity: 1 does not fit; write true or false",
    ];
    assert_eq!(problems, expected);
    let cell = "[[cell]]\ncomponent = \"/cells/hello.wasm\"\nservices = [\"hello\"]\n";
    let wrong =
        "[service.hello.deploy]\nmemory_requests = \"1Gi\"\nmemory_limits = \"1000Mi\"\ncpu-limits = \"1\"\n";
    let problems = render_file("app.toml", &format!("{cell}{wrong}"), "").expect_err("mistakes");
    let expected = [
        "FILE:6: service.hello.deploy.memory_limits: 1000Mi is less than what is requested, 1Gi; raise it, or request less",
        "FILE:7: service.hello.deploy.cpu-limits: unknown key; did you mean cpu_limits?",
    ];
    assert_eq!(problems, expected);
}

/// Names that Kubernetes does not take, and a namespace that is others' too.
#[test]
fn names_that_cannot_be_are_refused() {
    #[track_caller]
    fn check(text: &str, options: &str, parts: &[&str]) {
        let problems = render_file("w.json", text, options).expect_err("a name that cannot be");
        assert_eq!(problems.len(), parts.len(), "{problems:#?}");
        for (problem, part) in problems.iter().zip(parts) {
            assert!(problem.contains(part), "{part:?} is not in {problem:?}");
        }
    }
    let long = format!("{{\"{}\": {{}}}}", "s".repeat(57));
    check(
        r#"{"s_0": {}, "0s": {}, "Shop": {}}"#,
        "",
        &["service \"s_0\"", "service \"0s\"", "service \"Shop\""],
    );
    check(r#"{"cellmesh": {}}"#, "", &["service \"cellmesh\" has the name"]);
    check(&long, "", &["at most 56 letters"]);
    model(&long, "--mode solo");
    check(r#"{"s0": {}}"#, "--name My_shop", &["\"My_shop\" is no DNS label"]);
    check(
        r#"{"s0": {}}"#,
        "--namespace kube-system",
        &["namespace \"kube-system\" is not the application's own"],
    );
    check(r#"{"s0": {}}"#, "--namespace -", &["namespace \"-\" is no DNS label"]);
    check(r#"{"s0": {}}"#, "--image a;b", &["\"a;b\" is no name of an image"]);
}

/// A pod of many services is told of, with what would suit them.
#[test]
fn crowded_pods_are_told_of() {
    let services = |count: usize| {
        let services: Vec<_> = (0..count).map(|n| format!("\"s{n}\": {{}}")).collect();
        format!("{{{}}}", services.join(","))
    };
    let said = |text: &str, options: &str| {
        model(text, options).notes.iter().any(|note| note.contains("51 containers in each pod; --mode node"))
    };
    assert!(said(&services(51), "") && !said(&services(50), ""));
    assert!(!said(&services(51), "--mode node") && !said(&services(51), "--mode solo"));
}

/// Pods have the image and the ConfigMap: a file of this machine is refused, or what has to be done is told.
#[test]
fn files_that_pods_do_not_have_are_refused() {
    let cell = "[[cell]]\ncomponent = \"greeter.wasm\"\nservices = [\"greeter\"]\n";
    let problems = render_file("app.toml", cell, "").expect_err("the release has no such cell");
    assert!(problems[0].contains("greeter.wasm is no cell of cellmesh:"), "{problems:?}");
    assert!(
        problems[0].contains("COPY greeter.wasm /cells/") && problems[0].contains("--image"),
        "{problems:?}"
    );
    let notes = app(cell, "--image r/shop:1").notes;
    assert!(notes[0].contains("r/shop:1 has to have it as /cells/greeter.wasm"), "{notes:?}");
    let cell_there = cell.replace("greeter.wasm", "/opt/greeter.wasm");
    let problems = render_file("app.toml", &cell_there, "").expect_err("the release has no such cell");
    assert!(problems[0].contains("COPY greeter.wasm /opt/greeter.wasm: an absolute"), "{problems:?}");
    let notes = app(&cell_there, "--image r/shop:1").notes;
    assert!(notes[0].contains("r/shop:1 has to have it as /opt/greeter.wasm"), "{notes:?}");
    let files = "[dpu.tls]\nlisten = \"0.0.0.0:5443\"\ncertificate = \"a\"\nkey = \"b\"\n[service.greeter]\njwt = { jwks = \"keys.json\" }\n";
    let problems = render_file("app.toml", &format!("{cell}{files}"), "--image r/shop:1").expect_err("files");
    let expected =
        ["dpu.tls: has no place", "service.greeter.jwt.jwks: \"keys.json\" is a path of this machine"];
    for (problem, part) in problems.iter().zip(expected) {
        assert!(problem.contains(part), "{part:?} is not in {problem:?}");
    }
    assert_eq!(problems.len(), 2, "{problems:#?}");
}
