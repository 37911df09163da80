"""The interface between the harness and whatever makes nodes.

A provider is asked in this order: ``reasons_not`` (plan), ``refusal`` (before anything is fetched
or built), ``up`` (makes the node; blocks, runs in a thread of its own), then on the ``Running``
node ``exercise``, ``transport.facts()``, ``ledger``, ``keep_evidence`` and, always, ``down``.

Who says what went wrong, and so which verdict a cell gets:

* ``Refused``: an installer refused the combination -> verdict ``refused``;
* ``NodeFailed``: the image or an installer is at fault -> verdict ``fail``, exit 1;
* any other exception: the lab is at fault -> verdict ``error``, exit 3, never a failed check.
"""

from __future__ import annotations

import contextlib
import enum
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from harness.errors import AirlockError, InfraError
from installers.exits import Exit

if TYPE_CHECKING:
    from harness.cells import Cell
    from harness.requirements import Offer
    from harness.state import Owned
    from harness.transports.base import Transport


@dataclass(frozen=True)
class Refusal:
    """Why a cell must not be attempted: ``code`` is stable, ``remedy`` is the way out."""

    code: str
    reason: str
    remedy: str


class Refused(AirlockError):
    """Raised by ``up`` when an installer refuses the combination before it changes anything."""

    exit = Exit.FAIL

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.reason, hint=refusal.remedy)
        self.refusal = refusal


class NodeFailed(AirlockError):
    """Raised by ``up`` when the image or an installer failed, not the lab. ``cause`` is a class."""

    exit = Exit.FAIL

    def __init__(self, message: str, *, cause: str = "", hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.cause = cause


class Stopped(InfraError):
    """Raised by ``up`` when the run is being stopped (Ctrl-C)."""


@dataclass(frozen=True)
class Needs:
    """What a cell takes from the machine while it is up, for admission.

    ``disk_mb``: what must be free where the state directory is, before anything is made.
    """

    memory_mb: int
    cores: int = 1
    disk_mb: int = 0


@dataclass
class Phase:
    """One timed step of making a node. ``outcome``: ok | cached | failed | error."""

    name: str
    seconds: float
    outcome: str = "ok"


@dataclass
class Record:
    """What happened to a cell so far. Filled while ``up`` runs, so that it survives a failure.

    ``provenance``: fixups, pyz_sha256, image_digest, kernel, driver_version, cache hits.
    ``build``: the build stage's ledger, with ``inherited`` (ISO date) when it came from the cache.
    ``image_digest``: ``sha256:...`` of the base image, when there is one.
    """

    phases: list[Phase] = field(default_factory=list)
    installers: list[dict[str, Any]] = field(default_factory=list)
    provenance: dict[str, Any] = field(default_factory=dict)
    build: dict[str, Any] = field(default_factory=dict)
    image_digest: str | None = None


class Keep(enum.StrEnum):
    """Which nodes stay up when the run has ended."""

    NEVER = "never"
    ON_FAILURE = "on-failure"
    ALWAYS = "always"


@dataclass(frozen=True)
class Options:
    """What the user asked of the whole run.

    ``fresh``: new keys and a new CA. ``boot_anew``: boot every machine from its firmware up instead
    of forking one that was booted and frozen before. ``reproducing``: it is the environment that
    matters: its symptom is shown, and nodes are not searched for secrets. ``bind``: record the
    digest of the disks, so that a release can be held against the report.
    """

    fresh: bool = False
    boot_anew: bool = False
    keep: Keep = Keep.NEVER
    reproducing: bool = False
    bind: bool = False


@dataclass
class Job:
    """One attempt to bring one cell up.

    ``capsule``: directory that stays, ``out/<run-id>/cells/<cell>``: serial console, journal, logs.
    ``scratch``: short directory (sockets fit in it) that the pool removes after ``down``.
    ``say``: ``say(phase, line)`` feeds the live table; the last line is shown on an error too.
    ``owned``: the run's ledger; register every process, directory and namespace that would
    survive a ``kill -9`` of the run, so that the next run can end it.
    ``broken``: what a sabotage does to the build (see harness.sabotage): ``script``, ``serves``.
    ``stopping``: set on Ctrl-C; ``up`` calls ``check()`` often and raises ``Stopped`` soon.
    """

    cell: Cell
    capsule: Path
    scratch: Path
    say: Callable[[str, str], None]
    owned: Owned
    options: Options = field(default_factory=Options)
    record: Record = field(default_factory=Record)
    stopping: threading.Event = field(default_factory=threading.Event)
    broken: Mapping[str, Any] = field(default_factory=dict)

    def check(self) -> None:
        """Raise ``Stopped`` if the run is being stopped."""
        if self.stopping.is_set():
            raise Stopped(f"{self.cell.id}: stopped")

    @contextlib.contextmanager
    def phase(self, name: str, line: str = "") -> Iterator[Phase]:
        """Time a step and keep its outcome; set ``.outcome = "cached"`` on a cache hit."""
        self.check()
        self.say(name, line)
        step = Phase(name, 0.0)
        self.record.phases.append(step)
        began = time.monotonic()
        try:
            yield step
        except NodeFailed:
            step.outcome = "failed"
            raise
        except BaseException:
            step.outcome = "error"
            raise
        finally:
            step.seconds = time.monotonic() - began


class Running(Protocol):
    """A node that is up. Its methods are called from one thread at a time."""

    @property
    def transport(self) -> Transport:
        """The channel to the node; the pool relays the workers' calls over it."""

    @property
    def expect(self) -> Mapping[str, Any]:
        """What the lab knows and the node must agree with (ca_sha256, boot_kernel, ...)."""

    @property
    def simulated(self) -> bool:
        """True when the evidence comes from a double."""

    def exercise(self) -> None:
        """Provoke what facts shall hold: the controls, the egress probes, the canary search.

        Called after a sabotage was applied and before facts are collected.
        """

    def ledger(self) -> dict[str, Any]:
        """Requests the proxy saw and packets that tried another way out; JSON-able."""

    def symptom(self) -> str:
        """What the scenario's symptom script prints on the node; empty without one."""

    def keep_evidence(self, capsule: Path) -> None:
        """Put the serial console, the journal and the proxy's log into the capsule."""

    def down(self) -> None:
        """End the node and everything made for it. May be called twice; does not raise."""


class Provider(Protocol):
    """Makes nodes of one kind. One object per run, shared by the threads of all cells."""

    name: str

    def reasons_not(self, cell: Cell) -> list[str]:
        """Why this machine cannot run the cell, as sentences. Empty: it can. Cheap (plan)."""

    def offers(self) -> Offer:
        """What can be made here, for what cells require (see harness.requirements). Cheap."""

    def inputs(self, cell: Cell) -> Mapping[str, Any] | None:
        """Everything that a node of this cell is made of, JSON-able, as a part of a result's key.

        None if that is not known, or not yet: then no earlier result can stand for the cell.
        """

    def refusal(self, cell: Cell) -> Refusal | None:
        """Why the cell must be refused; asked before anything is fetched or built."""

    def needs(self, cell: Cell) -> Needs:
        """Memory and cores the cell takes while it is up."""

    def minutes(self, cell: Cell) -> float:
        """Estimated minutes for the cell, with what is cached now."""

    def up(self, job: Job) -> Running:
        """Make the node and return when it is ready. Whoever raises leaves nothing behind."""

    def close(self) -> None:
        """End what is shared by the cells of a run (a signer, a proxy). May be called twice."""
