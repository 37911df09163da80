"""One real node on Google Cloud, by the file that AIRLOCK_LIVE_GCE names. It costs money."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.providers.gce_config import read_config
from harness.providers.gce_reap import Ledger, reap
from installers.exits import Exit
from reports.read import read_report

SWITCH = "AIRLOCK_LIVE_GCE"
ROOT = Path(__file__).resolve().parents[3]
pytestmark = [
    pytest.mark.lab,
    pytest.mark.slow,
    pytest.mark.skipif(SWITCH not in os.environ, reason=f"{SWITCH} names no gce.toml"),
]


def test_a_node_is_made_checked_and_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = Path(os.environ[SWITCH]).absolute()
    config = read_config(file)
    assert config.limit, "a live test has a limit"
    monkeypatch.setenv("AIRLOCK_STATE", str(tmp_path / "state"))
    matrix = tmp_path / "live.toml"
    scenario = "direct"
    if config.proxy:
        scenario = "proxy-intercept" if config.proxy.intercept else "proxy"
    image = next(iter(config.images))
    matrix.write_text(
        f'[matrix]\nimages = ["{image}"]\nscenarios = ["{scenario}"]\nprofiles = ["live"]\n'
        'provider = "gce"\n'
    )
    (tmp_path / "profiles.toml").write_text('[live]\ntitle = "Live"\ninstallers = ["proxy"]\n')
    done = subprocess.run(
        [sys.executable, "-m", "harness.cli", "run", str(matrix)],
        cwd=tmp_path,
        env={**os.environ, "AIRLOCK_GCE": str(file), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    (cell,) = read_report(tmp_path / "out" / "latest").cells
    assert done.returncode in (Exit.PASS, Exit.FAIL), done.stdout + done.stderr
    assert cell.verdict in ("pass", "fail"), cell.reason
    assert Ledger().all() == []
    assert reap([config.project], dry=True).ended == []
