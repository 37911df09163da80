"""Time-slicing on a cluster: rolled out, checked, linted, and taken back."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from fixtures.kubeapi.server import KubeApi
from harness import cli
from harness.k8s.client import Cluster
from harness.k8s.rollout import roll_out, take_back
from harness.k8s.slicing import NODE_LABEL, Group, Slicing
from tests.unit.conformance import cluster

DECLARATION = """
[operator]
chart = "gpu-operator"
[registry]
to = "registry.corp.example"
pull-secrets = ["regcred"]
[slicing]
default = "four"
[[slicing.group]]
name = "four"
replicas = 4
"""


@pytest.fixture
def api() -> Iterator[KubeApi]:
    with KubeApi() as double:
        cluster.good(double)
        yield double


@pytest.fixture
def kubeconfig(api: KubeApi, tmp_path: Path) -> Path:
    return api.kubeconfig(tmp_path / "kubeconfig")


def test_nodes_are_labelled_and_old_plugins_restarted_once(api: KubeApi, kubeconfig: Path) -> None:
    training = Group("two", {"nvidia.com/gpu": 2}, nodes={"pool": "training"})
    slicing = Slicing((*cluster.SLICING.groups, training), default="four")
    node = api.find("nodes", "gpu-2")
    assert node is not None
    node["metadata"]["labels"]["pool"] = "training"
    pod = api.find("pods", "plugin-gpu-1", cluster.NAMESPACE)
    assert pod is not None
    pod["status"]["startTime"] = "2020-01-01T00:00:00Z"
    with Cluster(kubeconfig) as client:
        done = roll_out(client, cluster.NAMESPACE, slicing)
        assert done == [
            f"node gpu-2: {NODE_LABEL}=two",
            "daemonset nvidia-device-plugin-daemonset: restarted, "
            "it was older than airlock-time-slicing",
        ]
        daemonset = api.find("daemonsets.apps", "nvidia-device-plugin-daemonset", cluster.NAMESPACE)
        assert daemonset is not None
        notes = daemonset["spec"]["template"]["metadata"]["annotations"]
        assert re.match(r"\d{4}-", notes["kubectl.kubernetes.io/restartedAt"])
        assert daemonset["spec"]["template"]["spec"]["containers"]  # the operator's part stays
        # What a kubelet would have done.
        pod["status"]["startTime"] = notes["kubectl.kubernetes.io/restartedAt"]
        assert roll_out(client, cluster.NAMESPACE, slicing) == []
        node = api.find("nodes", "gpu-1")
        assert node is not None
        node["metadata"]["labels"][NODE_LABEL] = "by-hand"
        assert take_back(client) == [f"node gpu-2: {NODE_LABEL} removed"]
        assert take_back(client) == []
    assert node["metadata"]["labels"][NODE_LABEL] == "by-hand"


def test_a_cluster_is_checked_like_a_node(
    api: KubeApi, kubeconfig: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "cluster.toml"
    file.write_text(DECLARATION)
    words = ["k8s", "check", str(file), "--kubeconfig", str(kubeconfig), "--out", str(tmp_path)]
    assert cli.main(words) == 0, capsys.readouterr()
    done = cluster.Shell(api, tmp_path).run("gone apis/node.k8s.io/v1/runtimeclasses/nvidia")
    assert done.code == 0, done.err
    assert cli.main(words) == 1
    report = json.loads((tmp_path / "latest/report.json").read_text())
    checks = {check["id"]: check["outcome"] for check in report["cells"][0]["checks"]}
    assert len(checks) == 23
    assert {name for name, end in checks.items() if end == "fail"} == {"kubernetes.runtime-class"}
    assert report["cells"][0]["provider"] == "kubernetes"
    assert not report["cells"][0]["checks"][0]["simulated"]


def test_a_cluster_that_is_gone_is_no_failed_check(
    api: KubeApi, kubeconfig: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    api.stop()
    monkeypatch.setattr("harness.providers.kubernetes.PATIENCE", 0.1)
    words = ["k8s", "check", "--kubeconfig", str(kubeconfig), "--out", str(tmp_path)]
    assert cli.main(words) == 3


def test_lint_of_a_cluster_and_of_files(
    api: KubeApi, kubeconfig: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["k8s", "lint", "cluster", "--kubeconfig", str(kubeconfig)]
    assert cli.main(words) == 0
    assert "no problem" in capsys.readouterr().out
    item = api.find("configmaps", "airlock-time-slicing", cluster.NAMESPACE)
    assert item is not None
    item["data"]["four"] = item["data"]["four"].replace("timeSlicing", "time-slicing")
    assert cli.main([*words, "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found[0]["where"].endswith("data.four.sharing.time-slicing")
    assert found[0]["remedy"] == "did you mean 'timeSlicing'?"
    file = tmp_path / "map.yaml"
    file.write_text(json.dumps(item))
    assert cli.main(["k8s", "lint", str(file)]) == 1
    file.write_text(item["data"]["four"])
    assert cli.main(["k8s", "lint", str(file)]) == 1
    assert "line 2" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["kind: Pod\nmetadata: {name: x}\n", "kind: [\n"])
def test_lint_of_what_is_none(
    tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "other.yaml"
    file.write_text(text)
    assert cli.main(["k8s", "lint", str(file)]) == 2
    assert cli.main(["k8s", "lint", str(tmp_path / "none.yaml")]) == 2
    assert "Traceback" not in capsys.readouterr().err
