"""Every provider that needs no virtual machine keeps the contract; none is left out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.providers.registry import PROVIDERS
from harness.state import RunRecord
from tests.unit.providers.contract import Contract, Kit
from tests.unit.providers.kits import IN_THE_LAB, KITS


def test_every_provider_has_a_kit() -> None:
    assert sorted([*KITS, *IN_THE_LAB]) == sorted(PROVIDERS)


@pytest.fixture
def record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunRecord]:
    """A run in a state directory of its own."""
    monkeypatch.setenv("AIRLOCK_STATE", str(tmp_path / "state"))
    with RunRecord() as found:
        yield found


@pytest.fixture(params=list(KITS))
def kit(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Kit]:
    """Each provider's."""
    made: Kit = KITS[request.param](tmp_path, monkeypatch)
    yield made
    made.close()


class TestContract(Contract):
    """The rules, of each of them."""
