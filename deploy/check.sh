#!/usr/bin/env bash
# Checks what is in deploy/, from its text to running pods. Each part names the tools that it needs.
#
#   deploy/check.sh manifests               kubectl or kustomize, Python with check/requirements.txt; checkov if there is one
#   deploy/check.sh rules                   promtool, Python
#   deploy/check.sh queries PROGRAM CELLS   prometheus, promtool, Python: cellmesh, and the folder with its cells
#   deploy/check.sh pods [OVERLAY...]       root, podman with the image in its storage, nsenter, Python
#
# PYTHON and CHECKOV name other programs than python3 and checkov. NODE_FOLDER is one where npm has installed
# @kubernetes-models/prometheus-operator: the operator's kinds are checked too then.
set -euo pipefail
cd "$(dirname "$0")"

PYTHON=${PYTHON:-python3}
CHECKOV=${CHECKOV:-checkov}
# The oldest one with sidecar containers switched on, one in the middle, and the newest one that there are schemas for.
KUBERNETES_VERSIONS=(1.29 1.33 1.37)
OVERLAYS=(solo pod node)

build() {
    if command -v kubectl >/dev/null; then kubectl kustomize "$1"; else kustomize build "$1"; fi
}

# The schemas of Kubernetes know nothing of the operator's kinds.
without_custom() {
    "$PYTHON" -c 'import sys, yaml
print(yaml.safe_dump_all(m for m in yaml.safe_load_all(sys.stdin) if "monitoring.coreos.com" not in m["apiVersion"]))'
}

only_custom() {
    "$PYTHON" -c 'import json, sys, yaml
print(json.dumps([m for m in yaml.safe_load_all(sys.stdin) if "monitoring.coreos.com" in m["apiVersion"]]))'
}

check_manifests() {
    local overlay version
    local check=$PWD/check
    out=$(mktemp -d)
    trap 'rm -rf "$out"' EXIT
    "$PYTHON" check/restricted.py --self-test
    for overlay in "${OVERLAYS[@]}"; do
        echo "== $overlay"
        build "kustomize/overlays/$overlay" >"$out/$overlay.yaml"
        "$PYTHON" check/restricted.py <"$out/$overlay.yaml"
        "$PYTHON" check/consistency.py <"$out/$overlay.yaml"
    done
    echo "== monitoring"
    build kustomize/monitoring >"$out/monitoring.yaml"
    without_custom <"$out/monitoring.yaml" >"$out/dashboard.yaml"
    for version in "${KUBERNETES_VERSIONS[@]}"; do
        for overlay in "${OVERLAYS[@]}" dashboard; do
            # Strict: unknown keys are errors. What it only warns of (a kind that this version does not have) is one too.
            if ! "$PYTHON" -m kubernetes_validate --strict -k "$version" "$out/$overlay.yaml" >"$out/said" 2>&1 ||
                grep -q WARN "$out/said"; then
                cat "$out/said"
                return 1
            fi
        done
        echo "kubernetes-validate --strict: valid for Kubernetes $version"
    done
    if [[ -n ${NODE_FOLDER:-} ]]; then
        only_custom <"$out/monitoring.yaml" >"$out/operator.json"
        (cd "$NODE_FOLDER" && node "$check/operator.mjs" "$out/operator.json")
    else
        echo "NODE_FOLDER is not set: the kinds of the Prometheus operator are left out"
    fi
    if command -v "$CHECKOV" >/dev/null; then
        for overlay in "${OVERLAYS[@]}"; do
            "$CHECKOV" --config-file check/checkov.yaml --file "$out/$overlay.yaml"
        done
    else
        echo "checkov is not installed: left out"
    fi
}

check_rules() {
    out=$(mktemp -d)
    trap 'rm -rf "$out"' EXIT
    "$PYTHON" -c 'import sys, yaml; print(yaml.safe_dump(yaml.safe_load(sys.stdin)["spec"]))' \
        <kustomize/monitoring/alerts.yaml >"$out/alerts.rules.yaml"
    cp check/alerts_test.yaml "$out/"
    promtool check rules "$out/alerts.rules.yaml"
    promtool test rules "$out/alerts_test.yaml"
}

check_pods() {
    local overlay
    for overlay in "${@:-${OVERLAYS[@]}}"; do
        echo "== $overlay"
        build "kustomize/overlays/$overlay" | "$PYTHON" check/pods.py
    done
}

case ${1:-} in
    manifests) check_manifests ;;
    rules) check_rules ;;
    queries) "$PYTHON" check/queries.py "${@:2}" ;;
    pods) check_pods "${@:2}" ;;
    *)
        sed -n '2,/^set/p' "$0" | sed '$d; s/^# \{0,1\}//'
        exit 2
        ;;
esac
