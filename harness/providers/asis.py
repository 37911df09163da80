"""What providers share whose nodes were there before us: nothing is made, or kept up."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from harness.cells import Cell, Image, Profile
from harness.providers.base import Needs, Refusal
from harness.requirements import ANYTHING, Offer
from harness.transports.base import Transport


class AsIs:
    """The part of a provider that says what a cell takes: next to nothing."""

    def offers(self) -> Offer:
        """Whatever is there is taken as it is."""
        return ANYTHING

    def inputs(self, cell: Cell) -> None:
        """Unknown: somebody else may change it at any time, and what is kept is judged anew."""
        del cell

    def refusal(self, cell: Cell) -> Refusal | None:
        """What is there is looked at, whatever it is."""
        del cell
        return None

    def needs(self, cell: Cell) -> Needs:
        """Nothing of this machine."""
        del cell
        return Needs(memory_mb=0, cores=0)

    def minutes(self, cell: Cell) -> float:
        """Facts take a second."""
        del cell
        return 0.1

    def close(self) -> None:
        """Nothing is shared."""


class NodeAsIs:
    """The part of a node that a lab around it would have; there is none."""

    transport: Transport

    def ledger(self) -> dict[str, Any]:
        """Nobody recorded its traffic."""
        return {}

    def symptom(self) -> str:
        """No scenario of ours surrounds it."""
        return ""

    def keep_evidence(self, capsule: Path) -> None:
        """The facts are all there is."""
        del capsule

    def down(self) -> None:
        """Hang up."""
        with contextlib.suppress(Exception):
            self.transport.close()


def cell_as_is(provider: str, name: str, *, where: str, target: str = "") -> Cell:
    """The one cell of something that is checked as it is. ``where``: the scenario's title."""
    from fixtures.scenarios import Scenario

    title = target or name
    return Cell(
        image=Image(name=name, title=title, family="", version="", suite="", kernel=""),
        scenario=Scenario(name="as-is", title=where, network="direct"),
        profile=Profile(name="as-is", title="Whatever is on it", installers=()),
        provider=provider,
        target=target,
    )
