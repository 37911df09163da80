"""What a sabotage may say, and how a sabotaged cell is judged."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import UsageError
from harness.sabotage import Sabotage, find_sabotage
from reports import model
from tests.unit.reports.sample import make_cell, make_check

WHOLE = 'name = "s"\ntitle = "t"\n'


def read(tmp_path: Path, text: str) -> Sabotage:
    area = tmp_path / "area"
    area.mkdir(exist_ok=True)
    (area / "sabotage.toml").write_text(f"[[sabotage]]\n{text}")
    return find_sabotage(tmp_path, "s")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('name = "s"\nkills = ["a.b"]\napply = "x"', "lacks 'title'"),
        (f'{WHOLE}kills = ["a.b"]', "breaks nothing"),
        (f'{WHOLE}apply = "x"', "needs either 'kills' or 'stops'"),
        (f'{WHOLE}apply = "x"\nkills = ["a.b"]\nstops = "driver"', "needs either"),
        (f'{WHOLE}apply = "x"\nkills = ["a.b"]\nstage = "boot"', "known: node, build"),
        (f'{WHOLE}apply = "x"\nkills = ["a.b"]\noutcome = "skip"', "known: fail, error"),
        (f'{WHOLE}apply = "x"\nkills = ["a.b"]\nstages = "node"', "unknown key 'stages'"),
    ],
)
def test_bad_input_names_file_line_and_key(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(UsageError) as wrong:
        read(tmp_path, text)
    assert said in str(wrong.value)
    assert "sabotage.toml:" in str(wrong.value)


def test_a_scenario_of_its_own_lies_beside_it(tmp_path: Path) -> None:
    found = read(tmp_path, f'{WHOLE}kills = ["a.b"]\nscenario = "mine.toml"')
    assert found.scenario == str(tmp_path / "area/mine.toml")
    assert (
        read(tmp_path, f'{WHOLE}kills = ["a.b"]\nscenario = "glibc-2.26"').scenario == "glibc-2.26"
    )


def cell(**outcomes: model.CheckOutcome) -> model.Cell:
    """A cell of a report whose checks ended like this."""
    checks = [
        make_check(name.replace("_", "."), outcome=outcome) for name, outcome in outcomes.items()
    ]
    return make_cell(checks=checks)


def test_what_must_fail_must_fail_and_nothing_else() -> None:
    one = Sabotage("s", "t", kills=("a.x",), dependants=("a.y",), apply="x")
    assert one.judge(cell(a_x="fail", a_y="fail", a_z="pass")) == []
    assert one.judge(cell(a_x="pass")) == ["a.x must fail under s and was pass"]
    assert one.judge(cell(a_z="pass")) == ["a.x must fail under s and was not run"]
    assert one.judge(cell(a_x="fail", a_z="fail")) == ["a.z failed under s, which does not name it"]


def test_a_break_of_the_lab_ends_in_an_error() -> None:
    one = Sabotage("s", "t", kills=("a.x",), apply="x", outcome="error")
    assert one.judge(cell(a_x="error", a_z="pass")) == []
    assert one.judge(cell(a_x="fail")) != []


def test_an_installer_that_must_stop() -> None:
    one = Sabotage("s", "t", stops="keyrings", serves={"/a": "/b"})
    stopped = make_cell(checks=[], verdict="fail", reason="keyrings: key X: answers with Y")
    assert one.judge(stopped) == []
    other = make_cell(checks=[], verdict="fail", reason="driver: keyrings: no")
    assert one.judge(other)
    assert one.judge(cell(a_x="pass"))
