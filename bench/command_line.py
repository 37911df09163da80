"""How quickly the command answers: a tool that people and CI call all day."""

from __future__ import annotations

import sys

from bench.record import Measurement, against, command, timed

_AIRLOCK = [sys.executable, "-m", "harness.cli"]


def _limit(name: str, argv: list[str], limit: float) -> Measurement:
    seconds = [timed(lambda: command(argv)) for _ in range(7)]
    return against(name, seconds, [limit], "limit", "s", [" ".join(argv)])


def bench_cli_help() -> Measurement:
    """``airlock --help``: under 0.3 s."""
    return _limit("cli_help", [*_AIRLOCK, "--help"], 0.3)


def bench_cli_plan() -> Measurement:
    """``airlock plan`` of the default matrix: under 1 s."""
    return _limit("cli_plan", [*_AIRLOCK, "plan"], 1.0)
