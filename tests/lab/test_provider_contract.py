"""The provider of virtual machines keeps the same contract as all others."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from harness.catalog import load_catalog
from harness.cells import Cell
from harness.providers.base import Provider
from harness.providers.registry import load
from harness.state import RunRecord
from tests.unit.providers.contract import Contract, Kit
from tests.unit.providers.kits import IN_THE_LAB

# It boots machines of its own, which takes eight minutes without KVM.
pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.xdist_group("contract")]


class QemuKit(Kit):
    """Debian 12 behind the intercepting proxy, as in every run, so that it comes from the cache."""

    def __init__(self) -> None:
        self._catalog = load_catalog()

    def provider(self) -> Provider:
        return load("qemu")

    def cell(self) -> Cell:
        catalog = self._catalog
        return Cell(
            catalog.images["debian-12"],
            catalog.scenario("proxy-intercept"),
            catalog.profiles["driver"],
            "qemu",
        )

    def bad(self, ending: str) -> Cell | None:
        """No archive has such a suite. What installers do wrong has tests of its own."""
        cell = self.cell()
        image = replace(cell.image, name="debian-none", suite="no-such-suite")
        return replace(cell, image=image) if ending == "lab" else None

    def refused(self) -> Cell | None:
        return replace(self.cell(), image=self._catalog.images["debian-11"])


#: provider -> its kit.
KITS = {"qemu": QemuKit}


def test_the_unit_suite_leaves_these_to_us() -> None:
    assert tuple(KITS) == IN_THE_LAB


@pytest.fixture
def record() -> Iterator[RunRecord]:
    """A run on the state directory of the lab: its images are there."""
    with RunRecord() as found:
        yield found


@pytest.fixture(params=list(KITS))
def kit(request: pytest.FixtureRequest) -> Kit:
    """Each provider's."""
    return KITS[request.param]()


class TestContract(Contract):
    """The rules."""
