"""A double of the API, with networks in it, and a run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fixtures.gce import Compute
from harness.providers.gce_api import ENDPOINT
from harness.state import RunRecord
from tests.unit.gce import site
from tests.unit.gce.bodies import PROJECT, Api


@pytest.fixture
def compute() -> Iterator[Compute]:
    """The API."""
    with Compute(PROJECT) as double:
        yield double


@pytest.fixture
def api(compute: Compute) -> Api:
    """Plain requests to it; the network ``default`` is there."""
    found = Api(compute.url)
    assert found.ask("POST", "global/networks", {"name": "default"})[0] == 200
    return found


@pytest.fixture
def cloud(compute: Compute, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Compute:
    """The API with the closed network, as the provider finds it; a state directory of its own."""
    monkeypatch.setenv(ENDPOINT, compute.url)
    monkeypatch.setenv("AIRLOCK_STATE", str(tmp_path / "state"))
    site.network(compute)
    return compute


@pytest.fixture
def run(cloud: Compute) -> Iterator[RunRecord]:
    """A run on it."""
    del cloud
    with RunRecord() as record:
        yield record
