"""What the caches save: the main job from nothing against the main job again."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

from bench.record import Measurement, against, command, timed


def bench_second_run() -> Measurement:
    """The default matrix twice: first with an empty state directory, every VM booted anew."""
    argv = [sys.executable, "-m", "harness.cli", "run", "--boot-anew", "matrices/default.toml"]
    with tempfile.TemporaryDirectory(prefix="airlock-bench-", dir="/var/tmp") as state:
        env = {**os.environ, "AIRLOCK_STATE": state}
        first = timed(lambda: command(argv, env=env))
        second = timed(lambda: command(argv, env=env))
        shutil.rmtree(Path(state) / "cache", ignore_errors=True)
    return against(
        "second_run",
        [second],
        [first],
        "first run, empty AIRLOCK_STATE",
        "s",
        [f"AIRLOCK_STATE=EMPTY {' '.join(argv)} (twice)"],
    )
