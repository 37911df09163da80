"""``airlock checks``: every check, what it needs, and what turns it red."""

from __future__ import annotations

import json
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from harness.cli import main
from installers.exits import Exit

CHECK = """
from harness.checks import check, proxy


@check(id="{id}", severity="major", title="t", remedy="r.", source="s", requires=proxy)
def test_it(node):
    pass
"""
SABOTAGE = '[[sabotage]]\nname = "it"\ntitle = "It breaks"\nkills = ["own.it"]\napply = "true"\n'


def folder(tmp_path: Path, **texts: str) -> Path:
    """Checks of somebody's own: name of a file -> its text."""
    area = tmp_path / "checks/own"
    area.mkdir(parents=True)
    for name, text in texts.items():
        (area / name.replace("__", ".")).write_text(dedent(text))
    return tmp_path / "checks"


def said(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


def test_every_check_that_ships_has_a_sabotage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["checks", "--json", "--strict"]) == Exit.PASS
    found = said(capsys)
    checks = {one["id"]: one for one in found["checks"]}
    assert len(checks) == len(found["checks"]) >= 100
    assert found["without_sabotage"] == []
    card = checks["driver.answers"]
    assert card["severity"] == "blocker"
    assert card["needs"] == ["a GPU"]
    assert card["file"] == "driver/test_driver.py"
    assert [each["name"] for each in card["sabotages"]] == ["card-lost", "card-off-the-bus"]


def test_one_area_as_people_read_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["checks", "--area", "mig"]) == Exit.PASS
    out = capsys.readouterr().out
    assert "mig.slices (blocker): A card that is divided has slices" in out
    assert "sabotage  mig-without-slices" in out
    assert "proxy." not in out


def test_a_check_that_nobody_has_seen_fail(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checks = str(folder(tmp_path, test_it__py=CHECK.format(id="own.it")))
    assert main(["checks", "--checks", checks, "--json"]) == Exit.PASS
    assert said(capsys)["without_sabotage"] == ["own.it"]
    assert main(["checks", "--checks", checks, "--strict"]) == Exit.FAIL
    assert "1 checks that no sabotage turns red: own.it" in capsys.readouterr().out
    (tmp_path / "checks/own/sabotage.toml").write_text(SABOTAGE)
    assert main(["checks", "--checks", checks, "--strict"]) == Exit.PASS


def test_no_check_at_all(tmp_path: Path) -> None:
    assert main(["checks", "--checks", str(folder(tmp_path))]) == Exit.NOTHING


@pytest.mark.parametrize(
    ("files", "more", "words"),
    [
        ({}, ["--area", "drivers"], "unknown area 'drivers'"),
        ({"test_torn__py": "import nothing_of_this_name\n"}, [], "checks cannot be read"),
        (
            {"test_one__py": CHECK.format(id="own.it"), "test_two__py": CHECK.format(id="own.it")},
            [],
            "there is a check own.it already",
        ),
    ],
)
def test_bad_input_is_one_error(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    files: dict[str, str],
    more: list[str],
    words: str,
) -> None:
    where = ["--checks", str(folder(tmp_path, **files))] if files else []
    assert main(["checks", *where, *more]) == Exit.USAGE
    assert words in capsys.readouterr().err
