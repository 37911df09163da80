"""The checks of clusters: a good one passes, and each sabotage turns red what it names."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from conformance.kubernetes import test_cluster, test_slicing
from fixtures.kubeapi.server import KubeApi
from harness.checks import MARKER
from harness.k8s.client import Cluster
from harness.k8s.collect import collect
from harness.node import CellNames, Node
from harness.sabotage import Sabotage, load_sabotages
from tests.unit.conformance import cluster, trees

ROOT = Path(__file__).parents[3]
SABOTAGES = load_sabotages(ROOT / "conformance", "kubernetes")


def _checks() -> dict[str, Any]:
    found = {}
    for module in (test_cluster, test_slicing):
        for name, function in vars(module).items():
            marks = getattr(function, "pytestmark", [])
            for mark in marks:
                if name.startswith("test_") and mark.name == MARKER:
                    found[mark.args[0].id] = function
    return found


CHECKS = _checks()


@pytest.fixture(scope="module")
def shared() -> Iterator[tuple[KubeApi, Any]]:
    """One API, and what is on it when all is well."""
    with KubeApi() as double:
        cluster.good(double)
        yield double, copy.deepcopy(double.store.objects)


@pytest.fixture
def api(shared: tuple[KubeApi, Any]) -> Iterator[KubeApi]:
    double, objects = shared
    yield double
    double.denied = lambda *_: False
    double.store.objects.clear()
    double.store.objects.update(copy.deepcopy(objects))


def a_node(api: cluster.Api, home: Path, expect: Any = cluster.EXPECT) -> Node:
    with Cluster(api.kubeconfig(home / "config")) as client:
        facts = collect(client, cluster.NAMESPACE)
    names = CellNames(api.version, "as-is", "as-is", "kubernetes")
    return Node("cluster", names, facts, cluster.Shell(api, home), expect)  # type: ignore[arg-type]


def ends(node: Node) -> dict[str, tuple[str, str]]:
    return {name: trees.outcome(check, node) for name, check in CHECKS.items()}


def test_a_good_cluster_passes(api: KubeApi, tmp_path: Path) -> None:
    found = ends(a_node(api, tmp_path))
    assert len(found) == 23
    assert {end for end, _ in found.values()} == {"pass"}, found


@pytest.mark.parametrize("name", sorted(SABOTAGES))
def test_a_sabotage_is_found_and_nothing_else(api: KubeApi, tmp_path: Path, name: str) -> None:
    sabotage = SABOTAGES[name]
    done = cluster.Shell(api, tmp_path).run(sabotage.apply)
    assert done.code == 0, done.out + done.err
    assert_found(sabotage, ends(a_node(api, tmp_path)))


def assert_found(sabotage: Sabotage, found: dict[str, tuple[str, str]]) -> None:
    """What it names failed, and nothing else that does not hang on that."""
    failed = {check: said for check, (end, said) in found.items() if end == "fail"}
    assert {*sabotage.kills} <= set(failed), found
    may = {*sabotage.kills, *sabotage.dependants}
    while more := {c for c, f in CHECKS.items() if may & set(_depends(f))} - may:
        may |= more
    assert set(failed) <= may, failed


def _depends(function: Any) -> tuple[str, ...]:
    found: tuple[str, ...] = (
        next(m for m in function.pytestmark if m.name == MARKER).args[0].depends
    )
    return found


def test_every_check_has_a_sabotage() -> None:
    assert {check for one in SABOTAGES.values() for check in one.kills} == set(CHECKS)


def test_a_cluster_without_slicing_and_without_wishes(api: KubeApi, tmp_path: Path) -> None:
    node = a_node(api, tmp_path, {})
    assert {end for end, _ in ends(node).values()} == {"pass"}
    policy = "apis/nvidia.com/v1/clusterpolicies/cluster-policy"
    node.transport.run(f'patch {policy} \'{{"spec": {{"devicePlugin": null}}}}\'')
    found = ends(a_node(api, tmp_path, {}))
    assert {found[name][0] for name in found if "slicing" in name} == {"skip"}


def test_what_the_user_may_not_read_is_not_verified(api: KubeApi, tmp_path: Path) -> None:
    api.denied = lambda *asked: asked[2] == "secrets"
    found = ends(a_node(api, tmp_path))
    assert found["kubernetes.release"][0] == "not-verified"
    assert "secrets" in found["kubernetes.release"][1]
    assert {end for name, (end, _) in found.items() if name != "kubernetes.release"} == {"pass"}


def test_a_node_is_no_cluster() -> None:
    names = CellNames("debian-12", "as-is", "as-is", "host")
    node = Node("node", names, {}, None)  # type: ignore[arg-type]
    assert {end for end, _ in ends(node).values()} == {"skip"}
