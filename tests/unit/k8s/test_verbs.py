"""``airlock k8s`` from the command line: exit codes, what is printed, what is written."""

from __future__ import annotations

import json
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


@pytest.mark.parametrize("name", load_cluster_scenarios())
def test_scenarios_of_clusters_show_their_symptom_and_name_it(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AIRLOCK_HELM", "sdk")
    assert main(["reproduce", name]) == 0, capsys.readouterr().out
    assert "seen here:" in capsys.readouterr().out
