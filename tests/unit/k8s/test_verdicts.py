"""The double refuses what a real server refuses, and takes what it takes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from fixtures.kubeapi import KubeApi
from harness.k8s.client import Cluster
from harness.k8s.retry import Patience
from tests.unit.k8s.verdicts import CASES, OWNERS, STATES, Case, owners, states, verdict

pytest.importorskip("kubernetes")


@pytest.fixture(scope="module")
def double(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    file = tmp_path_factory.mktemp("double") / "kubeconfig"
    with KubeApi() as api, Cluster(api.kubeconfig(file), patience=Patience(5.0)) as cluster:
        yield cluster


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_what_the_double_says(double: Cluster, case: Case) -> None:
    found = verdict(double, case)
    assert found.code == case.code, found
    assert case.says in found.message


def test_a_state_is_said_at_its_own_address(double: Cluster) -> None:
    assert states(double) == STATES


def test_fields_have_owners(double: Cluster) -> None:
    assert owners(double) == OWNERS
