//! `cellmesh k8s`: what it writes is YAML with objects that a namespace with the Pod Security level `restricted` takes, and what
//! pods then read is a file that the program serves. What it refuses, it refuses as a whole.

use std::path::Path;
use std::process::Command;

use cellmesh_tests::{Ended, program};
use serde_json::{Value, json};

fn k8s(folder: &Path, file: &str, options: &[&str]) -> Ended {
    let start = std::time::Instant::now();
    let output = Command::new(program())
        .current_dir(folder)
        .arg("k8s")
        .arg(file)
        .args(options)
        .output()
        .expect("the program is built");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    Ended {
        code: output.status.code(),
        stdout: text(output.stdout),
        stderr: text(output.stderr),
        took: start.elapsed(),
    }
}

fn folder_with(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for (name, text) in files {
        std::fs::write(folder.path().join(name), text).expect("writable");
    }
    folder
}

/// A chain of services with every key of a deployment, one of them with a name that YAML has another meaning for.
fn model() -> String {
    let s0 = json!({
        "external_services": [{ "services": ["s1", "no"] }],
        "replicas": 2, "cpu-requests": "100m", "cpu-limits": 1, "memory-requests": "64Mi", "memory-limits": "0.5Gi",
        "pod_antiaffinity": true, "workers": 4, "threads": 16,
    });
    json!({ "s0": s0, "s1": { "sidecar": "mongo:4.4.9" }, "no": {} }).to_string()
}

fn documents(yaml: &str) -> Vec<Value> {
    serde_saphyr::from_multiple(yaml).expect("YAML")
}

/// Pods that an object makes.
fn pod_of(object: &Value) -> Option<&Value> {
    object.pointer("/spec/template/spec")
}

fn containers_of(pod: &Value) -> impl Iterator<Item = &Value> {
    ["initContainers", "containers"].into_iter().filter_map(|key| pod[key].as_array()).flatten()
}

/// What `restricted` asks of a pod. Source: Kubernetes, "Pod Security Standards".
#[track_caller]
fn check_restricted(pod: &Value) {
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
    for key in ["hostNetwork", "hostPID", "hostIPC"] {
        assert!(pod[key].is_null(), "{key}");
    }
    for volume in pod["volumes"].as_array().expect("volumes") {
        let is_allowed = |kind: &&str| !volume[kind].is_null();
        assert!(["configMap", "emptyDir", "persistentVolumeClaim"].iter().any(is_allowed), "{volume}");
    }
    for container in containers_of(pod) {
        let context = &container["securityContext"];
        assert_eq!(context["allowPrivilegeEscalation"], false, "{container}");
        assert_eq!(context["capabilities"], json!({ "drop": ["ALL"] }), "{container}");
        assert_eq!(context["readOnlyRootFilesystem"], true, "{container}");
        let ports = container["ports"].as_array().expect("ports");
        assert!(ports.iter().all(|port| port["hostPort"].is_null()), "{container}");
    }
}

/// Each mode has the workloads that it is made of; all but the daemons of nodes, in a namespace of their own, are restricted.
#[test]
fn every_mode_is_restricted() {
    let folder = folder_with(&[("bench.json", &model())]);
    let modes: [(&str, &[&str]); 3] = [
        ("solo", &["cellmesh: cellmesh"]),
        ("pod", &["cellmesh: dpa worker-s0 worker-s1 worker-no dpu"]),
        ("node", &["cellmesh-node: node", "worker-s0: worker", "worker-s1: worker", "worker-no: worker"]),
    ];
    for (mode, expected) in modes {
        let ended = k8s(folder.path(), "bench.json", &["--mode", mode, "--namespace", "load"]);
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        assert!(ended.stderr.contains("note: sidecar of s1: left out"), "{}", ended.stderr);
        let mut found = Vec::new();
        for object in documents(&ended.stdout) {
            let Some(pod) = pod_of(&object) else { continue };
            let containers: Vec<&str> = containers_of(pod).filter_map(|one| one["name"].as_str()).collect();
            let name = object["metadata"]["name"].as_str().expect("a name");
            found.push(format!("{name}: {}", containers.join(" ")));
            let namespace = if object["kind"] == "DaemonSet" { "load-system" } else { "load" };
            assert_eq!(object["metadata"]["namespace"], namespace);
            if object["kind"] != "DaemonSet" {
                check_restricted(pod);
            }
        }
        assert_eq!(found, expected, "{mode}");
    }
}

/// What a ConfigMap has after its way through YAML is what the program finds nothing wrong with.
#[test]
fn rendered_config_can_be_served() {
    let folder = folder_with(&[("bench.json", &model())]);
    let ended = k8s(folder.path(), "bench.json", &[]);
    let objects = documents(&ended.stdout);
    let config = objects.iter().find(|object| object["kind"] == "ConfigMap").expect("a ConfigMap");
    let files = config["data"].as_object().expect("files");
    let names: Vec<&String> = files.keys().collect();
    assert_eq!(names, ["app.toml", "workmodel.json"]);
    assert_eq!(files["workmodel.json"], model());
    let texts: Vec<(&str, &str)> =
        files.iter().map(|(name, text)| (name.as_str(), text.as_str().expect("text"))).collect();
    let mounted = folder_with(&texts);
    let checked = Command::new(program())
        .arg("check")
        .arg(mounted.path().join("app.toml"))
        .arg("--cells-dir")
        .arg(cellmesh_tests::cells_dir())
        .output()
        .expect("the program is built");
    assert!(checked.status.success(), "{checked:?}");
    assert_eq!(String::from_utf8_lossy(&checked.stdout), "bench: 3 services, nothing wrong\n");
}

/// Exit status 2, nothing on standard output, a line for each problem.
#[test]
fn what_cannot_be_rendered_is_refused() {
    let model = r#"{"s0": {"replicas": -1, "cpu-requests": "2", "cpu-limits": "1500m", "memory-limits": "1GB"}, "S_1": {}}"#;
    let shop = "[[cell]]\ncomponent = \"cart.wasm\"\nservices = [\"cart\"]\n[service.cart.deploy]\ncpu_limits = \"\"\n";
    let folder = folder_with(&[("bench.json", model), ("named.json", "{\"S_1\": {}}"), ("app.toml", shop)]);
    let cases: [(&str, &[&str]); 4] = [
        (
            "bench.json",
            &[
                "bench.json: s0.replicas: -1 ",
                "s0.cpu-limits: 1500m is less than",
                "s0.memory-limits: \"1GB\"",
            ],
        ),
        ("named.json", &["named.json: service \"S_1\" cannot be the name of a Service"]),
        ("app.toml", &["app.toml:5: service.cart.deploy.cpu_limits: \"\" does not fit"]),
        ("none.toml", &["none.toml: cannot be read"]),
    ];
    for (file, problems) in cases {
        let ended = k8s(folder.path(), file, &[]);
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(2), ""), "{}", ended.stderr);
        let lines: Vec<&str> = ended.stderr.lines().collect();
        assert_eq!(lines.len(), problems.len(), "{}", ended.stderr);
        for (line, part) in lines.iter().zip(problems) {
            assert!(line.contains(part), "no {part:?} in {line:?}");
        }
    }
}

/// Who is woken by an alert finds its name, what it means and what to do in the operator's page.
#[test]
fn alerts_are_in_the_operators_page() {
    let page = include_str!("../../docs/kubernetes.md");
    let alerts = include_str!("../../deploy/kustomize/monitoring/alerts.yaml");
    let names: Vec<_> = alerts.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(names.len() > 10, "{names:?}");
    for name in names {
        let named = format!("`{name}`");
        assert!(page.lines().any(|row| row.starts_with("| ") && row.contains(&named)), "no row about {name}");
    }
}
