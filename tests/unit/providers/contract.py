"""What every provider owes the harness (harness.providers.base), asked of a kit of each.

A kit says how to get a node of its provider that comes up, and how to make ``up`` go wrong in each
of the ways that have a verdict of their own. The rules are ``Contract``; whoever inherits from it
and has a fixture ``kit`` runs them all.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from harness.admission import Admission
from harness.cells import Cell
from harness.pool import Pool
from harness.providers.base import Job, Needs, NodeFailed, Provider, Refused, Running, Stopped
from harness.requirements import Offer
from harness.state import RunRecord
from harness.station import Unavailable
from harness.sweep import _processes, end_children, sweep
from harness.transports.base import Transport

#: How ``up`` may end, the kind that the pool makes of it, and the exception that says so.
ENDINGS: Mapping[str, tuple[str, type[Exception]]] = {
    "lab": ("error", Exception),
    "node": ("failed", NodeFailed),
    "refused": ("refused", Refused),
}
#: Seconds after which a stopped ``up`` has said so.
SOON = 20.0


class Kit:
    """One provider under test. Override what it has."""

    #: Whether nodes are doubles.
    simulated = False

    def provider(self) -> Provider:
        """A new one, as the registry makes it."""
        raise NotImplementedError

    def cell(self) -> Cell:
        """One whose node comes up."""
        raise NotImplementedError

    def bad(self, ending: str) -> Cell | None:
        """One whose ``up`` ends as ENDINGS say; None where this provider has no such end."""
        del ending
        return None

    def slow(self) -> Cell | None:
        """One whose ``up`` takes long, to be stopped in it."""
        return None

    def refused(self) -> Cell | None:
        """One that ``refusal`` refuses."""
        return None

    def impossible(self) -> Cell | None:
        """One that ``reasons_not`` says cannot be made here."""
        return None

    def close(self) -> None:
        """The test is over."""

    def outside(self) -> list[str]:
        """What there is of nodes besides processes and files of the run; empty when all is over."""
        return []


class Bench:
    """A run, and what is left of it."""

    def __init__(self, record: RunRecord, kit: Kit) -> None:
        self.record = record
        self.kit = kit
        self.provider = kit.provider()
        self._before = self._processes()

    def job(self, cell: Cell, name: str = "job") -> Job:
        """One attempt, with its directories."""
        capsule, scratch = self.record.path / "capsules" / name, self.record.scratch / name
        capsule.mkdir(parents=True)
        scratch.mkdir(mode=0o700)
        return Job(cell, capsule, scratch, lambda *_: None, self.record.owned.of(cell.id))

    def pool(self, cell: Cell) -> Pool:
        """A pool of this one cell."""
        return Pool(
            [cell],
            {cell.provider: self.provider},
            self.record,
            self.record.path / "pool-capsules",
            admission=Admission(1 << 20, 64),
        )

    def left(self) -> list[str]:
        """What lives on: processes, mounts and paths that are registered, and what is outside."""
        # What was killed has a moment to go.
        until = time.monotonic() + 5
        while (alive := self._processes() - self._before) and time.monotonic() < until:
            time.sleep(0.05)
        found = [f"process {pid}" for pid in alive]
        for entry in self.record.owned.entries():
            path = Path(entry.get("path", "/nonexistent"))
            scratch = path.is_relative_to(self.record.scratch)  # the pool removes it as a whole
            if (path.exists() or path.is_symlink()) and not scratch:
                found.append(str(path))
        return found + self.kit.outside()

    def _processes(self) -> set[int]:
        return set(_processes(self.record.id, self.record.owned.entries()))


def is_data(value: object) -> bool:
    """Whether it can be written into a report and read again as it was."""
    return bool(json.loads(json.dumps(value)) == value)


class Contract:
    """The rules. ``kit`` and ``record`` are fixtures of whoever inherits."""

    @pytest.fixture
    def bench(self, kit: Kit, record: RunRecord) -> Any:
        """A run of the kit's provider; whatever a test does, the provider is closed."""
        found = Bench(record, kit)
        yield found
        found.provider.close()

    def test_it_answers_for_a_plan_and_makes_nothing(self, bench: Bench) -> None:
        cell = bench.kit.cell()
        assert bench.provider.name == cell.provider
        assert bench.provider.reasons_not(cell) == []
        assert bench.provider.refusal(cell) is None
        assert isinstance(bench.provider.offers(), Offer)
        needs = bench.provider.needs(cell)
        assert isinstance(needs, Needs)
        assert min(needs.memory_mb, needs.cores, needs.disk_mb) >= 0
        assert bench.provider.minutes(cell) >= 0
        inputs = bench.provider.inputs(cell)
        assert inputs is None or is_data(dict(inputs))
        assert bench.left() == []
        bench.provider.close()
        bench.provider.close()

    def test_it_says_what_it_cannot_and_must_not_make(self, bench: Bench) -> None:
        if cell := bench.kit.refused():
            refusal = bench.provider.refusal(cell)
            assert refusal is not None
            assert refusal.code
            assert refusal.reason
            assert refusal.remedy
        if cell := bench.kit.impossible():
            reasons = bench.provider.reasons_not(cell)
            assert reasons
            assert all(reason.strip() for reason in reasons)
        assert bench.left() == []

    def test_a_node_from_up_to_down(self, bench: Bench) -> None:
        job = bench.job(bench.kit.cell())
        running = bench.provider.up(job)
        try:
            self._serves(running, bench.kit, job.capsule)
        finally:
            running.down()
        assert bench.left() == []
        running.down()  # a second time, and it does not raise
        bench.provider.close()
        assert bench.left() == []
        assert job.record.phases
        assert {phase.outcome for phase in job.record.phases} <= {"ok", "cached"}
        assert all(phase.seconds >= 0 for phase in job.record.phases)
        assert is_data(job.record.provenance)
        assert is_data(job.record.installers)
        assert is_data(job.record.build)

    def _serves(self, running: Running, kit: Kit, capsule: Path) -> None:
        assert running.simulated is kit.simulated
        assert isinstance(running.transport, Transport)
        assert isinstance(running.expect, Mapping)
        assert is_data(dict(running.expect))
        running.exercise()
        for nonce in ("one", "two"):
            facts = running.transport.facts(nonce, timeout=120)
            assert facts["nonce"] == nonce, "an answer to this question"
        assert is_data(facts)
        assert is_data(running.ledger())
        assert isinstance(running.symptom(), str)
        running.keep_evidence(capsule)
        assert running.transport.facts("three", timeout=120)["nonce"] == "three", "still there"

    @pytest.mark.parametrize("ending", list(ENDINGS))
    def test_each_end_has_its_exception_its_verdict_and_leaves_nothing(
        self, bench: Bench, ending: str
    ) -> None:
        cell = bench.kit.bad(ending)
        if cell is None:
            pytest.skip(f"{bench.provider.name} has no such end")
        kind, exception = ENDINGS[ending]
        job = bench.job(cell)
        with pytest.raises(exception) as caught:
            bench.provider.up(job)
        if ending == "lab":
            assert not isinstance(caught.value, (Refused, NodeFailed)), "the lab's fault, not its"
        assert str(caught.value).strip(), "it says what"
        assert bench.left() == []
        pool = bench.pool(cell)
        with pytest.raises(Unavailable) as told:
            pool.acquire(cell.id)
        assert told.value.kind == kind
        pool.close()
        assert bench.left() == []
        assert list(bench.record.scratch.iterdir()) == [job.scratch]

    def test_what_is_stopped_before_it_begins_makes_nothing(self, bench: Bench) -> None:
        job = bench.job(bench.kit.cell())
        job.stopping.set()
        with pytest.raises(Stopped):
            bench.provider.up(job)
        assert bench.left() == []

    def test_what_is_stopped_on_the_way_ends_soon_and_leaves_nothing(self, bench: Bench) -> None:
        cell = bench.kit.slow()
        if cell is None:
            pytest.skip(f"nothing of {bench.provider.name} takes long here")
        job = bench.job(cell)
        threading.Timer(0.5, job.stopping.set).start()
        began = time.monotonic()
        with pytest.raises(Stopped):
            bench.provider.up(job)
        assert time.monotonic() - began < SOON
        assert bench.left() == []

    def test_what_a_killed_run_leaves_is_found_and_ended(self, bench: Bench, kit: Kit) -> None:
        """By its ledger, by its mark, or because it ends when nobody speaks to it any more."""
        told, tell = os.pipe()
        child = os.fork()
        if not child:
            try:
                record = RunRecord()
                record.__enter__()
                running = Bench(record, kit)
                running.provider.up(running.job(kit.cell()))
                os.write(tell, record.id.encode())
            except BaseException as error:
                os.write(tell, repr(error).encode())
            os.kill(os.getpid(), signal.SIGKILL)
        os.close(tell)
        os.waitpid(child, 0)
        with os.fdopen(told) as heard:
            name = heard.read()
        swept = sweep()
        assert name in swept.runs
        assert swept.refused == []
        assert end_children(name, bench.record.owned) == []
        assert bench.left() == []
