"""One double of a cluster's API for each test, and ways in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fixtures.kubeapi import KubeApi
from harness.k8s.client import Cluster
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
