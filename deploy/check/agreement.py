#!/usr/bin/env python3
"""Holds what `cellmesh k8s` renders of the example against the overlay of the same mode: one cannot change without the other.

    agreement.py OVERLAY.yaml RENDERED.yaml

What they differ in on purpose is in `EXPECTED`, and nowhere else.
"""

import sys

import yaml

# Kinds that only an overlay has: how to scale is for whoever knows the load, and has no key.
ONLY_IN_OVERLAY = {"HorizontalPodAutoscaler"}
EXPECTED = {
    "/metadata/labels/app.kubernetes.io/managed-by",
    "/spec/template/metadata/labels/app.kubernetes.io/managed-by",
    "/metadata/labels/app.kubernetes.io/version",  # of objects whose overlay is without it
    "/spec/replicas",                              # there the HorizontalPodAutoscaler's
}


def by_name(file):
    objects = {}
    with open(file) as text:
        for m in filter(None, yaml.safe_load_all(text)):
            meta = m["metadata"]
            objects[m["kind"], meta.get("namespace"), meta["name"]] = m
    return {key: m for key, m in objects.items() if key[0] not in ONLY_IN_OVERLAY}


def differences(path, one, other):
    """Yields the places where two values differ. The order of lists counts: containers start in it."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in sorted(one.keys() | other.keys()):
            yield from differences(f"{path}/{key}", one.get(key), other.get(key))
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for index, pair in enumerate(zip(one, other)):
            yield from differences(f"{path}/{index}", *pair)
    elif one != other:
        yield path, one, other


def main(overlay, rendered):
    overlay, rendered = by_name(overlay), by_name(rendered)
    problems = [f"{key}: only in the {where}" for keys, where in
                ((overlay.keys() - rendered.keys(), "overlay"), (rendered.keys() - overlay.keys(), "rendered manifests"))
                for key in sorted(keys, key=str)]
    for key in overlay.keys() & rendered.keys():
        problems += [f"{key}{path}: {one!r} in the overlay, {other!r} rendered"
                     for path, one, other in differences("", overlay[key], rendered[key]) if path not in EXPECTED]
    print("\n".join(problems) or f"{len(rendered)} objects rendered as in the overlay")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
