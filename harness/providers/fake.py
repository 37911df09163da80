"""Nodes from data, able to misbehave: what the harness's own tests run on. Always simulated.

``AIRLOCK_FAKE`` names a TOML file with a table per cell id (``"*"`` for all others)::

    ["debian-12+proxy-intercept+driver"]
    behaviour = "slow"        # see BEHAVIOURS
    seconds = 2.0             # how long it takes to come up
    serial = ["a line"]       # what its console says besides
    pause = "boot"            # the stage that it does not come out of, see STAGES
    [ "debian-12+proxy-intercept+driver".facts ]
    "secure_boot.enabled" = false
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from harness.catalog import check_keys, read_toml
from harness.cells import Cell
from harness.errors import InfraError, UsageError
from harness.names import nearest
from harness.providers.base import Job, Needs, NodeFailed, Refusal, Refused
from harness.refusals import known_refusal
from harness.requirements import ANYTHING, Offer
from harness.transports.base import AgentOperations, NodeGone, RemoteError

BEHAVIOURS = {
    "ok": "comes up and answers",
    "error": "the lab cannot make it",
    "bug": "the provider itself breaks",
    "never-ready": "boots and never says that it is ready",
    "install-fails": "an installer fails",
    "refuses": "an installer refuses",
    "dies": "answers once, with its facts, and is then gone",
    "stale": "answers with the facts of an earlier exchange",
}
#: Where ``pause`` stops a cell for a minute, so that the harness can be killed there.
STAGES = ("build", "boot", "facts", "symptom", "end")
PAUSE = 60.0
KEYS = (
    "behaviour",
    "seconds",
    "minutes",
    "facts",
    "memory_mb",
    "disk_mb",
    "child",
    "serial",
    "pause",
)


class Fake:
    """The provider. One script for all cells of a run."""

    name = "fake"

    def __init__(self) -> None:
        path = os.environ.get("AIRLOCK_FAKE")
        self._script = _read_script(Path(path)) if path else {}

    def reasons_not(self, cell: Cell) -> list[str]:
        """A fake node can be made anywhere."""
        del cell
        return []

    def offers(self) -> Offer:
        """Whatever is asked for: it is data."""
        return ANYTHING

    def inputs(self, cell: Cell) -> None:
        """Unknown: what a double says never stands for anything."""
        del cell

    def refusal(self, cell: Cell) -> Refusal | None:
        """The refusals that are known from data."""
        return known_refusal(cell)

    def needs(self, cell: Cell) -> Needs:
        """Next to nothing, unless the script says otherwise."""
        script = self._of(cell)
        return Needs(script.get("memory_mb", 1), cores=0, disk_mb=script.get("disk_mb", 0))

    def minutes(self, cell: Cell) -> float:
        """What the script says: an estimate of its own, or the time that it takes."""
        script = self._of(cell)
        return float(script.get("minutes", script.get("seconds", 0.0) / 60))

    def up(self, job: Job) -> FakeRunning:
        """Take the scripted time, then behave as scripted. Whoever raises leaves nothing behind."""
        script = self._of(job.cell)
        child = _child(job) if script.get("child") else None
        try:
            return self._made(job, script, child)
        except BaseException:
            _end(child)
            raise

    def _made(
        self, job: Job, script: Mapping[str, Any], child: subprocess.Popen[bytes] | None
    ) -> FakeRunning:
        behaviour = script.get("behaviour", "ok")
        serial = job.capsule / "serial.log"
        pause = script.get("pause", "")
        with job.phase("build", "pretending to build"):
            _pause(job.capsule, "build", pause)
            if behaviour == "refuses":
                raise Refused(Refusal("fake.refusal", "the fake refuses", "choose another"))
            if behaviour == "install-fails":
                raise NodeFailed("the fake driver does not build", cause="fake")
            if behaviour == "error":
                raise InfraError("the fake lab is broken", hint="nothing to mend")
            if behaviour == "bug":
                raise ZeroDivisionError("a bug in the fake provider")
        with job.phase("boot", "pretending to boot"):
            said = ["fake firmware", *script.get("serial", ()), "fake kernel: Linux version 0.0"]
            serial.write_text("\n".join(said) + "\n")
            _pause(job.capsule, "boot", pause)
            deadline = time.monotonic() + float(script.get("seconds", 0.0))
            while time.monotonic() < deadline:
                job.check()
                time.sleep(0.02)
            if behaviour == "never-ready":
                tail = serial.read_text().splitlines()[-1]
                raise InfraError(f"the node never became ready; its console ends: {tail}")
        good = _good()
        facts = good["facts"]
        for path, value in script.get("facts", {}).items():
            _set(facts, path, value)
        job.record.provenance["kernel"] = facts["kernel"]["release"]
        transport = FakeTransport(facts, behaviour)
        return FakeRunning(good, transport, child, lambda at: _pause(job.capsule, at, pause))

    def close(self) -> None:
        """Nothing is shared."""

    def _of(self, cell: Cell) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self._script.get(cell.id, self._script.get("*", {}))
        return found


class FakeTransport(AgentOperations):
    """Answers from data."""

    name = "fake"

    def __init__(self, facts: dict[str, Any], behaviour: str) -> None:
        self._facts = facts
        self._behaviour = behaviour
        self._alive = True

    def call(self, op: str, *, timeout: float, **args: Any) -> Any:
        """``facts`` and ``ping``; a fake node has no shell."""
        del timeout
        if not self._alive:
            raise NodeGone("the fake node is gone")
        if op == "ping":
            return {}
        if op == "facts":
            self._alive = self._behaviour != "dies"
            nonce = "stale" if self._behaviour == "stale" else args.get("nonce")
            return {**self._facts, "nonce": nonce, "clock": time.time()}
        raise RemoteError(f"a fake node cannot do {op!r}")

    def close(self) -> None:
        """Nothing is open."""


class FakeRunning:
    """A node made of data."""

    simulated = True

    def __init__(
        self,
        good: Mapping[str, Any],
        transport: FakeTransport,
        child: subprocess.Popen[bytes] | None,
        reached: Callable[[str], None],
    ) -> None:
        self._reached = reached
        self._child = child
        self._ledger: dict[str, Any] = good["ledger"]
        self.transport = transport
        self.expect: Mapping[str, Any] = good["expect"]

    def exercise(self) -> None:
        """The facts hold the answers already."""
        self._reached("facts")

    def ledger(self) -> dict[str, Any]:
        """A good ledger."""
        return self._ledger

    def symptom(self) -> str:
        """A fake node shows none."""
        self._reached("symptom")
        return ""

    def keep_evidence(self, capsule: Path) -> None:
        """The serial console is there already."""
        del capsule
        self._reached("end")

    def down(self) -> None:
        """End the child, if there is one."""
        _end(self._child)
        self._child = None


def _child(job: Job) -> subprocess.Popen[bytes]:
    """Stands for what a real provider starts, so that its end can be watched."""
    null = subprocess.DEVNULL
    child = subprocess.Popen(["sleep", "600"], stdin=null, stdout=null, stderr=null)
    job.owned.process(child.pid, "sleep")
    (job.capsule / "child.pid").write_text(str(child.pid))
    return child


def _end(child: subprocess.Popen[bytes] | None) -> None:
    if child:
        child.kill()
        child.wait()


def _good() -> dict[str, Any]:
    """A node on which every check that ships passes or does not apply."""
    data: dict[str, Any] = json.loads(_good_text())
    return data


@cache
def _good_text() -> bytes:
    return Path(__file__).with_name("fake_node.json").read_bytes()


def _pause(capsule: Path, stage: str, script: str) -> None:
    if stage == script:
        (capsule / f"paused-{stage}").touch()
        time.sleep(PAUSE)


def _set(facts: dict[str, Any], path: str, value: Any) -> None:
    *above, last = path.split(".")
    for step in above:
        facts = facts[step]
    facts[last] = value


def _read_script(path: Path) -> dict[str, Any]:
    text, script = read_toml(path)
    for name, table in script.items():
        check_keys(path, text, table, KEYS, f'["{name}"]')
        behaviour = table.get("behaviour", "ok")
        if behaviour not in BEHAVIOURS:
            raise UsageError(
                f"{path}: unknown behaviour {behaviour!r}", hint=nearest(behaviour, BEHAVIOURS)
            )
        if (stage := table.get("pause", "boot")) not in STAGES:
            raise UsageError(f"{path}: unknown stage {stage!r}", hint=nearest(stage, STAGES))
    return script
