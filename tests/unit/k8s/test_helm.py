"""Both ways to Helm, on the same chart and the same double; and a client that nobody here wrote."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from fixtures.kubeapi import KubeApi
from harness.errors import UsageError
from harness.k8s.client import Cluster
from harness.k8s.helm import Command, Helm, HelmError, Target, find_helm
from harness.k8s.release import revisions
from harness.k8s.yamltext import dump_all
from tests.unit.k8s.conftest import CHART

HELM = shutil.which(os.environ.get("AIRLOCK_HELM", "helm"))
needs_helm = pytest.mark.skipif(not HELM, reason="there is no command helm")
needs_kubectl = pytest.mark.skipif(not shutil.which("kubectl"), reason="there is no kubectl")


@needs_helm
def test_the_command_renders_what_the_library_renders(helm: Helm) -> None:
    assert HELM
    command = Command(HELM)
    for name, values in (("gpu-operator", {}), ("x", {"nfd": {"enabled": False}})):
        ours = helm.render(CHART, values, name, "gpu-operator")
        assert command.render(CHART, values, name, "gpu-operator") == ours


@needs_helm
@pytest.mark.slow
def test_the_command_installs_upgrades_and_removes(kubeconfig: Path, cluster: Cluster) -> None:
    assert HELM
    command, target = Command(HELM), Target("default", kubeconfig)
    command.install(target, CHART, "op", {}, 120)
    command.upgrade(target, CHART, "op", {"driver": {"enabled": False}}, 120)
    assert [one.status for one in revisions(cluster, "op", "default")] == ["superseded", "deployed"]
    command.uninstall(target, "op", 120)
    assert revisions(cluster, "op", "default") == []


def test_a_helm_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRLOCK_HELM", "/nowhere/helm")
    with pytest.raises(UsageError, match="there is no such program"):
        find_helm()


@pytest.mark.parametrize(
    ("text", "passing", "of_hook"),
    [
        ("helm install: the server is currently unable to handle the request", True, False),
        ('helm install: Get "https://x": net/http: TLS handshake timeout', True, False),
        ('helm install: Patch "https://x": EOF', True, False),
        ("helm upgrade: context deadline exceeded", True, False),
        ("helm upgrade: pre-upgrade hooks failed: context deadline exceeded", False, True),
        ("helm uninstall: resource Job/g/c not ready. status: InProgress", False, True),
        ("helm upgrade: pre-upgrade hooks failed: too many requests", True, True),
        ("helm install: cannot reuse a name that is still in use", False, False),
    ],
)
def test_what_passes_by_itself_is_told_from_what_does_not(
    text: str, passing: bool, of_hook: bool
) -> None:
    error = HelmError(text)
    assert (error.passing, error.of_hook) == (passing, of_hook)


@needs_kubectl
def test_kubectl_takes_what_we_render_and_finds_it_again(
    api: KubeApi, kubeconfig: Path, helm: Helm, tmp_path: Path
) -> None:
    """As Argo CD and Flux do: server-side apply of the rendered file, by another's client."""
    file = tmp_path / "manifests.yaml"
    rendered = [one for one in helm.render(CHART, {}, "op", "default") if one["kind"] != "Job"]
    file.write_text(dump_all([one for one in rendered if one["kind"] != "ClusterPolicy"]))

    def kubectl(*arguments: str) -> str:
        return subprocess.run(
            ["kubectl", f"--kubeconfig={kubeconfig}", *arguments],
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        ).stdout

    kubectl("apply", "--server-side", "--validate=false", "-f", str(file))
    version = api.store.version
    kubectl("apply", "--server-side", "--validate=false", "-f", str(file))
    assert api.store.version == version
    found = kubectl("get", "daemonsets", "-o", "name")
    assert found.split() == ["daemonset.apps/op-node-feature-discovery-worker"]
