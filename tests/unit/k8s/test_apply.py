"""Install, upgrade and remove with real Helm against the double: good days and bad ones."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fixtures.kubeapi import KubeApi
from harness.errors import AirlockError, InfraError
from harness.k8s.apply import Order, apply, remove
from harness.k8s.client import Cluster
from harness.k8s.helm import Helm, HelmError, Target
from harness.k8s.release import revisions
from harness.k8s.retry import Patience
from harness.k8s.slicing import GPU_RESOURCE, NODE_LABEL, Group, Slicing
from harness.state import started_at
from tests.unit.k8s.conftest import CHART

NAMESPACE, RELEASE = "gpu-operator", "gpu-operator"
Orders = Callable[..., Order]


@pytest.fixture
def orders(cluster: Cluster, kubeconfig: Path, helm: Helm, tmp_path: Path) -> Orders:
    """An order of our own chart with some values."""

    def order(values: dict[str, Any] | None = None, **more: Any) -> Order:
        values = values or {}
        beside = {"name": "regcred", "namespace": NAMESPACE}
        given: dict[str, Any] = {
            "seconds": 20,
            "chart": CHART,
            "chart_id": "gpu-operator-v26.7.0",
            "values": values,
            "rendered": helm.render(CHART, values, RELEASE, NAMESPACE),
            "beside": [{"apiVersion": "v1", "kind": "Secret", "metadata": beside}],
            "evidence": tmp_path / "capsule",
            "patience": Patience(30.0, first=0.01),
        }
        return Order(helm, cluster, Target(NAMESPACE, kubeconfig), RELEASE, **(given | more))

    return order


def writes(api: KubeApi, since: int) -> list[str]:
    """What was changed since, but for the lease."""
    return [
        f"{row['method']} {row['path']}"
        for row in api.requests[since:]
        if row["method"] != "GET" and "/leases" not in row["path"]
    ]


def test_time_slicing_comes_with_the_release_and_goes_with_it(api: KubeApi, orders: Orders) -> None:
    four, two = Group("four", {GPU_RESOURCE: 4}), Group("two", {GPU_RESOURCE: 2}, nodes={"p": "t"})
    slicing = Slicing((four, two), default="four")
    card = {"capacity": {GPU_RESOURCE: "1"}}
    meta = {"name": "gpu-1", "labels": {"p": "t"}}
    api.put({"apiVersion": "v1", "kind": "Node", "metadata": meta, "status": card})
    values = {"devicePlugin": {"config": slicing.policy()}}
    more = {"slicing": slicing, "beside": [slicing.config_map(NAMESPACE)]}
    assert apply(orders(values, **more)).notes == [f"node gpu-1: {NODE_LABEL}=two"]
    policy = api.find("clusterpolicies.nvidia.com", "cluster-policy")
    assert policy is not None
    assert policy["spec"]["devicePlugin"]["config"] == slicing.policy()
    assert api.find("configmaps", slicing.name, NAMESPACE)
    assert not apply(orders(values, **more)).changed
    assert f"node gpu-1: {NODE_LABEL} removed" in remove(orders()).notes
    assert api.find("configmaps", slicing.name, NAMESPACE) is None


def test_apply_twice_changes_nothing_the_second_time_and_remove_takes_all_away(
    api: KubeApi, orders: Orders
) -> None:
    before = set(api.store.objects)
    first = apply(orders())
    assert (first.changed, first.revision) == (True, 1)
    assert api.find("clusterpolicies.nvidia.com", "cluster-policy")
    since = len(api.requests)
    second = apply(orders())
    assert (second.changed, second.revision) == (False, 1)
    # Ours is sent again, which the server finds the same.
    assert writes(api, since) == [f"PATCH /api/v1/namespaces/{NAMESPACE}/secrets/regcred"]
    third = apply(orders({"driver": {"enabled": False}}))
    assert (third.changed, third.revision) == (True, 2)
    policy = api.find("clusterpolicies.nvidia.com", "cluster-policy")
    assert policy
    assert policy["spec"]["driver"]["enabled"] is False
    outcome = remove(orders(), definitions=True)
    assert outcome.changed
    left = set(api.store.objects) - before
    # Definitions of sub-charts are not in Helm's record of the release.
    assert {place[0] for place in left} <= {"customresourcedefinitions.apiextensions.k8s.io"}
    assert not remove(orders()).changed


def test_a_namespace_takes_a_while_to_go(api: KubeApi, orders: Orders) -> None:
    apply(orders())
    api.store.linger = 0.5
    assert remove(orders(), definitions=True).notes == []
    assert NAMESPACE not in api.names("namespaces")
    apply(orders())
    kind = api.store.find("", "v1", "namespaces")
    assert kind
    api.store.delete(kind, "", NAMESPACE)  # by somebody else, just before
    assert apply(orders()).revision == 1


def test_a_namespace_that_does_not_go_is_told(api: KubeApi, orders: Orders) -> None:
    apply(orders())
    api.store.linger = 60.0
    notes = remove(orders(seconds=1)).notes
    assert any("is still being deleted after 1 s" in note for note in notes)
    with pytest.raises(InfraError, match="is being deleted, and still is after 1 s"):
        apply(orders(seconds=1))


def test_what_somebody_deleted_comes_back(api: KubeApi, orders: Orders, cluster: Cluster) -> None:
    apply(orders())
    assert cluster.delete("apps/v1", "Deployment", "gpu-operator", NAMESPACE)
    assert apply(orders()).changed
    assert "gpu-operator" in api.names("deployments.apps")


@pytest.mark.parametrize(
    ("path", "how"),
    [
        ("deployments", {"status": 503, "times": 2}),
        ("clusterpolicies/cluster-policy", {"status": 503, "times": 1}),
        ("customresourcedefinitions", {"cut": 5, "times": 2}),
        ("secrets/sh.helm", {"status": 504, "times": 1}),
    ],
)
def test_an_installation_that_was_cut_off_goes_on(
    api: KubeApi, orders: Orders, path: str, how: dict[str, int]
) -> None:
    api.fail("", path, **how)
    outcome = apply(orders())
    assert outcome.changed
    assert api.find("clusterpolicies.nvidia.com", "cluster-policy")
    assert not apply(orders()).changed


def test_a_revision_that_nobody_works_on_is_taken_up(orders: Orders, cluster: Cluster) -> None:
    apply(orders())
    (last,) = revisions(cluster, RELEASE, NAMESPACE)

    def pending(since: float) -> None:
        labels = {"status": "pending-upgrade", "modifiedAt": str(int(since))}
        cluster.merge("v1", "Secret", last.secret, {"metadata": {"labels": labels}}, NAMESPACE)

    pending(time.time())
    with pytest.raises(InfraError, match="somebody's Helm may be at it") as caught:
        apply(orders())
    assert caught.value.exit == 3
    pending(time.time() - 60)
    outcome = apply(orders())
    assert any("was pending-upgrade" in note for note in outcome.notes)
    assert [one.status for one in revisions(cluster, RELEASE, NAMESPACE)][-1] == "deployed"


def test_a_failed_hook_is_told_kept_as_evidence_and_cleaned_up(
    api: KubeApi, orders: Orders, tmp_path: Path
) -> None:
    apply(orders())
    api.job = lambda _: "Failed"
    containers = {"containers": [{"name": "upgrade", "image": "x"}]}
    meta = {"name": "upgrade-crd-x7k2p", "namespace": NAMESPACE}
    api.put({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": containers})
    api.logs[(NAMESPACE, "upgrade-crd-x7k2p")] = "kubectl: error: no CRDs here\n"
    with pytest.raises(HelmError, match="upgrade-crd") as caught:
        apply(orders({"driver": {"enabled": False}}))
    assert caught.value.of_hook
    assert not caught.value.passing
    assert api.names("jobs.batch") == []
    assert (tmp_path / "capsule/events.json").is_file()
    log = tmp_path / "capsule/logs/upgrade-crd-x7k2p.upgrade.log"
    assert log.read_text() == "kubectl: error: no CRDs here\n"
    api.job = lambda _: "Complete"
    assert apply(orders({"driver": {"enabled": False}})).changed


def test_remove_goes_on_without_a_hook_that_hangs(api: KubeApi, orders: Orders) -> None:
    apply(orders())
    api.job = lambda _: ""
    outcome = remove(orders(seconds=2))
    assert any("removed without its hooks" in note for note in outcome.notes)
    assert api.names("deployments.apps") == []
    assert api.names("jobs.batch") == []
    assert NAMESPACE not in api.names("namespaces")


def test_a_cluster_that_goes_away_leaves_what_remove_can_clean(
    api: KubeApi, orders: Orders
) -> None:
    api.fail("PATCH", "deployments", cut=0, times=1000)
    with pytest.raises(AirlockError) as caught:
        apply(orders(patience=Patience(0.5, first=0.01)))
    assert caught.value.exit == 3
    api._faults.clear()
    remove(orders(), definitions=True)
    kinds = {place[0] for place in api.store.objects}
    assert kinds <= {"namespaces", "customresourcedefinitions.apiextensions.k8s.io"}
    assert NAMESPACE not in api.names("namespaces")


def test_who_may_not_is_told_and_nothing_is_half_applied(api: KubeApi, orders: Orders) -> None:
    api.denied = lambda _user, verb, resource, _ns: verb != "get" and resource == "namespaces"
    before = set(api.store.objects)
    with pytest.raises(AirlockError, match=r"namespaces.* is forbidden") as caught:
        apply(orders())
    assert caught.value.exit == 2
    assert set(api.store.objects) == before


def test_one_at_a_time(orders: Orders, cluster: Cluster) -> None:
    apply(orders())

    def lease(holder: str) -> None:
        spec = {
            "holderIdentity": holder,
            "renewTime": "2999-01-01T00:00:00.000000Z",
            "leaseDurationSeconds": 60,
        }
        meta = {"name": f"airlock-{RELEASE}", "namespace": NAMESPACE}
        version = "coordination.k8s.io/v1"
        cluster.apply(
            {"apiVersion": version, "kind": "Lease", "metadata": meta, "spec": spec}, force=True
        )

    lease("elsewhere/1/2")
    with pytest.raises(InfraError, match="elsewhere/1/2 works on gpu-operator/gpu-operator until"):
        apply(orders())
    assert not apply(orders(take_over=True)).changed
    import os
    import socket

    # The same process id, and another process: whoever held it is gone.
    began = started_at(os.getpid())
    assert began is not None
    lease(f"{socket.gethostname()}/{os.getpid()}/{began - 1}")
    assert not apply(orders()).changed


def test_what_others_put_there_is_not_ours(api: KubeApi, orders: Orders) -> None:
    for kind, meta in (
        ("Namespace", {"name": NAMESPACE}),
        ("Secret", {"name": "regcred", "namespace": NAMESPACE}),
    ):
        api.put({"apiVersion": "v1", "kind": kind, "metadata": meta})
    with pytest.raises(InfraError, match="is there, and not ours"):
        apply(orders())
    remove(orders())
    assert api.names("secrets", NAMESPACE) == ["regcred"]
    assert NAMESPACE in api.names("namespaces")
