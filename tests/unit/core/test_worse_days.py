"""Killed in every stage, a full disk, a node that hangs: never a failed check, nothing left."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from harness import pool as pools
from harness.admission import Admission
from harness.errors import InfraError
from harness.pool import Pool
from harness.providers.base import Job, Keep, Options
from harness.providers.fake import STAGES, Fake, FakeRunning
from harness.state import RunRecord
from harness.station import Unavailable
from harness.transports.agent import AgentTransport
from tests.unit.core.test_bad_days import SECONDS, alive, belongs_to, wait_for
from tests.unit.core.test_pool import cell
from tests.unit.core.workbench import AUTH, Bench, outcomes


# A run asks no node for its symptom.
@pytest.mark.parametrize("stage", [*sorted({*STAGES} - {"symptom"}), "checks"])
def test_killed_in_any_stage_the_next_run_cleans_up(bench: Bench, stage: str) -> None:
    pause = "" if stage == "checks" else f'pause = "{stage}"\n'
    bench.script.write_text(f'["{AUTH}"]\nchild = true\n{pause}')
    slow = {"SLOW_CHECK": "60"} if stage == "checks" else {}
    process = bench.start_run("--scenario", "proxy-auth+rebooted", **slow)
    mark = "facts.json" if stage == "checks" else f"paused-{stage}"
    wait_for(lambda: list(bench.path.glob(f"out/*/cells/{AUTH}/{mark}")))
    (dead,) = bench.leftovers()
    child = int(next(bench.path.glob(f"out/*/cells/{AUTH}/child.pid")).read_text())
    os.kill(process.pid, signal.SIGKILL)
    process.wait(timeout=SECONDS)
    assert not (bench.path / "out" / "latest").exists(), "no report, no verdict"

    bench.script.write_text("")
    status, output = bench.run("--scenario", "proxy-auth+rebooted")
    assert status == 0, output
    assert not alive(child)
    assert belongs_to(dead) == []
    assert bench.leftovers() == []
    assert "fail" not in outcomes(bench.cell(AUTH)).values()


def tiny(megabytes: int) -> list[str]:
    """Words before a command that give it a full-size view with a tiny disk at ./small."""
    mount = f'mount -t tmpfs -o size={megabytes}m none small && exec "$@"'
    words = ["unshare", "--map-root-user", "--mount", "sh", "-c", mount, "sh"]
    if os.geteuid() == 0:
        words.remove("--map-root-user")
    return words


def on_a_tiny_disk(
    bench: Bench, megabytes: int, *words: str, **environment: str
) -> tuple[int, str]:
    """A run in a mount namespace of its own; exit status, output and what the report says."""
    (bench.path / "small").mkdir()
    command = [sys.executable, "-m", "harness.cli", "run", "--provider", "fake"]
    command += ["--checks", str(bench.checks), "--scenario", "proxy-auth+rebooted", *words]
    copy = '"$@"; code=$?; cp -r small/out kept 2>/dev/null; exit $code'
    done = subprocess.run(
        [*tiny(megabytes), "sh", "-c", copy, "sh", *command],
        cwd=bench.path,
        env=bench.environment(**environment),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=2 * SECONDS,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_a_disk_too_small_for_a_capsule_is_told_before_the_cell_begins(bench: Bench) -> None:
    status, output = on_a_tiny_disk(bench, 20, "--out", "small/out")
    assert status == 3, output
    assert "no space left for what a cell leaves behind" in output
    assert "failed" not in output
    assert bench.leftovers() == []


def test_a_disk_that_fills_up_during_the_checks_fails_none(bench: Bench) -> None:
    filler = bench.checks / "small" / "test_aa_fill.py"
    filler.write_text(
        "from pathlib import Path\nfrom harness.checks import check\n"
        "@check(id='small.fill', severity='minor', title='It fills', remedy='none')\n"
        "def test_fill(node):\n"
        "    try:\n"
        f"        with open('{bench.path}/small/ballast', 'wb', buffering=0) as out:\n"
        "            while True: out.write(b'0' * 65536)\n"
        "    except OSError: pass\n"
    )
    status, output = on_a_tiny_disk(bench, 80, "--out", "small/out")
    assert status == 3, output
    assert "No space left on device" in output
    assert "Traceback" not in output
    assert bench.leftovers() == []


def test_a_state_directory_without_room_is_an_error_and_no_verdict(bench: Bench) -> None:
    bench.script.write_text(f'["{AUTH}"]\ndisk_mb = 100\n')
    state = str(bench.path / "small" / "state")
    status, output = on_a_tiny_disk(bench, 60, AIRLOCK_STATE=state)
    assert status == 3, output
    found = bench.cell(AUTH)
    assert found.verdict == "error"
    assert "no space left for a machine's disk" in found.reason
    assert "fail" not in outcomes(found).values()


class Silent(Fake):
    """A node that accepts connections and says nothing, over the real channel."""

    def __init__(self, directory: Path, *, facts: bool) -> None:
        self._script = {}
        self._facts = facts
        self.door = socket.socket(socket.AF_UNIX)
        self.path = directory / "agent"
        self.door.bind(str(self.path))
        self.door.listen()
        self.held: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            self.held.append(self.door.accept()[0])

    def up(self, job: Job) -> FakeRunning:
        running = super().up(job)
        transport: Any = AgentTransport(self.path)
        if self._facts:
            known = running.transport
            transport.facts = known.facts
        running.transport = transport
        return running


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A run in a state directory of its own."""
    monkeypatch.setenv("AIRLOCK_STATE", str(tmp_path / "state"))
    with RunRecord() as record:
        yield record


def test_a_node_that_hangs_before_its_facts_is_an_error(
    run: RunRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pools, "FACTS_SECONDS", 0.5)
    provider = Silent(tmp_path, facts=False)
    pool = Pool([cell("a")], {"fake": provider}, run, run.path / "c", admission=Admission(9, 9))
    for _ in range(2):
        with pytest.raises(Unavailable, match=r"not done within 0.5 s") as caught:
            pool.acquire(cell("a").id)
        assert caught.value.kind == "error"
    pool.close()


def test_a_node_that_hangs_in_a_check_is_broken_from_then_on(
    run: RunRecord, tmp_path: Path
) -> None:
    provider = Silent(tmp_path, facts=True)
    pool = Pool([cell("a")], {"fake": provider}, run, run.path / "c", admission=Admission(9, 9))
    name = cell("a").id
    pool.acquire(name)
    with pytest.raises(InfraError, match=r"not done within 0\.5 s"):
        pool.call(name, "ping", 0.5, {})
    with pytest.raises(Unavailable) as caught:
        pool.acquire(name)
    assert caught.value.kind == "error"
    pool.close()


def test_a_kept_node_gives_way_when_nothing_else_does(run: RunRecord) -> None:
    class Large(Fake):
        def __init__(self) -> None:
            self._script = {"*": {"memory_mb": 60}}

    said: list[tuple[str, str]] = []
    pool = Pool(
        [cell("a"), cell("b")],
        {"fake": Large()},
        run,
        run.path / "c",
        options=Options(keep=Keep.ALWAYS),
        admission=Admission(100, 9),
        listener=lambda name, _, line: said.append((name, line)),
    )
    first, second = cell("a").id, cell("b").id
    pool.acquire(first)
    pool.release(first)
    assert [station.cell.id for station in pool.kept()] == [first]
    pool.acquire(second)
    assert pool.kept() == []
    assert (first, "not kept: another cell needs its room") in said
    pool.release(second)
    assert [station.cell.id for station in pool.kept()] == [second]
    pool.close()
