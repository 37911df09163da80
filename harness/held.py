"""Nodes by hand, as the command sees them: who is up, and a line to the process that holds each.

A held node is a run of one cell that stays (``harness.holder``). Its record in the state directory
has a lock that the holder keeps for as long as it lives, so a sweep lets it be; when the holder is
killed, the next sweep ends what it left, as with any run.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness.broker import Client
from harness.errors import AirlockError, InfraError
from harness.remote import BrokerTransport
from harness.run import pytest_environment
from harness.state import MARKER, boot_id, claimed, started_at, state_dir
from harness.sweep import sweep
from installers.exits import Exit

#: A record's file that says that it is a node, and which.
NODE = "node.json"
#: Seconds that a node gets to end by itself.
ENDING = 30.0


@dataclass(frozen=True)
class Order:
    """What a holder is asked for. ``name`` is the node's, the others name what the catalog has.

    ``matrix`` is the matrix beside which a user's own images and profiles are. ``resume`` is a
    saved node (a directory or a tar file) instead of a new one.
    """

    name: str
    image: str
    scenario: str
    profile: str
    provider: str
    matrix: str
    boot_anew: bool = False
    resume: str = ""


@dataclass(frozen=True)
class Held:
    """A node that is up, or being made (then ``socket`` is empty). ``pid`` is its holder's."""

    name: str
    cell: str
    provider: str
    pid: int
    start: int
    boot: str
    since: float
    socket: str
    record: Path

    @property
    def up(self) -> bool:
        """Whether it is ready."""
        return bool(self.socket)

    @property
    def state(self) -> str:
        """Since when it is up; for people."""
        return f"up since {int(time.time() - self.since) // 60} min" if self.up else "being made"

    def door(self) -> dict[str, Any]:
        """A way in for people; see ``harness.lab.door``."""
        found: dict[str, Any] = self.ask("ssh")
        return found

    def ask(self, do: str, **values: Any) -> Any:
        """One request to the holder; see ``harness.holder``."""
        if not self.up:
            raise InfraError(f"{self.name} is still being made", hint="airlock node list")
        client = Client(self.socket)
        try:
            return client.ask(do, **values)
        finally:
            client.close()

    @contextlib.contextmanager
    def transport(self) -> Any:
        """A transport to the node, relayed by its holder."""
        if not self.up:
            raise InfraError(f"{self.name} is still being made", hint="airlock node list")
        client = Client(self.socket)
        try:
            yield BrokerTransport(client, self.name)
        finally:
            client.close()

    def end(self) -> None:
        """End the node and everything made for it; returns when it is gone."""
        self._signal(signal.SIGTERM)
        if not self._gone(ENDING):
            self._signal(signal.SIGKILL)
            self._gone(5)
        swept = sweep()
        if swept.refused or self.record.exists():
            left = ", ".join(swept.refused) or str(self.record)
            raise InfraError(f"{self.name}: left behind: {left}", hint="airlock node down again")

    def _alive(self) -> bool:
        return self.boot == boot_id() and started_at(self.pid) == self.start

    def _signal(self, number: signal.Signals) -> None:
        if self._alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def _gone(self, seconds: float) -> bool:
        patience = time.monotonic() + seconds
        while self._alive():
            if time.monotonic() > patience:
                return False
            time.sleep(0.05)
        return True


def listed() -> list[Held]:
    """The nodes whose holders live, oldest first."""
    found = []
    for path in sorted((state_dir() / "runs").glob(f"*/{NODE}")):
        try:
            said = json.loads(path.read_text())
            with (path.parent / "lock").open("r+") as lock:
                if not claimed(lock):
                    found.append(Held(**said, record=path.parent))
        except (OSError, ValueError):
            continue
    return sorted(found, key=lambda held: held.since)


def start(order: Order, say: Callable[[str, str], None]) -> Held:
    """Start a holder and wait until its node is up; ``say(phase, line)`` hears how far it is.

    Raises what the holder raised. An interruption ends the holder, and with it the node.
    """
    environment = pytest_environment()
    environment.pop(MARKER, None)  # the holder is a run of its own, whoever starts it
    holder = subprocess.Popen(
        [sys.executable, "-m", "harness.holder"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
        text=True,
        start_new_session=True,
    )
    if holder.stdin is None or holder.stdout is None:
        raise InfraError("the holder has no pipes")
    try:
        with holder.stdin as words:
            words.write(json.dumps(asdict(order)))
        for line in holder.stdout:
            said = json.loads(line)
            if "error" in said:
                raise _error(said)
            if "up" in said:
                return next(node for node in listed() if node.name == order.name)
            say(said["phase"], said["line"])
    except BaseException:
        holder.terminate()
        try:
            holder.wait(ENDING)
        except subprocess.TimeoutExpired:  # deep in a build, which looks up seldom
            holder.kill()
            holder.wait()
            sweep()
        raise
    finally:
        holder.stdout.close()
    raise InfraError(f"the holder ended with {holder.wait()} and said nothing")


def _error(said: dict[str, Any]) -> AirlockError:
    error = AirlockError(said["error"], hint=said["hint"])
    error.exit = Exit(said["exit"])
    return error
