"""A cluster's facts: what its GPU nodes, its operator and its device plugin say of themselves.

``collect`` gives, with everything that Kubernetes lists in the API's own form but trimmed::

    {"cluster": {
        "version": [major, minor],
        "namespace": the operator's,
        "nodes": {name: {"labels", "capacity", "allocatable", "ready": bool, "kubelet", "os",
                         "kernel", "runtime"}},            # GPU nodes, and those that should be
        "policies": [{"name", "spec": {...}, "state"}],    # ClusterPolicy
        "daemonsets": [{"name", "desired", "ready", "updated", "available"}],
        "pods": [{"name", "app", "node", "phase", "owner", "started", "ready": bool,
                  "waiting": ["container: reason: message"], "images", "secrets"}],
        "config_maps": {name: {"data", "changed"}},        # those that policies name
        "runtime_classes": {name: handler},
        "releases": [{"name", "revision", "status"}],      # Helm's; those of the namespace
        "jobs": [{"name", "hook", "done": bool, "failed": bool, "created"}],
        "images": [{"reference", "registry", "object", "path"}],
        "dns": [{"name", "ready": bool, "waiting", "forward": [...]}],
    }, "unreadable": {"cluster.PART": why}}

A part that the user may not read is null, and ``unreadable`` says why. Values of secrets are never
read: the names of pull secrets are.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Container, Mapping
from typing import Any

from harness.k8s.client import Cluster, Object
from harness.k8s.errors import NotAllowed
from harness.k8s.inventory import inventory

GPU = "nvidia.com/gpu"
#: Labels of nodes with an NVIDIA card: the operator's own, and feature discovery's by PCI vendor.
PRESENT = "nvidia.com/gpu.present"
PCI = "feature.node.kubernetes.io/pci-10de.present"
_FORWARD = re.compile(r"^\s*forward\s+\S+\s+([^\n{]+)", re.MULTILINE)


class _Reader:
    """What several parts are made of is asked for once; a refusal is met each time."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self.cluster = cluster
        self.namespace = namespace

    @functools.cached_property
    def policies(self) -> list[Object]:
        return self.cluster.list("nvidia.com/v1", "ClusterPolicy")

    @functools.cached_property
    def pods(self) -> list[Object]:
        return self.cluster.list("v1", "Pod", self.namespace)

    @functools.cached_property
    def daemonsets(self) -> list[Object]:
        return self.cluster.list("apps/v1", "DaemonSet", self.namespace)


def collect(
    cluster: Cluster, namespace: str = "gpu-operator", wanted: Container[str] | None = None
) -> dict[str, Any]:
    """The facts, or ``wanted`` parts. ClusterError (exit 3) when the cluster stops answering."""
    reader = _Reader(cluster, namespace)
    parts: dict[str, Callable[[], Any]] = {
        "version": lambda: list(cluster.version()),
        "nodes": lambda: _nodes(cluster.list("v1", "Node")),
        "policies": lambda: [_policy(item) for item in reader.policies],
        "daemonsets": lambda: [_daemon(item) for item in reader.daemonsets],
        "pods": lambda: [_pod(item) for item in reader.pods],
        "config_maps": lambda: _maps(reader),
        "runtime_classes": lambda: _classes(cluster.list("node.k8s.io/v1", "RuntimeClass")),
        "releases": lambda: _releases(reader),
        "jobs": lambda: [_job(job) for job in cluster.list("batch/v1", "Job", namespace)],
        "images": lambda: _images(reader),
        "dns": lambda: _dns(cluster),
    }
    found: dict[str, Any] = {"namespace": namespace}
    unreadable: dict[str, str] = {}
    for name, read in parts.items():
        if wanted is not None and name not in wanted:
            continue
        try:
            found[name] = read()
        except NotAllowed as error:
            found[name] = None
            unreadable[f"cluster.{name}"] = error.message
    return {"cluster": found, "unreadable": unreadable}


def _nodes(nodes: list[Object]) -> dict[str, Any]:
    """Those with a card, by label or by what they offer."""
    found = {}
    for node in nodes:
        meta, status = node["metadata"], node.get("status") or {}
        labels = meta.get("labels") or {}
        capacity = status.get("capacity") or {}
        offers = any(name.startswith("nvidia.com/") for name in capacity)
        if not (offers or "true" in (labels.get(PRESENT), labels.get(PCI))):
            continue
        ready = {c["type"]: c["status"] for c in status.get("conditions") or []}
        info = status.get("nodeInfo") or {}
        found[meta["name"]] = {
            "labels": labels,
            "capacity": _cards(capacity),
            "allocatable": _cards(status.get("allocatable") or {}),
            "ready": ready.get("Ready") == "True",
            "kubelet": info.get("kubeletVersion"),
            "os": info.get("osImage"),
            "kernel": info.get("kernelVersion"),
            "runtime": info.get("containerRuntimeVersion"),
        }
    return found


def _cards(resources: Mapping[str, str]) -> dict[str, int]:
    return {k: int(v) for k, v in resources.items() if k.startswith("nvidia.com/")}


def _policy(item: Object) -> dict[str, Any]:
    spec = item.get("spec") or {}
    kept = {key: spec[key] for key in ("devicePlugin", "driver", "toolkit", "mig") if key in spec}
    state = (item.get("status") or {}).get("state")
    return {"name": item["metadata"]["name"], "spec": kept, "state": state}


def _daemon(item: Object) -> dict[str, Any]:
    status = item.get("status") or {}
    return {
        "name": item["metadata"]["name"],
        "desired": status.get("desiredNumberScheduled", 0),
        "ready": status.get("numberReady", 0),
        "updated": status.get("updatedNumberScheduled", 0),
        "available": status.get("numberAvailable", 0),
    }


def _pod(item: Object) -> dict[str, Any]:
    meta, spec, status = item["metadata"], item.get("spec") or {}, item.get("status") or {}
    containers = [*(spec.get("initContainers") or []), *(spec.get("containers") or [])]
    states = [
        *(status.get("initContainerStatuses") or []),
        *(status.get("containerStatuses") or []),
    ]
    waiting = []
    for one in states:
        why = (one.get("state") or {}).get("waiting")
        if why and why.get("reason") not in ("PodInitializing", "ContainerCreating"):
            waiting.append(f"{one['name']}: {why.get('reason')}: {why.get('message', '')[:300]}")
    owners = meta.get("ownerReferences") or []
    ready = {c["type"]: c["status"] for c in status.get("conditions") or []}
    return {
        "name": meta["name"],
        "node": spec.get("nodeName"),
        "phase": status.get("phase"),
        "owner": owners[0]["name"] if owners else None,
        "app": (meta.get("labels") or {}).get("app"),
        "started": status.get("startTime"),
        "waiting": waiting,
        "images": sorted({one["image"] for one in containers}),
        "secrets": sorted(one["name"] for one in spec.get("imagePullSecrets") or []),
        "ready": ready.get("Ready") == "True" or status.get("phase") == "Succeeded",
    }


def _maps(reader: _Reader) -> dict[str, Any]:
    """The ConfigMaps that policies name; one that is not there is not in it."""
    found = {}
    for policy in reader.policies:
        plugin = (policy.get("spec") or {}).get("devicePlugin") or {}
        name = (plugin.get("config") or {}).get("name")
        item = reader.cluster.get("v1", "ConfigMap", name, reader.namespace) if name else None
        if name and item:
            times = [row.get("time", "") for row in item["metadata"].get("managedFields") or []]
            changed = max([*times, item["metadata"].get("creationTimestamp") or ""])
            found[name] = {"data": item.get("data") or {}, "changed": changed}
    return found


def _classes(items: list[Object]) -> dict[str, str]:
    return {item["metadata"]["name"]: item["handler"] for item in items}


def _releases(reader: _Reader) -> list[dict[str, Any]]:
    """From the labels of Helm's secrets; what is in them is not looked at."""
    found = []
    for item in reader.cluster.list("v1", "Secret", reader.namespace, labels="owner=helm"):
        labels = item["metadata"]["labels"]
        row = {key: labels.get(key) for key in ("name", "status")}
        found.append({**row, "revision": int(labels.get("version", 0))})
    return sorted(found, key=lambda row: (str(row["name"]), row["revision"]))


def _job(item: Object) -> dict[str, Any]:
    meta, status = item["metadata"], item.get("status") or {}
    ends = {c["type"]: c["status"] for c in status.get("conditions") or []}
    return {
        "name": meta["name"],
        "hook": (meta.get("annotations") or {}).get("helm.sh/hook"),
        "done": ends.get("Complete") == "True",
        "failed": ends.get("Failed") == "True",
        "created": meta.get("creationTimestamp"),
    }


def _images(reader: _Reader) -> list[dict[str, str]]:
    """Every reference in what runs and in what the operator will make of its policy."""
    deployments = reader.cluster.list("apps/v1", "Deployment", reader.namespace)
    objects = [*reader.policies, *deployments, *reader.daemonsets, *reader.pods]
    return [
        {
            "reference": one.reference.text,
            "registry": one.reference.host,
            "object": one.object,
            "path": one.path,
        }
        for one in inventory(objects)
    ]


def _dns(cluster: Cluster) -> list[dict[str, Any]]:
    """CoreDNS: its pods, and where its configuration forwards to."""
    item = cluster.get("v1", "ConfigMap", "coredns", "kube-system")
    text = ((item or {}).get("data") or {}).get("Corefile", "")
    forward = [word for match in _FORWARD.finditer(text) for word in match[1].split()]
    pods = cluster.list("v1", "Pod", "kube-system", labels="k8s-app=kube-dns")
    return [
        {
            **{k: v for k, v in _pod(pod).items() if k in ("name", "ready", "waiting")},
            "forward": forward,
        }
        for pod in pods
    ]
