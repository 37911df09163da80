"""One real control plane for all of these tests, and nodes whose kubelets are doubles."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fixtures.kubereal import KubeServer
from fixtures.kubereal.kubelet import Kubelet, node
from harness.k8s.client import Cluster
from harness.kubelab.build import find

pytest.importorskip("helm_python")
pytest.importorskip("kubernetes")


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KubeServer]:
    built = find()
    if built is None:
        pytest.skip("there is no kube-apiserver: make lab-kube builds it")
    with KubeServer(built.programs, tmp_path_factory.mktemp("kube") / "server") as running:
        yield running


@pytest.fixture
def kubeconfig(server: KubeServer, tmp_path: Path) -> Path:
    return server.kubeconfig(tmp_path / "kubeconfig")


@pytest.fixture
def cluster(kubeconfig: Path) -> Iterator[Cluster]:
    with Cluster(kubeconfig) as opened:
        yield opened


@pytest.fixture
def kubelet(server: KubeServer) -> Iterator[Kubelet]:
    """Of a node with four slices of a card."""
    server.put(node("gpu-1", **{"nvidia.com/gpu": "4"}))
    with Kubelet(server, "gpu-1") as double:
        yield double
    server.ask("DELETE", "/api/v1/nodes/gpu-1")
