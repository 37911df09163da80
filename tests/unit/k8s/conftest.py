"""One double of a cluster's API for each test, and ways in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fixtures.kubeapi import KubeApi
from harness.k8s.client import Cluster
from harness.k8s.declaration import Declaration, read_declaration
from harness.k8s.helm import Helm, Sdk
from harness.k8s.retry import Patience


@pytest.fixture
def api() -> Iterator[KubeApi]:
    with KubeApi() as served:
        yield served


@pytest.fixture
def kubeconfig(api: KubeApi, tmp_path: Path) -> Path:
    return api.kubeconfig(tmp_path / "kubeconfig")


@pytest.fixture
def cluster(kubeconfig: Path) -> Iterator[Cluster]:
    pytest.importorskip("kubernetes")
    with Cluster(kubeconfig, patience=Patience(5.0, first=0.01)) as opened:
        yield opened


CHART = Path(__file__).resolve().parents[3] / "fixtures/charts/gpu-operator"

#: What the operator's chart pulls when nothing but its defaults is switched on.
WANTED = """\
[operator]
chart = "{chart}"
release = "gpu-operator"
namespace = "gpu-operator"
"""


@pytest.fixture(scope="session")
def helm() -> Helm:
    """Real Helm."""
    pytest.importorskip("helm_python")
    return Sdk()


@pytest.fixture
def declared(tmp_path: Path) -> Callable[..., Declaration]:
    """A declaration of our own chart, and of what the text says besides."""

    def declare(more: str = "", head: str = "") -> Declaration:
        file = tmp_path / "cluster.toml"
        file.write_text(WANTED.format(chart=CHART) + head + "\n" + more)
        return read_declaration(file)

    return declare
