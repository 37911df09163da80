"""docs/troubleshooting.md names checks, codes and scenarios that are there, and every scenario."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fixtures.scenarios import load_scenarios
from manual import sources

PAGE = Path(__file__).resolve().parents[3] / "docs/troubleshooting.md"
ROWS = [
    [cell.strip() for cell in line.strip("|").split(" |")]
    for line in PAGE.read_text(encoding="utf-8").splitlines()
    if line.startswith("| ") and not line.startswith("| what you see")
]
SCENARIOS = load_scenarios()
NAMES = {*(check.id for check in sources.checks()), *sources.codes()}


def test_there_are_rows() -> None:
    assert len(ROWS) > 40
    assert {len(row) for row in ROWS} == {5}
    assert len({row[0] for row in ROWS}) == len(ROWS)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0][:40])
def test_a_row_names_what_is_there(row: list[str]) -> None:
    seen, why, helps, named, shown = row
    assert seen
    assert why
    assert helps
    names = re.findall(r"`([^`]+)`", named)
    assert names
    assert [name for name in names if name not in NAMES] == []
    for name in re.findall(r"`([^`]+)`", shown):
        # What the scenario's own file says names the cause is one of those in the row.
        assert SCENARIOS[name].named_by in {*names, ""}


def test_every_scenario_that_shows_a_failure_is_in_a_row() -> None:
    shown = {name for row in ROWS for name in re.findall(r"`([^`]+)`", row[4])}
    # "proxy" shows what a node without settings says, and "direct" nothing.
    assert {*SCENARIOS} - shown == {"proxy", "direct"}
