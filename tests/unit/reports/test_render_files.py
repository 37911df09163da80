"""The files beside a report, and the command that prints one again."""

from __future__ import annotations

import doctest
from pathlib import Path

import pytest

from harness.commands.report import KINDS
from reports import text
from reports.render.__main__ import main
from reports.render.files import RENDERINGS, write_renderings
from reports.summary import build_report
from reports.write import write_report
from tests.unit.reports.hostile import ATTACK
from tests.unit.reports.sample import good_report, make_cell, make_run


def test_all_are_written(tmp_path: Path) -> None:
    paths = write_renderings(good_report(), tmp_path)
    assert sorted(path.name for path in paths) == [
        *("ctrf.json", "index.html", "junit.xml", "summary.md")
    ]
    assert sorted(tmp_path.iterdir()) == sorted(paths)
    assert all(path.stat().st_size > 500 for path in paths)


def test_the_command_knows_every_rendering() -> None:
    assert {kind: name for kind, (name, _) in RENDERINGS.items()} == KINDS


def test_command(tmp_path: Path) -> None:
    write_report(good_report(), tmp_path / "run")
    page = tmp_path / "page.html"
    assert main([str(tmp_path / "run"), "--html", str(page)]) == 0
    assert page.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert not (tmp_path / "junit.xml").exists()


def test_command_without_a_choice_writes_all_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_report(good_report(), tmp_path / "run")
    assert main(["run"]) == 0
    assert (tmp_path / "index.html").exists()


def test_command_says_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 2
    assert "holds no report.json" in capsys.readouterr().err


def test_a_lone_surrogate_costs_no_rendering(tmp_path: Path) -> None:
    write_renderings(build_report(make_run(), [make_cell(reason="a\udce9b")]), tmp_path)
    assert "a\\udce9b" in (tmp_path / "index.html").read_text(encoding="utf-8")


def test_examples_in_the_docstrings() -> None:
    assert doctest.testmod(text).failed == 0


def test_plain_keeps_letters_of_all_scripts() -> None:
    for kept in ("naïve 漢字 עברית\ttab\nline", "a → b ✓", ""):
        assert text.plain(kept) == kept
    assert text.plain("a\r\nb\rc") == "a\nb\nc"
    assert text.plain("\x1b[1;31mred\x1b[0m \x1b(B\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\") == (
        "red link"
    )
    assert "\x1b" not in text.plain(ATTACK + "\x1b[")
