"""Every sabotage on forks of one good machine: each check can fail, and fails alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.lab.test_main_job import ONE, airlock

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.xdist_group("main-job")]

#: What no break of ours can reach on machines without cards (see docs/checks.md).
UNREACHED: frozenset[str] = frozenset()


def test_every_sabotage_is_found_and_every_check_is_killed(tmp_path: Path) -> None:
    done = airlock("sabotage", *ONE, "--json", "--out", str(tmp_path), timeout=5000)
    said = json.loads(done.stdout)
    wrong = {one["name"]: one["why"] for one in said["sabotages"] if not one["found"]}
    assert not wrong
    assert set(said["checks"]["alive"]) == UNREACHED
    assert done.returncode == 0
