"""What the core's tests share: a private place to run ``airlock`` in, and small checks to run."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from reports.model import Cell, Report
from reports.read import read_report

REPOSITORY = Path(__file__).resolve().parents[3]

CHECKS = """
import os, signal, time
from pathlib import Path
from harness.checks import check, fact, fail

@check(id="small.kernel", severity="blocker", title="It has a kernel", remedy="boot it")
def test_kernel(node):
    assert fact(node, "kernel.release")

@check(id="small.os", severity="major", title="It is Debian", remedy="install it")
def test_os(node):
    if fact(node, "os.id") != "debian":
        fail("it is no Debian", evidence=[fact(node, "os.id")])

@check(id="small.ping", severity="major", title="It answers", remedy="wake it", since="2026-11-22")
def test_ping(node):
    node.transport.call("ping", timeout=5)

@check(id="small.slow", severity="minor", title="It takes its time", remedy="wait")
def test_slow(node):
    if "SLOW_CHECK" in os.environ:
        Path(os.environ["SLOW_BEGAN"]).touch()
        time.sleep(float(os.environ["SLOW_CHECK"]))

@check(id="small.worker", severity="minor", title="Its worker lives", remedy="do not kill it")
def test_worker(node):
    if os.environ.get("KILL_WORKER_ON") == node.name:
        os.kill(os.getpid(), signal.SIGKILL)

@check(id="small.zz-last", severity="minor", title="It is the last", remedy="none")
def test_zz_last(node):
    assert node.cell.provider
"""
IDS = [
    "small.kernel",
    "small.os",
    "small.ping",
    "small.slow",
    "small.worker",
    "small.zz-last",
]

BOOKWORM = "debian-12+proxy-intercept+full"
TRIXIE = "debian-13+proxy-intercept+full"
AUTH = "debian-12+proxy-auth+rebooted+full"
BULLSEYE = "debian-11+proxy-intercept+full"


class Bench:
    """A directory of its own: state, checks, matrix, script of the fake provider."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.state = path / "state"
        self.checks = path / "checks"
        (self.checks / "small").mkdir(parents=True)
        (self.checks / "small" / "test_small.py").write_text(CHECKS)
        self.script = path / "fake.toml"
        self.script.write_text("")

    def environment(self, **more: str) -> Mapping[str, str]:
        """The child's environment."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST_", "AIRLOCK_"))}
        return {
            **kept,
            "AIRLOCK_STATE": str(self.state),
            "AIRLOCK_FAKE": str(self.script),
            "PYTHONPATH": str(REPOSITORY),
            "COLUMNS": "200",
            **more,
        }

    def start(
        self, *words: str, stdin: int = subprocess.DEVNULL, **environment: str
    ) -> subprocess.Popen[str]:
        """``airlock WORDS`` as a process of its own, in a session of its own."""
        return subprocess.Popen(
            [sys.executable, "-m", "harness.cli", *words],
            cwd=self.path,
            env=self.environment(SLOW_BEGAN=str(self.slow_began), **environment),
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    @property
    def slow_began(self) -> Path:
        """Is there once the check that SLOW_CHECK makes slow has begun."""
        return self.path / "slow-began"

    def start_run(self, *words: str, **environment: str) -> subprocess.Popen[str]:
        """``airlock run`` on the fake provider with the small checks."""
        fixed = ("run", "--provider", "fake", "--checks", str(self.checks))
        return self.start(*fixed, *words, stdin=subprocess.DEVNULL, **environment)

    def run(self, *words: str, **environment: str) -> tuple[int, str]:
        """The same, to its end: exit status and output."""
        process = self.start_run(*words, **environment)
        output, _ = process.communicate(timeout=120)
        return process.returncode, output

    def report(self, run: str = "latest") -> Report:
        """The report of a run."""
        return read_report(self.path / "out" / run)

    def cell(self, name: str) -> Cell:
        """One cell of the latest report."""
        return next(cell for cell in self.report().cells if cell.id == name)

    def leftovers(self) -> list[str]:
        """What of runs is still in the state directory."""
        runs = self.state / "runs"
        return [path.name for path in runs.iterdir()] if runs.is_dir() else []


def outcomes(cell: Cell) -> dict[str, str]:
    """Check id -> outcome."""
    return {check.id: check.outcome for check in cell.checks}
