"""What the harness costs a cell: matching, scheduling, broker, capsule and report.

10,000 cells of the fake provider with three checks each, against plain pytest running as many
parametrised tests that do nothing, on as many workers, in the same run.
"""

from __future__ import annotations

import os
import resource
import sys
import tempfile
from pathlib import Path

from bench.record import Measurement, against

SIZES = (2_500, 5_000, 10_000)
WORKERS = 2
LIMIT_MS = 5.0
LIMIT_MB = 400.0

_CHECKS = """
from harness.checks import check
"""
_CHECK = """
@check(id="noop.{0}", severity="minor", title="Nothing {0}", remedy="none")
def test_{0}(node):
    pass
"""
_PEER = """
import pytest

CELLS = [f"image-{{n:05}}+direct+nothing" for n in range({0})]
"""
_PEER_TEST = """
@pytest.mark.parametrize("node", CELLS, ids=[f"node={{cell}}" for cell in CELLS])
def test_{0}(node):
    pass
"""
_RUN = """
import sys
from pathlib import Path
from fixtures.scenarios import Scenario
from harness.cells import Cell, Image, Profile
from harness.run import Request, run

scenario = Scenario(name="direct", title="", network="direct")
profile = Profile("nothing", "", ())
cells = [
    Cell(Image(f"image-{n:05}", "", "debian", "12", "bookworm", "linux"), scenario, profile, "fake")
    for n in range(int(sys.argv[1]))
]
done = run(
    Request(cells, "bench", Path("out"), workers=int(sys.argv[2]), conformance=Path(sys.argv[3]))
)
counts = done.report.summary
assert counts.cells.passed == len(cells) and counts.checks.passed == 3 * len(cells), counts
"""


class _Place:
    """A directory with three checks, their twins for plain pytest, and a state of its own."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checks = path / "checks"
        (self.checks / "noop").mkdir(parents=True)
        text = _CHECKS + "".join(_CHECK.format(name) for name in "abc")
        (self.checks / "noop" / "test_noop.py").write_text(text)

    def ours(self, cells: int) -> tuple[float, float]:
        """CPU seconds of a run of so many cells, and the MiB of its largest process."""
        words = ["-c", _RUN, str(cells), str(WORKERS), str(self.checks)]
        return self._cost(words)

    def peer(self, cells: int) -> tuple[float, float]:
        """The same for pytest alone, over as many items."""
        test = self.path / f"peer_{cells}.py"
        tests = "".join(_PEER_TEST.format(name) for name in "abc").replace("{{", "{")
        text = _PEER.format(cells) + tests.replace("}}", "}")
        test.write_text(text)
        plugins = ["-p", "xdist.plugin", "-p", "no:cacheprovider"]
        words = ["-m", "pytest", "-c", os.devnull, f"--rootdir={self.path}", "-q", *plugins]
        return self._cost([*words, "-n", str(WORKERS), str(test)])

    def _cost(self, words: list[str]) -> tuple[float, float]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST_", "AIRLOCK_"))}
        environment = {
            **kept,
            "AIRLOCK_STATE": str(self.path / "state"),
            "PYTHONPATH": str(Path.cwd()),
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        }
        log = self.path / "log"
        out = os.open(log, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600)
        child = os.fork()
        if child == 0:  # wait4 tells the cost of this child and all below it, and of nothing else
            try:
                os.chdir(self.path)
                os.dup2(out, 1)
                os.dup2(out, 2)
                os.execve(sys.executable, [sys.executable, *words], environment)
            finally:
                os._exit(127)
        os.close(out)
        _, status, used = os.wait4(child, 0)
        if status:
            sys.exit(f"{words[:3]} ended with {status}: {log.read_text()[-1500:]}")
        return used.ru_utime + used.ru_stime, _largest(used)


def _largest(used: resource.struct_rusage) -> float:
    """MiB of the largest process (getrusage(2): kilobytes)."""
    return used.ru_maxrss / 1024


def bench_cell_cpu() -> Measurement:
    """CPU of the harness for one cell, in ms; the same at every size, in 400 MB a process."""
    per_cell: dict[int, float] = {}
    largest: dict[int, float] = {}
    peers: dict[int, float] = {}
    with tempfile.TemporaryDirectory(prefix="airlock-bench-", dir="/var/tmp") as directory:
        place = _Place(Path(directory))
        for cells in SIZES:
            peer, _ = place.peer(cells)
            ours, largest[cells] = place.ours(cells)
            per_cell[cells] = 1000 * (ours - peer) / cells
            peers[cells] = 1000 * peer / cells
            print(
                f"  {cells} cells: {ours:.1f} s CPU, pytest alone {peer:.1f} s, beyond it "
                f"{per_cell[cells]:.2f} ms a cell; largest process {largest[cells]:.0f} MiB",
                flush=True,
            )
    most = SIZES[-1]
    if largest[most] > LIMIT_MB * 1e6 / (1 << 20):
        sys.exit(f"cell_cpu: a process took {largest[most]:.0f} MiB; the limit is {LIMIT_MB} MB")
    found = against(
        "cell_cpu",
        [per_cell[most]],
        [LIMIT_MS],
        "limit",
        "ms CPU a cell",
        [f"{most} fake cells, 3 checks each, beyond pytest -n {WORKERS} with the same items"],
    )
    found.samples |= {
        "cells": [float(size) for size in SIZES],
        "ours_by_size": [per_cell[size] for size in SIZES],
        "pytest_by_size": [peers[size] for size in SIZES],
        "largest_process_mib": [largest[size] for size in SIZES],
    }
    return found
