"""What a cluster says of a release when something went wrong: events, pods and their logs."""

from __future__ import annotations

import json
from pathlib import Path

from harness.k8s.client import Cluster, Object
from harness.k8s.errors import ClusterError, NotAllowed

#: Pods whose logs are taken, and lines of each.
_PODS, _LINES = 40, 500
EVENTS, PODS, MISSING = "events.json", "pods.json", "missing.json"


def collect(cluster: Cluster, namespace: str, into: Path) -> list[str]:
    """Write events, pods and logs of a namespace below ``into``; returns the files' names.

    What cannot be had is named in ``missing.json``; nothing is raised for it.
    """
    into.mkdir(parents=True, exist_ok=True)
    missing: dict[str, str] = {}
    written = []
    pods: list[Object] = []
    for name, kind in ((EVENTS, "Event"), (PODS, "Pod")):
        try:
            found = cluster.list("v1", kind, namespace)
        except (ClusterError, NotAllowed) as error:
            missing[name] = error.message
            continue
        pods = found if kind == "Pod" else pods
        (into / name).write_text(json.dumps(found, indent=1, sort_keys=True))
        written.append(name)
    for pod in sorted(pods, key=_healthy)[:_PODS]:
        spec, name = pod.get("spec", {}), pod["metadata"]["name"]
        for container in [*spec.get("initContainers", []), *spec.get("containers", [])]:
            file = f"logs/{name}.{container['name']}.log"
            try:
                text = cluster.log(name, namespace, container=container["name"], lines=_LINES)
            except (ClusterError, NotAllowed) as error:
                missing[file] = error.message
                continue
            (into / "logs").mkdir(exist_ok=True)
            (into / file).write_text(text)
            written.append(file)
    if missing:
        (into / MISSING).write_text(json.dumps(missing, indent=1, sort_keys=True))
        written.append(MISSING)
    return written


def _healthy(pod: Object) -> tuple[bool, str]:
    """Those that are not well first."""
    states = pod.get("status", {}).get("containerStatuses") or []
    return bool(states) and all(one.get("ready") for one in states), pod["metadata"]["name"]
