"""A plan of the operator's chart: read, values, real Helm, inventory of images, names."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.record import Measurement, against
from harness.k8s.rehearsal import CHART

_ROUNDS = 7
_LIMIT = 1.0


def bench_k8s_plan() -> Measurement:
    """Wall seconds of the whole command; of the vendor's chart where its path is given."""
    chart = os.environ.get("AIRLOCK_OPERATOR_CHART", str(CHART))
    seconds = []
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "cluster.toml"
        file.write_text(
            f'[operator]\nchart = "{chart}"\n[registry]\nto = "registry.corp.example/proxy"\n'
            'pull-secrets = ["regcred"]\n'
        )
        argv = [sys.executable, "-m", "harness.cli", "k8s", "plan", str(file), "--no-ask", "--json"]
        for _ in range(_ROUNDS):
            began = time.perf_counter()
            subprocess.run(argv, check=True, capture_output=True)
            seconds.append(time.perf_counter() - began)
    said = [f"airlock k8s plan cluster.toml --no-ask  # {Path(chart).name}"]
    return against("k8s_plan", seconds, [_LIMIT] * len(seconds), "limit", "s", said)
