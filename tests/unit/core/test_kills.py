"""Which sabotages count as found, and what share of the checks they kill."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from harness import kills
from harness.catalog import load_catalog
from harness.cells import Cell
from harness.errors import InfraError, UsageError
from harness.matrix import Selection, find_matrix, load_matrix, select
from harness.sabotage import Sabotage, of_file
from installers.exits import Exit
from reports import model
from tests.unit.reports.sample import make_cell, make_check


@pytest.fixture(scope="module")
def good() -> Cell:
    catalog = load_catalog()
    return select(load_matrix(find_matrix(None), catalog), Selection(), catalog)[0]


def broken(good: Cell, name: str, *checks: str, stops: str = "") -> Cell:
    return replace(good, sabotage=Sabotage(name, "t", kills=checks, stops=stops, apply="x"))


def ended(cell: Cell, **outcomes: model.CheckOutcome) -> model.Cell:
    checks = [make_check(name.replace("_", "."), outcome=o) for name, o in outcomes.items()]
    verdict = "fail" if "fail" in outcomes.values() else "pass"
    return make_cell(cell.id, checks=checks, verdict=verdict)


def test_a_broken_cell_has_a_name_of_its_own(good: Cell) -> None:
    assert broken(good, "cut").id == f"{good.id}~cut"


def test_the_rate_is_of_all_checks_and_only_of_what_was_found_alone(good: Cell) -> None:
    one, two = broken(good, "one", "a.x"), broken(good, "two", "a.y")
    results = [
        ended(one, a_x="fail", a_y="pass", a_z="pass"),
        ended(two, a_x="fail", a_y="fail", a_z="pass"),
    ]
    tally = kills.tally(results, [one, two])
    assert [judged.found for judged in tally.judged] == [True, False]
    assert tally.killed == {"a.x"}
    assert tally.alive == ["a.y", "a.z"]
    assert tally.rate == pytest.approx(1 / 3)
    assert tally.exit is Exit.FAIL
    assert "a.x failed under two, which does not name it" in tally.judged[1].line
    assert tally.summary() == ("1 of 2 sabotages found; 1 of 3 checks killed: kill rate 33.3%")
    said = tally.as_json()
    assert said["kill_rate"] == 0.3333
    assert said["checks"] == {"total": 3, "killed": ["a.x"], "alive": ["a.y", "a.z"]}


def test_what_the_lab_could_not_show_is_neither_found_nor_missed(good: Cell) -> None:
    cell = broken(good, "one", "a.x")
    result = make_cell(cell.id, checks=[], verdict="error", reason="QEMU went away")
    tally = kills.tally([result], [cell])
    assert tally.exit is Exit.UNKNOWN
    assert not tally.judged[0].found
    assert "QEMU went away" in tally.judged[0].line
    assert kills.tally([], []).exit is Exit.NOTHING


def test_an_installer_that_stops_kills_no_check(good: Cell) -> None:
    cell = broken(good, "one", stops="keyrings")
    result = make_cell(cell.id, checks=[], verdict="fail", reason="keyrings: key X: another")
    tally = kills.tally([result], [cell])
    assert tally.judged[0].found
    assert tally.killed == frozenset()
    assert tally.exit is Exit.PASS


def test_what_does_not_apply_is_not_counted(good: Cell) -> None:
    cell = broken(good, "one", "a.x")
    tally = kills.tally([ended(cell, a_x="fail", a_y="skip")], [cell])
    assert tally.rate == 1.0
    assert kills.applying([ended(good, a_x="pass", a_y="skip")]) == {good.id: frozenset({"a.x"})}
    with pytest.raises(InfraError, match="fail without any sabotage"):
        kills.applying([ended(good, a_x="fail")])


def test_what_depends_on_a_killed_check_may_fail_too(good: Cell) -> None:
    cell = broken(good, "one", "a.x")
    checks = [
        make_check("a.x", outcome="fail"),
        make_check("a.y", outcome="fail", depends=["a.x"]),
        make_check("a.z", outcome="fail", depends=["a.y"]),
    ]
    assert cell.sabotage is not None
    assert cell.sabotage.judge(make_cell(cell.id, checks=checks, verdict="fail")) == []


def test_a_strangers_file(tmp_path: Path) -> None:
    path = tmp_path / "rm it.sh"
    for content, said in ((None, "No such file"), (b"\xff", "not UTF-8"), (b" \n", "is empty")):
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(UsageError, match=said):
            of_file(path, ["a.x"])
    path.write_text("rm it\n")
    assert of_file(path, ["a.x"]) == Sabotage(
        "rm-it", "the shell of rm it.sh", kills=("a.x",), apply="rm it\n"
    )
