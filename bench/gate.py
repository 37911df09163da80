"""The gate over a million check results: seconds and memory, beside Python's own reader of JSON."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import msgspec

from bench.record import Measurement, against

SECONDS, MEGABYTES = 5.0, 500.0
_POLICY = """
[require]
areas = ["modules", "trust"]
[not-verified]
severities = ["blocker", "major"]
[evidence]
simulated = false
max-age-hours = 1
"""
_PEER = "import json, sys; json.load(open(sys.argv[1]))"


def bench_gate_million() -> Measurement:
    """5,000 cells x 200 checks by a policy that looks at every check: at most 5 s and 500 MB."""
    with tempfile.TemporaryDirectory(prefix="airlock-bench-", dir="/var/tmp") as folder:
        report = Path(folder) / "report.json"
        _write(report)
        policy = Path(folder) / "policy.toml"
        policy.write_text(_POLICY)
        gate = [sys.executable, "-m", "harness.cli", "gate", "--policy", str(policy)]
        size = report.stat().st_size
        ours = [measured([*gate, str(report)]) for _ in range(3)]
        peer = [measured([sys.executable, "-c", _PEER, str(report)]) for _ in range(3)]
    most = max(used.megabytes for used in ours)
    print(f"gate_million: {size >> 20} MiB of JSON", flush=True)
    for name, all_ in (("gate", ours), ("json.load", peer)):
        for used in all_:
            print(
                f"  {name}: {used.wall:.2f} s, of the processor {used.cpu:.2f} s, "
                f"{used.megabytes:.0f} MB",
                flush=True,
            )
    result = against(
        "gate_million",
        [used.wall for used in ours],
        [used.wall for used in peer],
        "json.load of the same file, which judges nothing",
        "s",
        ["airlock gate --policy POLICY REPORT", f"python -c '{_PEER}' REPORT"],
        {
            "memory": f"ours {most:.0f} MB, peer {max(used.megabytes for used in peer):.0f} MB",
            # A machine that others use as well takes longer than it works.
            "processor": f"ours {_cpu(ours):.2f} s, peer {_cpu(peer):.2f} s",
        },
    )
    if result.ours > SECONDS or most > MEGABYTES:
        print(f"OVER THE LIMIT: {SECONDS} s, {MEGABYTES} MB", file=sys.stderr)
    return result


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


@dataclass(frozen=True)
class Used:
    """What a command took: wall and processor seconds, and the most memory it had at a time."""

    wall: float
    cpu: float
    megabytes: float


def _cpu(all_: list[Used]) -> float:
    return statistics.median(used.cpu for used in all_)


def measured(argv: list[str]) -> Used:
    """Run a command to its end; its failure ends the bench."""
    began = time.perf_counter()
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as child:
        assert child.stdout is not None
        said = child.stdout.read()
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        sys.exit(f"{' '.join(argv)} ended with {child.returncode}: {said.decode()[-800:]}")
    wall = time.perf_counter() - began
    return Used(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1000)
