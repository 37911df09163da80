"""Stopped, killed, two at once: what is left behind, and what the report says."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from tests.unit.core.workbench import AUTH, BOOKWORM, TRIXIE, Bench, outcomes

SECONDS = 60


def wait_for(what: Callable[[], object], seconds: float = SECONDS) -> None:
    """Wait until ``what`` is true."""
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


def alive(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def child_of(bench: Bench, cell: str) -> int:
    """The process that the fake provider started for a cell; waits for it."""
    pattern = f"out/*/cells/{cell}/child.pid"

    def found() -> list[str]:
        return [text for path in bench.path.glob(pattern) if (text := path.read_text())]

    wait_for(found)
    return int(found()[0])


def belongs_to(run: str) -> list[int]:
    """Processes that carry a run's mark."""
    found = []
    for proc in Path("/proc").iterdir():
        try:
            if proc.name.isdigit() and f"AIRLOCK_RUN={run}".encode() in (
                proc / "environ"
            ).read_bytes().split(b"\0"):
                found.append(int(proc.name))
        except OSError:
            continue
    return found


def test_ctrl_c_stops_in_order_and_reports_what_ran(bench: Bench) -> None:
    long = f'["{TRIXIE}"]\nseconds = 60\nchild = true\n'
    bench.script.write_text(f'["{BOOKWORM}"]\nminutes = 2\n{long}')
    process = bench.start_run("-n", "1", "-k", "proxy-intercept")
    child = child_of(bench, TRIXIE)
    run = bench.leftovers()[0]
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=SECONDS)
    assert process.returncode == 3, output
    assert "stopping in order" in output
    assert bench.cell(BOOKWORM).verdict == "pass"
    stopped = bench.cell(TRIXIE)
    assert stopped.verdict in ("not-run", "error")
    assert "stopped" in stopped.reason
    assert set(outcomes(stopped).values()) <= {"error", "skip"}
    assert bench.report().run.finished is None
    assert not alive(child)
    assert bench.leftovers() == []
    assert belongs_to(run) == []


def test_ctrl_c_during_a_check_ends_it(bench: Bench) -> None:
    process = bench.start_run("--scenario", "proxy-auth+rebooted", SLOW_CHECK="60")
    wait_for(bench.slow_began.exists)
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=SECONDS)
    assert process.returncode == 3, output
    assert time.monotonic() - began < 40
    found = outcomes(bench.cell(AUTH))
    assert found["small.zz-last"] == "error"
    assert "pass" in found.values()
    assert bench.cell(AUTH).verdict == "error"
    assert bench.leftovers() == []


def test_ctrl_c_twice_ends_at_once(bench: Bench) -> None:
    process = bench.start_run("--scenario", "proxy-auth+rebooted", SLOW_CHECK="60")
    wait_for(bench.slow_began.exists)
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=SECONDS)
    assert time.monotonic() - began < 8, output
    assert process.returncode == 3, output
    assert bench.cell(AUTH).verdict == "error"
    assert bench.leftovers() == []


def test_a_run_after_kill_9_cleans_up_what_it_finds(bench: Bench) -> None:
    bench.script.write_text('["*"]\nseconds = 60\nchild = true\n')
    process = bench.start_run("--scenario", "proxy-auth+rebooted")
    child = child_of(bench, AUTH)
    dead = bench.leftovers()[0]
    os.kill(process.pid, signal.SIGKILL)
    # Not communicate(): what outlives the run holds its output open.
    process.wait(timeout=SECONDS)
    assert alive(child)
    assert len(belongs_to(dead)) > 1, "pytest and its workers outlive the run"

    bench.script.write_text("")
    status, output = bench.run("--scenario", "proxy-auth+rebooted")
    assert status == 0, output
    assert f"process {child} (sleep)" in output
    assert not alive(child)
    assert belongs_to(dead) == []
    assert bench.leftovers() == []


def test_two_runs_side_by_side_do_not_collide(bench: Bench) -> None:
    bench.script.write_text('["*"]\nseconds = 2\nchild = true\n')
    first = bench.start_run("--scenario", "proxy-auth+rebooted")
    second = bench.start_run("--image", "debian-13")
    for process in (first, second):
        output, _ = process.communicate(timeout=SECONDS)
        assert process.returncode == 0, output
        assert "killed" not in output, "one took the other for dead"
    runs = sorted(path for path in (bench.path / "out").iterdir() if not path.is_symlink())
    assert len(runs) == 2
    assert {cell.id for run in runs for cell in bench.report(run.name).cells} == {AUTH, TRIXIE}
    assert (bench.path / "out" / "latest").resolve() in runs
    assert bench.leftovers() == []
