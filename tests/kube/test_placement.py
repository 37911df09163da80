"""Time-slicing as the scheduler sees it: four slices are four pods, and the fifth waits."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from fixtures.kubereal import KubeServer
from fixtures.kubereal.kubelet import Kubelet
from harness.k8s.client import Cluster
from harness.k8s.slicing import GPU_RESOURCE, Group

_SECONDS = 300.0
_JOBS = "/apis/batch/v1/namespaces/default/jobs"


def until(found: Callable[[], Any]) -> Any:
    end = time.monotonic() + _SECONDS
    while not (seen := found()):
        assert time.monotonic() < end
        time.sleep(0.1)
    return seen


def test_four_of_five_pods_are_placed_and_the_fifth_when_one_ends(
    server: KubeServer, kubelet: Kubelet, cluster: Cluster
) -> None:
    # The node offers what our declaration of four slices makes of one card.
    live = cluster.get("v1", "Node", "gpu-1")
    assert live is not None
    offered = Group("four", {GPU_RESOURCE: 4}).advertised({GPU_RESOURCE: 1})
    assert {GPU_RESOURCE: int(live["status"]["capacity"][GPU_RESOURCE])} == offered
    kubelet.job = lambda _: ""
    container = {"name": "m", "image": "x", "resources": {"limits": {GPU_RESOURCE: 1}}}
    pod = {"containers": [container], "restartPolicy": "Never"}
    spec = {"parallelism": 5, "completions": 5, "template": {"spec": pod}}
    meta = {"name": "share"}
    server.put({"apiVersion": "batch/v1", "kind": "Job", "metadata": meta, "spec": spec})

    def pods() -> list[dict[str, Any]]:
        return cluster.list("v1", "Pod", "default", labels="job-name=share")

    def waiting() -> list[str]:
        return [
            str(condition.get("message"))
            for one in pods()
            for condition in one["status"].get("conditions") or []
            if condition["type"] == "PodScheduled" and condition["status"] == "False"
        ]

    try:
        until(lambda: waiting() and sum("nodeName" in one["spec"] for one in pods()) == 4)
        (why,) = waiting()
        assert f"Insufficient {GPU_RESOURCE}" in why
        kubelet.job = lambda _: "Succeeded"
        until(lambda: server.ask("GET", f"{_JOBS}/share")["status"].get("succeeded") == 5)
    finally:
        server.ask("DELETE", f"{_JOBS}/share?propagationPolicy=Background")
        until(lambda: not pods())
