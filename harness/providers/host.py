"""Machines that exist already. Nothing is made, and nothing on them is changed."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.cells import Cell, Image, Profile
from harness.providers.base import Job, Needs, Refusal
from harness.requirements import ANYTHING, Offer
from harness.targets import Target, connect, parse_target
from harness.transports.base import AgentOperations, RemoteError, Transport


class Host:
    """The provider of one machine."""

    name = "host"

    def __init__(self, target: str) -> None:
        """``target``: see harness.targets. Raises UsageError."""
        self._target = parse_target(target)

    def reasons_not(self, cell: Cell) -> list[str]:
        """Whether it can be reached is seen when it is asked."""
        del cell
        return []

    def offers(self) -> Offer:
        """Whatever is there is taken as it is."""
        return ANYTHING

    def inputs(self, cell: Cell) -> None:
        """Unknown: somebody else may change the machine at any time."""
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

    def up(self, job: Job) -> HostNode:
        """Connect, and see that something answers."""
        node = HostNode(self._target)
        try:
            with job.phase("connect", self._target.text):
                # A command, not an operation of the agent: a node with nothing but sh can do it.
                node.transport.run("true", timeout=30)
        except BaseException:
            node.down()
            raise
        return node

    def close(self) -> None:
        """Nothing is shared."""


class HostNode:
    """A machine that was there before us."""

    simulated = False

    def __init__(self, target: Target) -> None:
        self.transport: Transport = connect(target)
        #: No lab knows what it should be; checks that need to know do not apply.
        self.expect: Mapping[str, Any] = {}

    def exercise(self) -> None:
        """The cards compute something. Controls load modules, and probes send packets: not here."""
        if isinstance(self.transport, AgentOperations):
            with contextlib.suppress(RemoteError):  # its facts say that nobody tried them
                self.transport.cards()

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


def host_cell(target: str) -> Cell:
    """The one cell of a check: the machine as it is."""
    from fixtures.scenarios import Scenario

    name = parse_target(target).name
    return Cell(
        image=Image(name=name, title=name, family="", version="", suite="", kernel=""),
        scenario=Scenario(name="as-is", title="Wherever the machine is", network="direct"),
        profile=Profile(name="as-is", title="Whatever is on it", installers=()),
        provider=Host.name,
    )
