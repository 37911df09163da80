"""The pages of requirements have every row, and name modules and tests that are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.unit.installers.test_defects import TESTED
from tests.unit.nodeids import exists

REPOSITORY = Path(__file__).parents[3]
FIRST = (REPOSITORY / "docs/requirements.md").read_text()
SECOND = (REPOSITORY / "docs/requirements-driver.md").read_text()
ROWS = {
    cells[0]: cells[1:]
    for line in (FIRST + SECOND).splitlines()
    if re.match(r"\| [A-Z]\d\d \|", line)
    and (cells := [cell.strip() for cell in line.strip("|").split(" | ")])
}
AREAS = {"P": 30, "T": 8, "K": 12, "C": 18, "D": 18, "S": 11, "E": 10, "F": 14}
EVERY = [f"{area}{number:02}" for area, last in AREAS.items() for number in range(1, last + 1)]


#: Of driver, signing, Conda and first boot; all others are on the first page.
LATER = [f"B{number}" for number in (*range(24, 44), 45, 49)]


def test_every_row_is_there_once_and_in_order() -> None:
    assert re.findall(r"^\| ([PTKCDSEF]\d\d) \|", FIRST + SECOND, re.MULTILINE) == EVERY


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


def listed(page: str) -> dict[str, str]:
    """Defect -> the test that is named after it."""
    return dict(re.findall(r"^\| (B\d\d) \| .+ \| `(\S+)` \|$", page, re.MULTILINE))


def test_every_defect_is_on_one_of_the_pages() -> None:
    assert list(listed(FIRST)) == list(TESTED)
    assert list(listed(SECOND)) == LATER
    assert sorted([*TESTED, *LATER]) == [f"B{number:02}" for number in range(1, 51)]


@pytest.mark.parametrize("defect", [*TESTED, *LATER])
def test_a_defect_names_its_test(defect: str) -> None:
    test = (listed(FIRST) | listed(SECOND))[defect]
    assert exists(REPOSITORY / "tests", test)
    assert re.search(rf"::test_(B\d\d_)*{defect}_", test)
    if defect in TESTED:
        assert test.rpartition("/")[2] == TESTED[defect].rpartition("/")[2]
