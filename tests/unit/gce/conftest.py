"""A double of the API, with a default network in it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from fixtures.gce import Compute
from tests.unit.gce.bodies import PROJECT, Api


@pytest.fixture
def compute() -> Iterator[Compute]:
    """The API, at a hundredth of its time."""
    with Compute(PROJECT, scale=100) as double:
        yield double


@pytest.fixture
def api(compute: Compute) -> Api:
    """Plain requests to it; the network ``default`` is there."""
    found = Api(compute.url)
    assert found.ask("POST", "global/networks", {"name": "default"})[0] == 200
    return found
