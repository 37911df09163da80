"""One pytest of its own runs every check on every node; the tests look at what it said."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from harness.checks import Check, check_of

ROOT = Path(__file__).parents[3]
Said = Mapping[str, Mapping[str, Any]]


@pytest.fixture(scope="session")
def said(tmp_path_factory: pytest.TempPathFactory) -> Said:
    """``{sample: {check id: record}}`` of all good and broken nodes."""
    out = tmp_path_factory.mktemp("double") / "records.json"
    command = [sys.executable, "-m", "pytest", "conformance", "-q", "--tb=no", "-rN"]
    command += ["-p", "tests.unit.conformance.double", "-p", "no:cacheprovider", "-p", "no:xdist"]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "AIRLOCK_DOUBLE_OUT": str(out), "PYTEST_ADDOPTS": ""},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert out.exists(), done.stdout[-4000:] + done.stderr[-4000:]
    found: dict[str, dict[str, Any]] = {}
    for name, record in json.loads(out.read_text()).items():
        sample, _, check = name.partition("|")
        found.setdefault(sample, {})[check] = record
    return found


class _Collected:
    def __init__(self) -> None:
        self.items: list[pytest.Item] = []

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self.items = session.items


@pytest.fixture(scope="session")
def checks() -> dict[str, tuple[Check, Path]]:
    """Every check there is: id -> the check and the file it lives in."""
    collected = _Collected()
    pytest.main(
        [str(ROOT / "conformance"), "--collect-only", "-qq", "-p", "no:cacheprovider"],
        plugins=[collected],
    )
    found: dict[str, tuple[Check, Path]] = {}
    for item in collected.items:
        this = check_of(item)
        assert this is not None, f"{item.nodeid} is no check"
        assert this.id not in found, f"{item.nodeid}: a second check {this.id}"
        found[this.id] = this, item.path
    return found
