"""``airlock k8s check`` on a real API: a good cluster passes, and sabotaged ones are told from it.

The nodes, the operator's pods and DaemonSets are objects whose states we say ourselves: there is no
kubelet and no operator here, and what they would do is not what is proved.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from fixtures.kubereal import KubeServer
from harness import cli
from tests.unit.conformance import cluster
from tests.unit.conformance.test_cluster_tree import SABOTAGES, a_node, assert_found, ends
from tests.unit.k8s.test_rollout import DECLARATION

#: Told by the verb itself, as an operator would see them; all of them by the checks.
TOLD = (
    *("slicing-key-misplaced", "image-from-elsewhere", "pull-secret-forgotten"),
    *("node-unsliced", "hook-left"),
)
_SPACE = f"namespaces/{cluster.NAMESPACE}"
_JOBS = f"/apis/batch/v1/{_SPACE}/jobs"
#: Without a kubelet pods that are bound do not end by themselves.
_PODS = f"/api/v1/{_SPACE}/pods?gracePeriodSeconds=0"
_POLICIES = "/apis/nvidia.com/v1/clusterpolicies"


@pytest.fixture(scope="module")
def prepared(server: KubeServer) -> Iterator[KubeServer]:
    cluster.good(server)
    yield server
    for name in cluster.NODES:
        server.ask("DELETE", f"/api/v1/nodes/{name}")
    for path in (
        _PODS,
        f"/api/v1/{_SPACE}",
        "/apis/node.k8s.io/v1/runtimeclasses/nvidia",
        "/api/v1/namespaces/kube-system/configmaps/coredns",
        "/api/v1/namespaces/kube-system/pods/coredns-1?gracePeriodSeconds=0",
        "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/clusterpolicies.nvidia.com",
    ):
        server.ask("DELETE", path)
    server.until_gone(f"/api/v1/{_SPACE}")


@pytest.fixture
def good(prepared: KubeServer) -> KubeServer:
    """All is well, whatever the test before did."""
    prepared.ask("DELETE", f"{_JOBS}?propagationPolicy=Background")
    for path in (_PODS, _POLICIES, f"/api/v1/{_SPACE}/secrets?labelSelector=owner%3Dhelm"):
        prepared.ask("DELETE", path)
    cluster.good(prepared)
    return prepared


@pytest.fixture
def words(good: KubeServer, kubeconfig: Path, tmp_path: Path) -> list[str]:
    del good
    file = tmp_path / "cluster.toml"
    file.write_text(DECLARATION)
    return ["k8s", "check", str(file), "--kubeconfig", str(kubeconfig), "--out", str(tmp_path)]


def told(out: Path) -> dict[str, str]:
    report = json.loads((out / "latest/report.json").read_text())
    return {check["id"]: check["outcome"] for check in report["cells"][0]["checks"]}


def test_a_good_cluster_passes(words: list[str], tmp_path: Path) -> None:
    code = cli.main(words)
    found = told(tmp_path)
    assert {name: end for name, end in found.items() if end != "pass"} == {}
    assert (code, len(found)) == (0, 23)


@pytest.mark.parametrize("name", TOLD)
def test_a_sabotaged_cluster_is_told(
    good: KubeServer, words: list[str], tmp_path: Path, name: str
) -> None:
    sabotage = SABOTAGES[name]
    done = cluster.Shell(good, tmp_path).run(sabotage.apply)
    assert done.code == 0, done.err
    assert cli.main(words) == 1
    failed = {name for name, end in told(tmp_path).items() if end == "fail"}
    assert {*sabotage.kills} <= failed


@pytest.mark.parametrize("name", sorted(SABOTAGES))
def test_every_sabotage_can_be_done_and_is_found(
    good: KubeServer, tmp_path: Path, name: str
) -> None:
    done = cluster.Shell(good, tmp_path).run(SABOTAGES[name].apply)
    assert done.code == 0, done.err
    assert_found(SABOTAGES[name], ends(a_node(good, tmp_path)))
