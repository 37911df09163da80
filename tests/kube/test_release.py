"""Our own chart on a real server, by the verbs that operators type and with real Helm."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from fixtures.kubereal import KubeServer
from fixtures.kubereal.kubelet import Kubelet
from harness.cli import main
from tests.kube.oldchart import old_copy
from tests.unit.k8s.conftest import CHART

Verb = Callable[..., int]
#: Come and go by themselves, or say what others did.
_PASSING = {"events", "endpoints", "endpointslices", "leases", "componentstatuses"}
#: What ``remove --definitions`` leaves: others may have brought the sub-chart's definitions.
_OF_SUBCHART = {
    "customresourcedefinitions /nodefeatures.nfd.k8s-sigs.io",
    "apiservices /v1alpha1.nfd.k8s-sigs.io",
}
_JOBS = "/apis/batch/v1/namespaces/gpu-operator/jobs"


def everything(server: KubeServer) -> set[str]:
    """What is on the cluster, but for what is passing."""
    versions = ["/api/v1"]
    for group in server.ask("GET", "/apis")["groups"]:
        versions.append(f"/apis/{group['preferredVersion']['groupVersion']}")
    found = set()
    for version in versions:
        for row in server.ask("GET", version)["resources"]:
            if "list" in row["verbs"] and row["name"] not in _PASSING:
                for item in server.ask("GET", f"{version}/{row['name']}")["items"]:
                    meta = item["metadata"]
                    found.add(f"{row['name']} {meta.get('namespace', '')}/{meta['name']}")
    return found - _OF_SUBCHART


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AIRLOCK_HELM", "sdk")
    path = tmp_path / "cluster.toml"
    path.write_text(
        f'[operator]\nchart = "{old_copy(CHART, tmp_path / "chart")}"\n'
        '[registry]\nto = "registry.corp.example/proxy"\n'
        '[slicing]\ndefault = "four"\n[[slicing.group]]\nname = "four"\nreplicas = 4\n'
    )
    return path


@pytest.fixture
def verb(file: Path, kubeconfig: Path) -> Verb:
    """``airlock k8s VERB FILE --kubeconfig ...``."""

    def run(name: str, *more: str) -> int:
        return main(["k8s", name, str(file), "--kubeconfig", str(kubeconfig), *more])

    return run


@pytest.mark.usefixtures("kubelet")
def test_apply_twice_changes_nothing_and_remove_leaves_nothing(
    server: KubeServer, verb: Verb, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def says() -> str:
        return capsys.readouterr().out.splitlines()[-1].rpartition(": ")[2]

    before = everything(server)
    assert verb("apply", "--no-ask") == 0, capsys.readouterr()
    assert says() == "changed, revision 1"
    assert len(everything(server) - before) > 20
    assert verb("apply", "--no-ask") == 0
    assert says() == "nothing to change, revision 1"
    # Of an upgrade Helm runs a hook first, whose Job the real controller brings to its end.
    file.write_text(file.read_text().replace("/proxy", "/mirror"))
    assert verb("apply", "--no-ask") == 0, capsys.readouterr()
    assert says() == "changed, revision 2"
    assert server.ask("GET", _JOBS)["items"] == []
    assert verb("remove", "--definitions") == 0
    assert says() == "removed"
    assert everything(server) - before == set()
    # A namespace takes a while to go, and takes nothing new meanwhile.
    assert verb("apply", "--no-ask") == 0, capsys.readouterr()
    assert verb("remove", "--definitions") == 0
    assert everything(server) - before == set()


def test_a_hook_that_hangs_is_cleared_and_the_next_apply_goes_on(
    server: KubeServer,
    kubelet: Kubelet,
    verb: Verb,
    file: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = everything(server)
    assert verb("apply", "--no-ask") == 0, capsys.readouterr()
    file.write_text(file.read_text().replace("/proxy", "/mirror"))
    kubelet.job = lambda _: ""
    assert verb("apply", "--no-ask", "--timeout", "5", "--patience", "5") == 3
    assert "upgrade-crd" in capsys.readouterr().err
    assert server.ask("GET", _JOBS)["items"] == []
    kubelet.job = lambda _: "Succeeded"
    assert verb("apply", "--no-ask") == 0, capsys.readouterr()
    kubelet.job = lambda _: ""
    assert verb("remove", "--definitions", "--timeout", "5") == 0
    assert "removed without its hooks" in capsys.readouterr().out
    server.until_gone("/api/v1/namespaces/gpu-operator")
    assert everything(server) - before == set()


def test_the_chart_as_it_is_is_refused_here(
    server: KubeServer, file: Path, verb: Verb, capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_text(f'[operator]\nchart = "{CHART}"\n')
    before = everything(server)
    assert verb("apply", "--no-ask") == 1
    words = "node-feature-discovery is for Kubernetes >=1.24.0-0; it is 1.20"
    assert words in capsys.readouterr().err
    assert everything(server) == before


def test_who_may_not_is_told_and_nothing_is_changed(
    server: KubeServer, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = everything(server)
    who = server.kubeconfig(tmp_path / "plain", token=server.plain_token)
    assert main(["k8s", "apply", str(file), "--kubeconfig", str(who), "--no-ask"]) == 2
    assert 'User "plain" cannot' in capsys.readouterr().err
    assert everything(server) == before
