"""The client against the double: what comes back, what is tried again, what a user is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from fixtures.kubeapi import KubeApi
from harness.errors import UsageError
from harness.k8s.client import Cluster
from harness.k8s.errors import ClusterError, NotAllowed
from harness.k8s.retry import Patience

Object = dict[str, object]


def config_map(name: str, **data: str) -> Object:
    meta = {"name": name, "namespace": "default", "labels": {"team": "gpu"}}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": data}


def test_objects_go_and_come(cluster: Cluster, api: KubeApi) -> None:
    assert cluster.version() == (1, 34)
    assert cluster.get("v1", "ConfigMap", "a", "default") is None
    made = cluster.apply(config_map("a", k="1"))
    again = cluster.apply(config_map("a", k="1"))
    assert again["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]
    assert cluster.apply(config_map("a", other="2"))["data"] == {"other": "2"}
    assert cluster.merge("v1", "ConfigMap", "a", {"data": {"k": "3"}}, "default")["data"] == {
        "k": "3",
        "other": "2",
    }
    assert [one["kind"] for one in cluster.list("v1", "ConfigMap", labels="team=gpu")] == [
        "ConfigMap"
    ]
    assert cluster.delete("v1", "ConfigMap", "a", "default")
    assert not cluster.delete("v1", "ConfigMap", "a", "default")
    assert api.names("configmaps") == []


def test_a_list_is_read_page_by_page(
    cluster: Cluster, api: KubeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.k8s.client._PAGE", 2)
    for number in range(5):
        cluster.apply(config_map(f"c{number}"))
    assert len(cluster.list("v1", "ConfigMap")) == 5
    assert sum("continue" in row["query"] for row in api.requests) == 2


def test_a_kind_that_comes_later_is_found(cluster: Cluster) -> None:
    assert cluster.list("nvidia.com/v1", "ClusterPolicy") == []
    names = {"kind": "ClusterPolicy", "plural": "clusterpolicies"}
    versions = [{"name": "v1", "served": True, "storage": True}]
    spec = {"group": "nvidia.com", "scope": "Cluster", "names": names, "versions": versions}
    meta = {"name": "clusterpolicies.nvidia.com"}
    version = "apiextensions.k8s.io/v1"
    definition = {"kind": "CustomResourceDefinition", "apiVersion": version, "metadata": meta}
    cluster.apply(definition | {"spec": spec})
    policy = {"apiVersion": "nvidia.com/v1", "kind": "ClusterPolicy", "metadata": {"name": "p"}}
    cluster.apply(policy)
    assert cluster.get("nvidia.com/v1", "ClusterPolicy", "p") is not None


def test_fields_of_others_are_not_taken_over_silently(cluster: Cluster, api: KubeApi) -> None:
    kind = api.store.find("", "v1", "configmaps")
    assert kind is not None
    api.store.apply(kind, "default", "a", config_map("a", k="theirs"), "helm", False)
    with pytest.raises(ClusterError, match=r'conflict with "helm": \.data\.k') as caught:
        cluster.apply(config_map("a", k="ours"))
    assert caught.value.code == 409
    assert cluster.apply(config_map("a", k="ours"), force=True)["data"] == {"k": "ours"}


@pytest.mark.parametrize("how", [{"status": 503}, {"status": 429, "retry_after": 0}, {"cut": 10}])
def test_what_passes_is_tried_again(cluster: Cluster, api: KubeApi, how: dict[str, int]) -> None:
    api.fail("PATCH", "configmaps", times=3, **how)
    assert cluster.apply(config_map("a", k="1"))["data"] == {"k": "1"}
    assert len(cluster.patience.tried) == 3


def test_an_answer_that_got_lost_does_no_harm(cluster: Cluster, api: KubeApi) -> None:
    api.fail("PATCH", "configmaps", status=504, lose=True)
    cluster.apply(config_map("a", k="1"))
    assert api.names("configmaps") == ["a"]


def test_a_cluster_that_is_gone_is_an_error_of_the_lab(kubeconfig: Path, api: KubeApi) -> None:
    pytest.importorskip("kubernetes")
    with Cluster(kubeconfig, patience=Patience(0.05, first=0.01)) as cluster:
        cluster.version()
        api.stop()
        with pytest.raises(ClusterError, match="cannot be asked") as caught:
            cluster.version()
    assert caught.value.exit == 3


def test_who_may_not_is_told_so_at_once(cluster: Cluster, api: KubeApi) -> None:
    api.denied = lambda _user, verb, resource, _ns: (verb, resource) == ("patch", "configmaps")
    assert not cluster.allowed("patch", "configmaps", "default")
    assert cluster.allowed("get", "pods/log", "default")
    with pytest.raises(NotAllowed, match='User "admin" cannot patch') as caught:
        cluster.apply(config_map("a"))
    assert caught.value.exit == 2
    assert cluster.patience.tried == []


def test_a_token_that_expired_is_told_so(api: KubeApi, tmp_path: Path) -> None:
    pytest.importorskip("kubernetes")
    file = api.kubeconfig(tmp_path / "old", token="expired")
    with Cluster(file) as cluster, pytest.raises(NotAllowed, match="does not know who we are"):
        cluster.version()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "Invalid kube-config|no kubeconfig"),
        ("a: [", "is no kubeconfig"),
        ("- 1\n", "no kubeconfig|Invalid"),
        ("clusters: 5\ncontexts: 6\nusers: 7\ncurrent-context: x\n", "no kubeconfig|Invalid"),
    ],
)
def test_a_bad_kubeconfig_is_one_clear_error(tmp_path: Path, text: str, says: str) -> None:
    pytest.importorskip("kubernetes")
    file = tmp_path / "config"
    file.write_text(text)
    with pytest.raises(UsageError, match=says) as caught:
        Cluster(file)
    assert str(file) in caught.value.message


def test_a_context_that_is_not_there(kubeconfig: Path) -> None:
    pytest.importorskip("kubernetes")
    with pytest.raises(UsageError, match="other"):
        Cluster(kubeconfig, "other")


def test_a_watch_tells_what_is_there_and_what_comes(cluster: Cluster, api: KubeApi) -> None:
    cluster.apply(config_map("a"))
    seen = []
    for what, item in cluster.watch("v1", "ConfigMap", "default", seconds=5):
        seen.append((what, item["metadata"]["name"]))
        if len(seen) == 1:
            api.put(config_map("b"))
        else:
            break
    assert seen == [("ADDED", "a"), ("ADDED", "b")]
