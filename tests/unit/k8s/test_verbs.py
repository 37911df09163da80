"""``airlock k8s`` from the command line: exit codes, what is printed, what is written."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from fixtures.kubeapi import KubeApi
from fixtures.scenarios.clusters import load_cluster_scenarios
from harness.cli import main
from tests.unit.k8s.conftest import CHART

pytest.importorskip("helm_python")
pytest.importorskip("kubernetes")


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AIRLOCK_HELM", "sdk")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tmp_path / "cluster.toml"
    path.write_text(
        f'[operator]\nchart = "{CHART}"\nrelease = "MyCorp-Prod-EKS-GPU-Operator-Chart-7F2A"\n'
        '[registry]\nto = "registry.corp.example/proxy"\n'
    )
    return path


def test_plan_tells_what_would_be_deployed(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["k8s", "plan", str(file), "--no-ask"]) == 0
    out = capsys.readouterr().out
    assert "29 references to 17 images" in out
    assert "is too long or no name" in out
    assert main(["k8s", "plan", str(file), "--no-ask", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (len(found["images"]), found["wrong"]) == (29, [])


def test_render_writes_the_same_bytes_every_time(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    to = tmp_path / "gitops"
    assert main(["k8s", "render", str(file), "--to", str(to)]) == 0
    assert {path.name for path in to.iterdir()} == {"values.yaml", "manifests.yaml", "images.txt"}
    assert main(["k8s", "render", str(file), "--to", str(to)]) == 0
    assert capsys.readouterr().out.splitlines()[-1].endswith("nothing changed")


def test_apply_and_remove_from_the_command_line(
    file: Path, api: KubeApi, kubeconfig: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = [str(file), "--kubeconfig", str(kubeconfig)]
    assert main(["k8s", "apply", *where, "--no-ask"]) == 0
    assert main(["k8s", "apply", *where, "--no-ask"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith(": changed, revision 1")
    assert lines[-1].endswith(": nothing to change, revision 1")
    assert main(["k8s", "remove", *where]) == 0
    assert "gpu-operator" not in api.names("namespaces")


def test_a_cluster_that_is_too_old_is_told_before(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with KubeApi("1.23.4") as old:
        where = old.kubeconfig(tmp_path / "old")
        code = main(["k8s", "apply", str(file), "--kubeconfig", str(where), "--no-ask"])
    assert code == 1
    err = capsys.readouterr().err
    assert "node-feature-discovery is for Kubernetes >=1.24.0-0; it is 1.23" in err
    assert old.names("secrets") == []


def test_who_lacks_a_right_is_told_all_of_it_and_nothing_was_changed(
    file: Path, api: KubeApi, kubeconfig: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    forbidden = {"clusterpolicies.nvidia.com", "clusterroles.rbac.authorization.k8s.io"}
    api.denied = lambda _user, verb, resource, _ns: verb == "create" and resource in forbidden
    before = set(api.store.objects)
    assert main(["k8s", "apply", str(file), "--kubeconfig", str(kubeconfig), "--no-ask"]) == 2
    err = capsys.readouterr().err
    assert "may not create clusterpolicies.nvidia.com, create clusterroles.rbac" in err
    assert set(api.store.objects) == before


def test_a_node_with_a_card_and_another_system_is_told(
    file: Path, api: KubeApi, kubeconfig: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_text(file.read_text() + '[nodes]\nos = "ubuntu22.04"\n')
    for name, image, kubelet, gpu in (
        ("right", "Ubuntu 22.04.5 LTS", "v1.33.1", "true"),
        ("other", "Ubuntu 24.04.3 LTS", "v1.33.1", "true"),
        ("plain", "Amazon Linux 2023.6", "v1.33.1", ""),
        ("late", "Ubuntu 22.04.5 LTS", "v1.29.9", "true"),
    ):
        labels = {"nvidia.com/gpu.present": gpu} if gpu else {}
        info = {"osImage": image, "kubeletVersion": kubelet}
        meta = {"name": name, "labels": labels}
        node = {"apiVersion": "v1", "kind": "Node", "metadata": meta, "status": {"nodeInfo": info}}
        api.put(node)
    assert main(["k8s", "plan", str(file), "--kubeconfig", str(kubeconfig), "--no-ask"]) == 1
    out = capsys.readouterr().out.splitlines()
    assert [line for line in out if line.startswith("WRONG: ")] == [
        "WRONG: node late: kubelet v1.29 is more than 3 minors behind the API server's 1.34",
        "WRONG: node other runs Ubuntu 24.04.3 LTS; [nodes] os is ubuntu22.04",
    ]
    assert any(line.startswith("open: node plain runs Amazon Linux") for line in out)


@pytest.mark.parametrize("line", ["k8s plan x.toml", "reproduce chart-503"])
def test_without_the_extra_the_extra_is_named(
    line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "kubernetes", None)
    assert main(line.split()) == 2
    assert "gpu-airlock[k8s]" in capsys.readouterr().err


@pytest.mark.parametrize("name", load_cluster_scenarios())
def test_scenarios_of_clusters_show_their_symptom_and_name_it(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AIRLOCK_HELM", "sdk")
    assert main(["reproduce", name]) == 0, capsys.readouterr().out
    assert "seen here:" in capsys.readouterr().out
