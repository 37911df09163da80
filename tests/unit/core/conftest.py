"""A private place for each test of the core."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.core.workbench import Bench


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """State, checks and script of its own."""
    return Bench(tmp_path)
