"""Time-slicing on a cluster that runs: labels of nodes, and plugins that read the configuration.

The operator does not watch the ConfigMap, so what was started before its last change is started
anew. Both steps look at what is there, and so can be repeated and go on where they were cut off.
"""

from __future__ import annotations

import datetime as dt
from typing import Any

from harness.k8s.client import Cluster
from harness.k8s.collect import collect
from harness.k8s.slicing import NODE_LABEL, Slicing

#: The operator's name for the device plugin, and for what labels nodes by the same configuration.
READERS = ("nvidia-device-plugin-daemonset", "gpu-feature-discovery")


def roll_out(cluster: Cluster, namespace: str, slicing: Slicing) -> list[str]:
    """Label nodes, restart what is older than its configuration; one line for each thing done."""
    known = collect(cluster, namespace, ("nodes", "config_maps", "pods"))["cluster"]
    done = []
    for name, node in (known["nodes"] or {}).items():
        labels = slicing.node_labels(node["labels"])
        if not labels.items() <= node["labels"].items():
            cluster.apply(_node(name, labels), force=True)
            done.append(f"node {name}: {NODE_LABEL}={labels[NODE_LABEL]}")
    changed = (known["config_maps"] or {}).get(slicing.name, {}).get("changed", "")
    for app in READERS:
        pods = [pod for pod in known["pods"] or [] if pod["app"] == app]
        if any(str(pod["started"]) < changed for pod in pods):
            cluster.apply(_restarted(app, namespace), force=True)
            done.append(f"daemonset {app}: restarted, it was older than {slicing.name}")
    return done


def take_back(cluster: Cluster) -> list[str]:
    """Remove the labels that we put on nodes; those that others put stay."""
    done = []
    for node in cluster.list("v1", "Node", labels=NODE_LABEL):
        name = node["metadata"]["name"]
        after = cluster.apply(_node(name, {}), force=True)
        if NODE_LABEL not in (after["metadata"].get("labels") or {}):
            done.append(f"node {name}: {NODE_LABEL} removed")
    return done


def _node(name: str, labels: dict[str, str]) -> dict[str, Any]:
    # Fields of ours that are not named any more are removed.
    meta = {"name": name} | ({"labels": labels} if labels else {})
    return {"apiVersion": "v1", "kind": "Node", "metadata": meta}


def _restarted(name: str, namespace: str) -> dict[str, Any]:
    """As ``kubectl rollout restart`` does it."""
    now = dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    meta = {"annotations": {"kubectl.kubernetes.io/restartedAt": now}}
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"template": {"metadata": meta}},
    }
