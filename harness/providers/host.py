"""Machines that exist already. Nothing is made, and nothing on them is changed.

What their own programs do when they are asked stays theirs: a login runs the files of its shell,
and a card that computes gets the device nodes that any user of it causes.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from typing import Any

from harness.cells import Cell
from harness.clock import synchronised
from harness.errors import InfraError
from harness.providers.asis import AsIs, NodeAsIs, cell_as_is
from harness.providers.base import Job
from harness.targets import Target, connect, parse_target
from harness.transports.base import (
    AgentOperations,
    NoPython,
    RemoteError,
    Transport,
    TransportError,
)

#: Seconds between two clocks that nobody has to explain; the check system.clock allows more.
CLOCKS_AGREE = 60.0
CONNECT = 60.0
#: nvidia-smi loads the driver where it is not: then the cards are left alone.
LOADED = "grep -qs '^nvidia ' /proc/modules"


class Host(AsIs):
    """The provider of machines that are named by a cell's ``target``."""

    name = "host"

    def reasons_not(self, cell: Cell) -> list[str]:
        """Whether it can be reached is seen when it is asked."""
        reasons = []
        if not cell.target:
            reasons.append("an existing machine has a target (--target), and no image or scenario")
        if cell.sabotage:
            reasons.append("a machine that is not ours is not broken on purpose")
        return reasons

    def up(self, job: Job) -> HostNode:
        """Connect, and see that something answers that lives in our time."""
        if reasons := self.reasons_not(job.cell):
            raise InfraError("; ".join(reasons), hint="airlock check local, or ssh://HOST")
        node = HostNode(parse_target(job.cell.target), job.check)
        try:
            with job.phase("connect", job.cell.target):
                node.greet()
            job.check()
        except BaseException:
            node.down()
            raise
        return node


class HostNode(NodeAsIs):
    """A machine that was there before us."""

    simulated = False

    def __init__(self, target: Target, watch: Callable[[], object]) -> None:
        self.transport: Transport = connect(target, watch)
        #: No lab knows what it should be; checks that need to know do not apply.
        self.expect: Mapping[str, Any] = {}

    def greet(self) -> None:
        """See that it answers, and that one of two clocks that differ is known to be right.

        Raises InfraError. Where our own clock is kept right, the difference is the machine's, and
        the check ``system.clock`` says so.
        """
        # Commands, not operations of the agent: a node with nothing but sh can do them.
        asked = time.time()
        ran = self.transport.run("date +%s", timeout=CONNECT)
        answered = time.time()
        try:
            there = float(ran.out)
        except ValueError:
            said = (ran.err or ran.out).decode(errors="replace").strip()[-200:]
            raise TransportError(
                f"{self.transport.name}: a command could not be run: {said or 'it said nothing'}"
            ) from None
        apart = max(asked - there - 1, there - answered, 0.0)
        if apart > CLOCKS_AGREE and not synchronised():
            raise InfraError(
                f"{self.transport.name}: its clock and ours are {apart:.0f} s apart, and nothing "
                "keeps ours right: nobody can tell which is wrong",
                hint="synchronise this machine's clock (chrony, systemd-timesyncd), then ask again",
            )

    def exercise(self) -> None:
        """The cards compute something. Controls load modules, and probes send packets: not here."""
        if isinstance(self.transport, AgentOperations):
            # Its facts say that nobody tried them.
            with contextlib.suppress(RemoteError, NoPython):
                if self.transport.run(LOADED, timeout=30).code == 0:
                    self.transport.cards()


def host_cell(target: str) -> Cell:
    """The one cell of a machine that is checked as it is. UsageError for what is no target."""
    name = parse_target(target).name
    return cell_as_is(Host.name, name, where="Wherever the machine is", target=target)
