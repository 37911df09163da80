"""Nodes that stay up when the command that made them has ended, as data; and their holder.

A node lives on things of the process that made it: QEMU and the proxy end when the pipe to their
keeper closes, the metadata server is a thread. So that process stays, in the background: what
would be the run is a child from the beginning (:func:`hold`), and the command a parent that waits
for the child's word and takes its exit code. Nothing is handed over, and a holder is a live run
like any other: a sweep leaves it alone, and takes all of it if it was killed.

``AIRLOCK_STATE/kept/<name>.json`` says what is there. A record whose holder is gone is removed by
whoever reads it.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from harness.errors import InfraError
from harness.state import boot_id, private_dir, started_at, state_dir
from harness.transports.base import Transport
from installers.exits import Exit

if TYPE_CHECKING:
    from harness.broker import Client

#: Seconds that a node's end may take before its holder is killed.
END_SECONDS = 30.0
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


@dataclass(frozen=True)
class Process:
    """A process that cannot be mistaken for a later one: its start in clock ticks since boot."""

    pid: int
    start: int
    what: str = ""

    @property
    def alive(self) -> bool:
        """Whether it is still there."""
        return started_at(self.pid) == self.start


@dataclass(frozen=True)
class Kept:
    """One node that stays up.

    ``name`` is what people call it, ``cell`` its cell's id, ``run`` the id of the run that made it
    and whose marker and ledger its processes are in. ``socket`` is the broker's: every call to the
    node goes through it, since ``channel`` (the node's own socket, empty if it has none) serves
    one client at a time. ``since`` is an ISO date, ``why`` the verdict it was kept with, ``boot``
    the id of this machine's boot.
    """

    name: str
    cell: str
    image: str
    scenario: str
    profile: str
    provider: str
    run: str
    since: str
    why: str
    boot: str
    holder: Process
    processes: tuple[Process, ...]
    socket: str
    channel: str
    scratch: str
    capsule: str

    @property
    def alive(self) -> bool:
        """Whether its holder still serves it."""
        return self.boot == boot_id() and self.holder.alive

    @property
    def state(self) -> str:
        """Whose it is, and why; for people."""
        return f"kept by {self.run}: {self.why}"

    @contextlib.contextmanager
    def transport(self) -> Iterator[Transport]:
        """A way to ask the node; any number of them may be open. InfraError without an answer."""
        from harness.remote import BrokerTransport

        with self._client() as client:
            yield BrokerTransport(client, self.cell)

    def door(self) -> dict[str, Any]:
        """A way in for people; see ``harness.lab.door``."""
        with self._client() as client:
            found: dict[str, Any] = client.ask("ssh", cell=self.cell)
        return found

    def evidence(self) -> dict[str, Any]:
        """What the lab knows of it; see ``harness.capsules.lab``."""
        with self._client() as client:
            found: dict[str, Any] = client.ask("evidence", cell=self.cell)
        return found

    @contextlib.contextmanager
    def _client(self, **options: float) -> Iterator[Client]:
        from harness.broker import Client

        client = Client(self.socket, **options)
        try:
            yield client
        finally:
            client.close()

    def end(self) -> None:
        """End the node and everything made for it; returns when it is gone.

        A holder that does not do it in time is killed, with every node that it holds.
        """
        from harness.sweep import sweep

        deadline = time.monotonic() + END_SECONDS
        with contextlib.suppress(InfraError), self._client(timeout=END_SECONDS) as client:
            client.ask("end", cell=self.cell)
        held = (each for each in listing() if each.holder == self.holder)
        others = [each for each in held if each.name != self.name]
        while _path(self.name).exists() or (not others and self.holder.alive):
            if time.monotonic() > deadline:
                with contextlib.suppress(ProcessLookupError):
                    if self.holder.alive:
                        os.kill(self.holder.pid, signal.SIGKILL)
                while self.holder.alive:
                    time.sleep(0.02)
                break
            time.sleep(0.02)
        if not self.alive:
            forget(self.name)
            sweep()

    @property
    def way_in(self) -> str:
        """The command that gets a person in."""
        return f"airlock node ssh {self.name}"

    @property
    def way_out(self) -> str:
        """The command that ends it."""
        return f"airlock node down {self.name}"


def this_process(what: str) -> Process:
    """The calling process."""
    return Process(os.getpid(), started_at(os.getpid()) or 0, what)


def save(kept: Kept) -> None:
    """Write the record, whole or not at all."""
    directory = private_dir(_directory())
    partial = directory / f".{kept.name}.{os.getpid()}"
    partial.write_text(json.dumps(asdict(kept), indent=1) + "\n")
    partial.replace(directory / f"{kept.name}.json")


def listing() -> list[Kept]:
    """The nodes that are kept now, oldest first; records of holders that died are removed."""
    found = []
    for path, kept in _records():
        if kept.alive:
            found.append(kept)
        else:
            path.unlink(missing_ok=True)
    return sorted(found, key=lambda kept: kept.since)


def forget(name: str) -> None:
    """Remove a record."""
    _path(name).unlink(missing_ok=True)


def hold(work: Callable[[], tuple[int, Callable[[], None] | None]]) -> int:
    """Do ``work`` in a child that stays in the background if the work asks for it.

    ``work`` returns an exit code and, if something is to be held, a function that returns when
    nothing is any more. Returns the exit code, in the parent. In the child it returns (or raises)
    only if nothing is held: the caller goes on to the process's end as if it were the parent.

    While the work goes on parent and child are one: signals to either stop it in order, and a
    parent that is killed takes the child with it.
    """
    parent = os.getpid()
    ours, theirs = os.pipe2(os.O_CLOEXEC)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    child = os.fork()
    if child:
        os.close(theirs)
        return _parent(child, ours)
    os.close(ours)
    _die_with_parent(parent)
    code, holding = work()
    if holding is None:
        return code
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    _detach()
    os.write(theirs, bytes([code]))
    os.close(theirs)
    try:
        holding()
    finally:
        # Nobody waits for the exit code; above this is only what would print it.
        os._exit(0)


def _parent(child: int, ours: int) -> int:
    def forward(number: int, frame: FrameType | None) -> None:
        del frame
        os.kill(child, number)

    # Ctrl-C on a terminal reaches the child by itself.
    before = signal.signal(signal.SIGTERM, forward), signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        told = os.read(ours, 1)
        if told:
            return told[0]
        _, status = os.waitpid(child, 0)
        code = os.waitstatus_to_exitcode(status)
        return code if code >= 0 else Exit.UNKNOWN
    finally:
        os.close(ours)
        signal.signal(signal.SIGTERM, before[0])
        signal.signal(signal.SIGINT, before[1])


def _die_with_parent(parent: int) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it was killed before the line above
        os._exit(Exit.UNKNOWN)


def _detach() -> None:
    """Leave the terminal and the parent: from here on only SIGTERM and the nodes' end count."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, 0, 0, 0, 0)
    os.setsid()
    null = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(null, number)
    os.close(null)


def _directory() -> Path:
    return state_dir() / "kept"


def _path(name: str) -> Path:
    return _directory() / f"{name}.json"


def _records() -> Iterator[tuple[Path, Kept]]:
    for path in sorted(_directory().glob("*.json")):
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
            data = json.loads(path.read_text())
            data["holder"] = Process(**data["holder"])
            data["processes"] = tuple(Process(**each) for each in data["processes"])
            yield path, Kept(**data)
