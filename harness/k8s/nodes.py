"""What the nodes of a cluster are, against what was declared of them."""

from __future__ import annotations

import re
from typing import Any

from harness.k8s.client import Cluster

Object = dict[str, Any]
_GPU = ("nvidia.com/gpu.present", "feature.node.kubernetes.io/pci-10de.present")
#: osImage of a node -> the operator's word for it; of Red Hat's and alike the major version alone.
_SYSTEMS = (
    (re.compile(r"Ubuntu (\d+\.\d+)"), "ubuntu"),
    (re.compile(r"Debian GNU/Linux (\d+)"), "debian"),
    (re.compile(r"Amazon Linux (\d+)"), "amzn"),
    (re.compile(r"Red Hat Enterprise Linux (?:CoreOS )?(\d+)"), "rhel"),
    (re.compile(r"Rocky Linux (\d+)"), "rocky"),
)
#: A kubelet may be so many minors older than its API server (version skew policy, since 1.28).
_SKEW = 3


def compare(cluster: Cluster, os: str) -> tuple[list[str], list[str]]:
    """(what is wrong, what is open) of the nodes; ``os`` is what was declared, or empty.

    A node that is known to have a card and has another system is wrong: no driver image would be
    found for it. Of one that may have none it is open.
    """
    wrong: list[str] = []
    unsure: list[str] = []
    server = cluster.version()
    for node in cluster.list("v1", "Node"):
        info, name = node.get("status", {}).get("nodeInfo", {}), node["metadata"]["name"]
        labels = node["metadata"].get("labels") or {}
        found = _system(str(info.get("osImage", "")))
        if os and found and found != _major(os):
            words = f"node {name} runs {info['osImage']}; [nodes] os is {os}"
            (wrong if any(labels.get(key) == "true" for key in _GPU) else unsure).append(words)
        kubelet = re.match(r"v(\d+)\.(\d+)", str(info.get("kubeletVersion", "")))
        if kubelet and server[1] - int(kubelet[2]) > _SKEW:
            words = f"node {name}: kubelet {kubelet[0]} is more than {_SKEW} minors behind"
            wrong.append(f"{words} the API server's {server[0]}.{server[1]}")
    return wrong, unsure


def _system(image: str) -> str:
    for pattern, name in _SYSTEMS:
        if match := pattern.search(image):
            return name + match[1]
    return ""


def _major(os: str) -> str:
    return os if os.startswith("ubuntu") else os.partition(".")[0]
