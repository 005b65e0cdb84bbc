"""Checks Kubernetes manifests: their fields and types, as far as ours use them, and that what they
name exists.

Fields are those of Kubernetes' API reference, v1.37. Quantities, labels and values of settings are
checked elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

Json = dict[str, Any]
QUANTITIES = {"cpu": (str, int), "memory": str, "storage": str, "nvidia.com/gpu": int}
LABELS = {"app": str, "node": str}
SELECTOR = {"matchLabels": LABELS}
PROBE = {
    "httpGet": {"path": str, "port": str}, "tcpSocket": {"port": str}, "periodSeconds": int, "timeoutSeconds": int,
    "failureThreshold": int,
}  # fmt: skip
KEY = {"name": str, "key": str, "optional": bool}
CONTAINER = {
    "name": str, "image": str, "args": [str], "envFrom": [{"configMapRef": {"name": str}, "secretRef": {"name": str}}],
    "env": [{"name": str, "value": str, "valueFrom": {"configMapKeyRef": KEY, "secretKeyRef": KEY}}],
    "ports": [{"name": str, "containerPort": int}], "startupProbe": PROBE, "readinessProbe": PROBE,
    "livenessProbe": PROBE, "resources": {"requests": QUANTITIES, "limits": QUANTITIES},
    "securityContext": {"allowPrivilegeEscalation": bool, "capabilities": {"drop": [str]}},
    "volumeMounts": [{"name": str, "mountPath": str, "readOnly": bool}],
}  # fmt: skip
POD = {
    "automountServiceAccountToken": bool, "enableServiceLinks": bool, "terminationGracePeriodSeconds": int,
    "securityContext": {
        "runAsNonRoot": bool, "runAsUser": int, "runAsGroup": int, "fsGroup": int, "fsGroupChangePolicy": str,
        "seccompProfile": {"type": str},
    },
    "containers": [CONTAINER],
    "volumes": [{"name": str, "persistentVolumeClaim": {"claimName": str, "readOnly": bool},
                 "emptyDir": {"medium": str, "sizeLimit": str}}],
}  # fmt: skip
CLAIM = {"accessModes": [str], "resources": {"requests": QUANTITIES}}
WORKLOAD = {
    "replicas": int,
    "selector": SELECTOR,
    "template": {"metadata": {"labels": LABELS}, "spec": POD},
}
PEERS = [{"from": [{"podSelector": SELECTOR}], "ports": [{"port": str}]}]
SHAPES: dict[str, Json] = {
    "v1/Namespace": {},
    "v1/ConfigMap": {"data": {str: str}},
    "v1/Secret": {"stringData": {str: str}},
    "v1/PersistentVolumeClaim": {"spec": CLAIM},
    "v1/Service": {"spec": {
        "clusterIP": str, "publishNotReadyAddresses": bool, "selector": LABELS,
        "ports": [{"name": str, "port": int, "targetPort": str}],
    }},
    "apps/v1/Deployment": {"spec": {**WORKLOAD, "strategy": {"type": str}}},
    "apps/v1/StatefulSet": {"spec": {
        **WORKLOAD, "serviceName": str, "podManagementPolicy": str,
        "volumeClaimTemplates": [{"metadata": {"name": str}, "spec": CLAIM}],
    }},
    "networking.k8s.io/v1/NetworkPolicy": {"spec": {
        "podSelector": SELECTOR, "policyTypes": [str], "ingress": PEERS,
    }},
}  # fmt: skip
METADATA = {"name": str, "namespace": str, "labels": {str: str}}


def read_manifests(folder: Path) -> list[Json]:
    """Return the objects of all files that a kustomization names, and of the example of a
    secret.
    """
    names = yaml.safe_load((folder / "kustomization.yaml").read_text())["resources"]
    files = [folder / name for name in [*names, "secret.example.yaml"]]
    return [one for file in files for one in yaml.safe_load_all(file.read_text())]


def find_problems(objects: list[Json]) -> list[str]:
    """Return what Kubernetes would refuse, or accept and not find when a pod starts."""
    return list(_shape_problems(objects)) or list(_name_problems(objects))


def named(objects: list[Json], kind: str) -> dict[str, Json]:
    """Return the objects of a kind by their names."""
    return {one["metadata"]["name"]: one for one in objects if one["kind"] == kind}


def workloads(objects: list[Json]) -> dict[str, Json]:
    return named(objects, "StatefulSet") | named(objects, "Deployment")


def _shape_problems(objects: list[Json]) -> Iterator[str]:
    for one in objects:
        shape = SHAPES.get(f"{one['apiVersion']}/{one['kind']}")
        where = f"{one['kind']} {one['metadata']['name']}"
        if shape is None:
            yield f"{where}: unknown kind in {one['apiVersion']}"
        else:
            yield from _misfits(
                one, {"apiVersion": str, "kind": str, "metadata": METADATA, **shape}, where
            )


def _misfits(value: Any, shape: Any, where: str) -> Iterator[str]:
    if isinstance(shape, dict) and isinstance(value, dict):
        for name, inner in value.items():
            if name not in shape and str not in shape:
                yield f"{where}: no field {name}"
            else:
                yield from _misfits(inner, shape.get(name, shape.get(str)), f"{where}.{name}")
    elif isinstance(shape, list) and isinstance(value, list):
        for inner in value:
            yield from _misfits(inner, shape[0], f"{where}[]")
    elif (
        isinstance(shape, dict | list)
        or not isinstance(value, shape)
        or (shape is int and isinstance(value, bool))
    ):
        yield f"{where}: {value!r} has another type"


def _name_problems(objects: list[Json]) -> Iterator[str]:
    for name, workload in workloads(objects).items():
        spec = workload["spec"]
        if spec["selector"]["matchLabels"] != spec["template"]["metadata"]["labels"]:
            yield f"{name}: its selector does not match its pods"
        if workload["kind"] == "StatefulSet" and spec["serviceName"] not in named(
            objects, "Service"
        ):
            yield f"{name}: there is no service {spec['serviceName']}"
        yield from (f"{name}: {problem}" for problem in _pod_problems(objects, spec))
    for name, service in named(objects, "Service").items():
        ports = {one["targetPort"] for one in service["spec"]["ports"]}
        if not any(ports <= found for found in _ports(objects, service["spec"]["selector"])):
            yield f"service {name}: no pod that it selects has the ports {sorted(ports)}"
    for name, policy in named(objects, "NetworkPolicy").items():
        yield from (
            f"policy {name}: {problem}" for problem in _policy_problems(objects, policy["spec"])
        )


def _pod_problems(objects: list[Json], spec: Json) -> Iterator[str]:
    pod = spec["template"]["spec"]
    volumes = {one["name"] for one in pod["volumes"]}
    volumes |= {one["metadata"]["name"] for one in spec.get("volumeClaimTemplates", [])}
    claims = [
        one["persistentVolumeClaim"]["claimName"]
        for one in pod["volumes"]
        if "persistentVolumeClaim" in one
    ]
    yield from (
        f"no claim {one}" for one in claims if one not in named(objects, "PersistentVolumeClaim")
    )
    for container in pod["containers"]:
        mounted = {one["name"] for one in container["volumeMounts"]}
        yield from (
            f"the volume {one} is not mounted, or missing" for one in sorted(mounted ^ volumes)
        )
        ports = {one["name"] for one in container.get("ports", [])}
        probes = (container[one] for one in container if one.endswith("Probe"))
        asked = {
            probe[kind]["port"]
            for probe in probes
            for kind in ("httpGet", "tcpSocket")
            if kind in probe
        }
        yield from (f"a probe asks port {port}" for port in sorted(asked - ports))
        for key in _keys(container):
            if key not in _known_keys(objects):
                yield f"no key {key}"


def _keys(container: Json) -> Iterator[tuple[str, ...]]:
    for one in container.get("envFrom", []):
        yield from ((kind, ref["name"]) for kind, ref in one.items())
    for one in container.get("env", []):
        yield from (
            (kind, ref["name"], ref["key"]) for kind, ref in one.get("valueFrom", {}).items()
        )


def _known_keys(objects: list[Json]) -> set[tuple[str, ...]]:
    known: set[tuple[str, ...]] = set()
    for kind, ref, content in (
        ("ConfigMap", "configMap", "data"),
        ("Secret", "secret", "stringData"),
    ):
        for name, one in named(objects, kind).items():
            known |= {(f"{ref}Ref", name)} | {(f"{ref}KeyRef", name, key) for key in one[content]}
    return known


def _ports(objects: list[Json], labels: Json) -> list[set[str]]:
    """Return the names of the ports of each workload whose pods have these labels."""
    templates = [one["spec"]["template"] for one in workloads(objects).values()]
    chosen = [
        one["spec"] for one in templates if labels.items() <= one["metadata"]["labels"].items()
    ]
    return [
        {port["name"] for it in pod["containers"] for port in it.get("ports", [])} for pod in chosen
    ]


def _policy_problems(objects: list[Json], spec: Json) -> Iterator[str]:
    own = _ports(objects, spec["podSelector"].get("matchLabels", {}))
    if not own:
        yield "it selects no pod"
    for rule in spec.get("ingress", []):
        for peer in rule["from"]:
            if not _ports(objects, peer["podSelector"]["matchLabels"]):
                yield f"no pod has {peer['podSelector']['matchLabels']}"
        yield from (
            f"no port {one['port']}"
            for one in rule.get("ports", [])
            if not any(one["port"] in it for it in own)
        )
