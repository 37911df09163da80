"""The double of the API says what the real server says."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from fixtures.kubeapi import KubeApi
from fixtures.kubereal import KubeServer
from harness.k8s.client import Cluster
from harness.k8s.retry import Patience
from tests.unit.k8s.verdicts import CASES, OWNERS, STATES, Case, owners, states, verdict

pytest.importorskip("kubernetes")


@pytest.fixture(scope="module")
def both(
    server: KubeServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Cluster, Cluster]]:
    """(the real one, the double)"""
    home = tmp_path_factory.mktemp("both")
    with (
        KubeApi() as api,
        Cluster(server.kubeconfig(home / "real"), patience=Patience(5.0)) as real,
        Cluster(api.kubeconfig(home / "double"), patience=Patience(5.0)) as double,
    ):
        yield real, double


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_verdict_is_the_same(both: tuple[Cluster, Cluster], case: Case) -> None:
    real, double = (verdict(cluster, case) for cluster in both)
    assert real.code == case.code, real
    assert case.says in real.message
    assert (double.code, double.reason) == (real.code, real.reason), (double, real)
    assert case.says in double.message


def test_a_state_is_said_at_its_own_address(both: tuple[Cluster, Cluster]) -> None:
    assert [states(cluster) for cluster in both] == [STATES, STATES]


def test_fields_have_owners(both: tuple[Cluster, Cluster]) -> None:
    assert owners(both[0]) == owners(both[1]) == OWNERS
