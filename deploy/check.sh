#!/usr/bin/env bash
# Checks what is in deploy/, from its text to running pods. Each part names the tools that it needs.
#
#   deploy/check.sh manifests [PROGRAM]     kubectl or kustomize, Python with check/requirements.txt; checkov if there is one.
#                                           With cellmesh as PROGRAM also what it renders
#   deploy/check.sh written PROGRAM         Python with check/requirements.txt: of the above what it renders alone. CI does this
#   deploy/check.sh rules                   promtool, Python
#   deploy/check.sh queries PROGRAM CELLS   prometheus, promtool, Python: cellmesh, and the folder with its cells
#   deploy/check.sh pods [OVERLAY...]       root, podman with the image in its storage, nsenter, Python with check/requirements.txt
#   deploy/check.sh rendered PROGRAM [MODE...]   the same, for the pods that cellmesh renders
#   deploy/check.sh pressure PROGRAM [MODE...]   the same tools: more load than memory, in the placements pod and node
#
# PYTHON and CHECKOV name other programs than python3 and checkov. PODS_OPTIONS is for check/pods.py: "--kills 40 --rollouts 20", for
# example. NODE_FOLDER is one where npm has installed
# @kubernetes-models/prometheus-operator: the operator's kinds are checked too then.
set -euo pipefail
FROM=$PWD
cd "$(dirname "$0")"

PYTHON=${PYTHON:-python3}
CHECKOV=${CHECKOV:-checkov}
# The oldest one with sidecar containers switched on, one in the middle, and the newest one that there are schemas for.
KUBERNETES_VERSIONS=(1.29 1.33 1.37)
OVERLAYS=(solo pod node)
# Those where a worker has a container of its own.
APART=(pod node)

# A path as whoever called means it.
absolute() {
    (cd "$FROM" && realpath "$1")
}

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

# What `cellmesh k8s` makes of the example: the same as the overlays; and of a work model.
render() {
    local mode file
    for mode in "${OVERLAYS[@]}"; do
        "$1" k8s kustomize/base/app.toml --mode "$mode" >"$out/rendered-$mode.yaml"
        if [[ -f $out/$mode.yaml ]]; then
            "$PYTHON" check/agreement.py "$out/$mode.yaml" "$out/rendered-$mode.yaml"
        fi
        "$1" k8s ../examples/chain.json --mode "$mode" >"$out/rendered-chain-$mode.yaml"
        for file in "rendered-$mode" "rendered-chain-$mode"; do
            "$PYTHON" check/restricted.py <"$out/$file.yaml"
            "$PYTHON" check/consistency.py <"$out/$file.yaml"
            files+=("$file")
        done
    done
}

# Of what is in `files`.
validate() {
    local version file
    for version in "${KUBERNETES_VERSIONS[@]}"; do
        for file in "${files[@]}"; do
            # Strict: unknown keys are errors. What it only warns of (a kind that this version does not have) is one too.
            if ! "$PYTHON" -m kubernetes_validate --strict -k "$version" "$out/$file.yaml" >"$out/said" 2>&1 ||
                grep -q WARN "$out/said"; then
                cat "$out/said"
                return 1
            fi
        done
        echo "kubernetes-validate --strict: valid for Kubernetes $version"
    done
}

check_written() {
    local files=()
    out=$(mktemp -d)
    trap 'rm -rf "$out"' EXIT
    "$PYTHON" check/restricted.py --self-test
    render "$1"
    validate
}

check_manifests() {
    local overlay file
    local check=$PWD/check
    local files=("${OVERLAYS[@]}")
    out=$(mktemp -d)
    trap 'rm -rf "$out"' EXIT
    "$PYTHON" check/restricted.py --self-test
    for overlay in "${OVERLAYS[@]}"; do
        echo "== $overlay"
        build "kustomize/overlays/$overlay" >"$out/$overlay.yaml"
        "$PYTHON" check/restricted.py <"$out/$overlay.yaml"
        "$PYTHON" check/consistency.py <"$out/$overlay.yaml"
    done
    if [[ -n ${1:-} ]]; then
        echo "== rendered"
        render "$1"
    else
        echo "no PROGRAM: what it renders is left out"
    fi
    echo "== monitoring"
    build kustomize/monitoring >"$out/monitoring.yaml"
    without_custom <"$out/monitoring.yaml" >"$out/dashboard.yaml"
    files+=(dashboard)
    validate
    unset 'files[-1]'
    if [[ -n ${NODE_FOLDER:-} ]]; then
        only_custom <"$out/monitoring.yaml" >"$out/operator.json"
        (cd "$NODE_FOLDER" && node "$check/operator.mjs" "$out/operator.json")
    else
        echo "NODE_FOLDER is not set: the kinds of the Prometheus operator are left out"
    fi
    if command -v "$CHECKOV" >/dev/null; then
        for file in "${files[@]}"; do
            "$CHECKOV" --config-file check/checkov.yaml --file "$out/$file.yaml"
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
        build "kustomize/overlays/$overlay" | "$PYTHON" check/pods.py --name "$overlay" ${PODS_OPTIONS:-}
    done
}

check_rendered() {
    local mode program
    program=$(absolute "$1")
    shift
    for mode in "${@:-${OVERLAYS[@]}}"; do
        echo "== rendered, $mode"
        "$program" k8s kustomize/base/app.toml --mode "$mode" | "$PYTHON" check/pods.py --name "$mode, rendered" ${PODS_OPTIONS:-}
    done
}

check_pressure() {
    local mode program
    program=$(absolute "$1")
    shift
    for mode in "${@:-${APART[@]}}"; do
        echo "== pressure, $mode"
        "$program" k8s check/pressure.json --mode "$mode" | "$PYTHON" check/pressure.py
    done
}

case ${1:-} in
    manifests) check_manifests "${2:+$(absolute "$2")}" ;;
    written) check_written "$(absolute "$2")" ;;
    rules) check_rules ;;
    queries) "$PYTHON" check/queries.py "$(absolute "$2")" "$(absolute "$3")" ;;
    pods) check_pods "${@:2}" ;;
    rendered) check_rendered "${@:2}" ;;
    pressure) check_pressure "${@:2}" ;;
    *)
        sed -n '2,/^set/p' check.sh | sed '$d; s/^# \{0,1\}//'
        exit 2
        ;;
esac
