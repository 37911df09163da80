"""docs/requirements.md has every row, and names modules and tests that are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.unit.installers.test_defects import TESTED
from tests.unit.nodeids import exists

REPOSITORY = Path(__file__).parents[3]
PAGE = (REPOSITORY / "docs/requirements.md").read_text()
ROWS = {
    cells[0]: cells[1:]
    for line in PAGE.splitlines()
    if re.match(r"\| [PTKCB]\d\d \|", line)
    and (cells := [cell.strip() for cell in line.strip("|").split(" | ")])
}
AREAS = {"P": 30, "T": 8, "K": 12, "C": 18}
EVERY = [f"{area}{number:02}" for area, last in AREAS.items() for number in range(1, last + 1)]


def test_every_row_is_there_once_and_in_order() -> None:
    rows = re.findall(r"^\| ([PTKC]\d\d) \|", PAGE, re.MULTILINE)
    assert rows == EVERY


@pytest.mark.parametrize("row", EVERY)
def test_a_row_names_what_is_there(row: str) -> None:
    what, where, tests, *rest = ROWS[row]
    assert what
    modules = re.findall(r"`([^`]+)`", where)
    assert modules
    assert [one for one in modules if not (REPOSITORY / one).is_file()] == []
    named = re.findall(r"`([^`]+)`", tests)
    missing = [one for one in named if not exists(REPOSITORY / "tests", one)]
    assert missing == []
    # Without a test it says in words what is not proved.
    assert named or rest[0].strip("| ")


def test_every_defect_of_these_parts_is_listed_with_its_test() -> None:
    listed = re.findall(r"^\| (B\d\d) \| .+ \| `(\S+)` \|$", PAGE, re.MULTILINE)
    assert [name for name, _ in listed] == list(TESTED)
    for name, test in listed:
        assert exists(REPOSITORY / "tests", test), name
        assert test.rpartition("/")[2] == TESTED[name].rpartition("/")[2]
