"""The gate over a million check results: seconds and memory, beside Python's own reader of JSON."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import msgspec

from bench.record import Measurement, against

SECONDS, MEGABYTES = 5.0, 500.0
_PEER = "import json, sys; json.load(open(sys.argv[1]))"


def bench_gate_million() -> Measurement:
    """5,000 cells x 200 checks under the policy ``ci``: at most 5 s and 500 MB."""
    gate = [sys.executable, "-m", "harness.cli", "gate", "--policy", "ci"]
    with tempfile.TemporaryDirectory(prefix="airlock-bench-", dir="/var/tmp") as folder:
        report = Path(folder) / "report.json"
        _write(report)
        size = report.stat().st_size
        ours = [_measured([*gate, str(report)]) for _ in range(3)]
        peer = [_measured([sys.executable, "-c", _PEER, str(report)]) for _ in range(3)]
    seconds, most = [s for s, _ in ours], max(mb for _, mb in ours)
    print(f"gate_million: {size >> 20} MiB of JSON, {most:.0f} MB at most", flush=True)
    print(f"json.load: {max(mb for _, mb in peer):.0f} MB at most", flush=True)
    measured = against(
        "gate_million",
        seconds,
        [s for s, _ in peer],
        "json.load of the same file, which judges nothing",
        "s",
        [" ".join([*gate, "REPORT"]), f"python -c '{_PEER}' REPORT"],
        {"memory": f"ours {most:.0f} MB, peer {max(mb for _, mb in peer):.0f} MB"},
    )
    if measured.ours > SECONDS or most > MEGABYTES:
        print(f"OVER THE LIMIT: {SECONDS} s, {MEGABYTES} MB", file=sys.stderr)
    return measured


def _write(path: Path) -> None:
    """Written by a child, whose memory is not ours to be inherited."""
    from tests.unit.reports.sample import STARTED, big_report

    code = os.fork()
    if code == 0:
        report = big_report(5000, 200)
        # Fresh, as the policy asks.
        late = STARTED.now(STARTED.tzinfo)
        run = msgspec.structs.replace(report.run, started=late, finished=late)
        path.write_bytes(msgspec.json.encode(msgspec.structs.replace(report, run=run)))
        os._exit(0)
    os.waitpid(code, 0)


def _measured(argv: list[str]) -> tuple[float, float]:
    """Wall seconds, and the most memory (MB) that a command had at a time."""
    began = time.perf_counter()
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as child:
        assert child.stdout is not None
        said = child.stdout.read()
        _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        sys.exit(f"{' '.join(argv)} ended with {child.returncode}: {said.decode()[-800:]}")
    return time.perf_counter() - began, used.ru_maxrss / 1000
