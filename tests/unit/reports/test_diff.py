"""Two runs compared: verdicts, checks, facts, durations; and the command's exit codes."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from harness.cli import main
from reports.diff import Diff, diff_reports, diff_runs
from reports.facts import fact_changes
from reports.model import Cell, Phase, Provenance
from reports.render.diff import render_diff
from reports.summary import build_report
from reports.write import write_report
from tests.unit.reports.hostile import ATTACK, hostile_report
from tests.unit.reports.sample import (
    error_cell,
    failing_cell,
    good_report,
    make_cell,
    make_check,
    make_run,
    mixed_report,
)

NAME = "debian-12+proxy-intercept+gpu"

FACTS: dict[str, Any] = {
    "schema": 1,
    "clock": 1.0,
    "kernel": {"release": "6.1.0-42-amd64", "tainted": 4096},
    "secure_boot": {"enabled": True, "db": [{"sha256": "d" * 64, "subject_cn": "ours"}]},
    "trust": {"fingerprints": [f"{at:064x}" for at in range(140)], "os_bundle": "/b.crt"},
    "packages": {"apt": "2.6.1", "curl": "7.88", "nano": "7.2"},
    "modules": [
        {
            "name": name,
            "path": f"/lib/modules/{name}.ko",
            "version": "550.163",
            "sha256": name,
            "signer": {"issuer_cn": "Airlock lab", "serial": "1"},
            "cert_sha256": "aa" * 32,
        }
        for name in ("nvidia", "nvidia_drm", "nvidia_uvm")
    ],
    "disk": [{"path": "/", "size": 100, "free": 50}],
}


def _changed(**areas: Any) -> list[str]:
    after = copy.deepcopy(FACTS)
    for area, change in areas.items():
        change(after[area])
    return [change.text for change in fact_changes(FACTS, after)]


def test_roots_are_counted() -> None:
    def fewer(trust: dict[str, Any]) -> None:
        del trust["fingerprints"][3:6]
        trust["fingerprints"] += ["e" * 64]

    assert _changed(trust=fewer) == ["3 roots gone from the bundle", "1 root new in the bundle"]


def test_a_new_driver_and_a_new_signer_are_two_lines() -> None:
    def other(modules: list[dict[str, Any]]) -> None:
        for module in modules:
            module |= {"version": "570.86", "sha256": "x", "cert_sha256": "bb" * 32}
            module["signer"] = {"issuer_cn": "Somebody else", "serial": "2"}

    assert _changed(modules=other) == [
        "driver 550.163 → 570.86 (3 modules)",
        "module signer changed: Airlock lab → Somebody else (3 modules)",
    ]


def test_a_signer_of_the_same_name_is_told_by_the_certificate() -> None:
    def other(modules: list[dict[str, Any]]) -> None:
        modules[0]["cert_sha256"] = "bb" * 32

    (text,) = _changed(modules=other)
    assert text == f"module signer changed: {'aa' * 8} → {'bb' * 8} (1 module)"


def test_a_module_that_is_not_signed_any_more() -> None:
    def bare(modules: list[dict[str, Any]]) -> None:
        modules[1] |= {"signer": None, "cert_sha256": None}

    assert _changed(modules=bare) == ["module signer changed: Airlock lab → nobody (1 module)"]


def test_packages_are_one_line_each_way() -> None:
    def other(packages: dict[str, str]) -> None:
        del packages["nano"]
        packages |= {"vim": "9", "apt": "2.6.2"}

    assert sorted(_changed(packages=other)) == [
        "1 package changed: apt 2.6.1 → 2.6.2",
        "1 package gone: nano 7.2",
        "1 package new: vim 9",
    ]


def test_other_facts_are_told_by_their_path_and_passing_ones_are_not() -> None:
    def other(area: dict[str, Any]) -> None:
        area |= {"enabled": False, "db": []}

    assert _changed(secure_boot=other) == [
        "secure_boot.enabled: true → false",
        f"secure_boot.db.{'d' * 16}: "
        '{"sha256":"dddddddddddddddddddddddddddddddddddddddddddddddd… → (absent)',
    ]
    passing = {**FACTS, "clock": 2.0, "disk": [{"path": "/", "size": 100, "free": 1}]}
    assert fact_changes(FACTS, passing) == []


def test_a_fact_that_is_new_or_gone_altogether_is_told() -> None:
    (change,) = fact_changes(FACTS, {**FACTS, "gpu": {"model": "H200"}})
    assert change.text == 'gpu: (absent) → {"model":"H200"}'
    (change,) = fact_changes({**FACTS, "gpu": None}, {**FACTS, "gpu": {"model": "H200"}})
    assert change.text == 'gpu: (absent) → {"model":"H200"}'


def _diff(before: list[Cell], after: list[Cell]) -> Diff:
    return diff_reports(build_report(make_run(), before), build_report(make_run(), after))


def _told(diff: Diff) -> list[tuple[str, str, str, str]]:
    return [(item.area, item.way, item.name, item.text) for item in diff.differences]


def test_the_same_runs_differ_in_nothing() -> None:
    diff = diff_reports(mixed_report(), mixed_report())
    assert (diff.verdict, diff.compared, diff.differences) == ("same", 6, [])
    assert "nothing is otherwise" in render_diff(diff)


def test_what_fails_now_is_worse_and_told_once_for_many_cells() -> None:
    names = [f"image-{at}+s+gpu" for at in range(30)]
    diff = _diff([make_cell(name) for name in names], [failing_cell(name) for name in names])
    assert diff.verdict == "worse"
    checks = [item for item in diff.differences if item.area == "check"]
    assert [(item.way, item.name, len(item.cells)) for item in checks] == [
        ("worse", "modules.load-ours", 30),
        ("worse", "modules.signature", 30),
        ("unknown", "hygiene.machine-id", 30),
    ]
    assert " and 25 more: as expected → failed\n" in render_diff(diff)
    assert "✗ modules.signature: pass → fail (all 30 cells)\n      nvidia.ko carries no" in (
        render_diff(diff)
    )


@pytest.mark.parametrize(
    ("before", "after", "verdict"),
    [
        (make_cell(), failing_cell(NAME), "worse"),
        (failing_cell(NAME), make_cell(), "changed"),
        (make_cell(), error_cell(NAME), "unknown"),
        (make_cell(), make_cell(checks=[make_check("new.one", "fail")], verdict="fail"), "worse"),
        (make_cell(checks=[make_check("a.b")]),
         make_cell(checks=[make_check("a.b", "not-verified"), make_check("a.c")]), "unknown"),
        (make_cell(), make_cell("other+s+gpu"), "nothing"),
    ],
)  # fmt: skip
def test_verdict(before: Cell, after: Cell, verdict: str) -> None:
    assert _diff([before], [after]).verdict == verdict


def test_a_cell_that_is_gone_is_not_better() -> None:
    diff = _diff([make_cell(), make_cell("a+b+c")], [make_cell()])
    assert diff.verdict == "unknown"
    assert _told(diff) == [("cell", "gone", "a+b+c", "is gone; it was as expected")]


def test_durations_are_told_when_they_matter() -> None:
    def ran(*seconds: float) -> Cell:
        named = zip(("build", "boot"), seconds, strict=True)
        return make_cell(phases=[Phase(name=n, seconds=s, outcome="ok") for n, s in named])

    assert _told(_diff([ran(100, 60)], [ran(100, 240)])) == [
        ("duration", "changed", NAME, "2 min 40 s → 5 min 40 s, most of it in boot (+3 min 00 s)")
    ]
    assert _told(_diff([ran(100, 60)], [ran(95, 60)])) == []
    assert _told(_diff([ran(1, 1)], [ran(1, 4)])) == []


def test_without_facts_the_provenance_is_compared() -> None:
    after = make_cell(provenance=Provenance(driver_version="570.86", kernel="6.1.0-42-amd64"))
    told = [text for area, _, _, text in _told(_diff([make_cell()], [after])) if area == "fact"]
    assert "driver 535.261.03 → 570.86" in told
    assert f"module signer {'c0' * 8} → (empty)" in told


def _run(folder: Path, cells: list[Cell], facts: object = None) -> Path:
    write_report(build_report(make_run(), cells), folder)
    for cell in cells if facts is not None else []:
        path = folder / "cells" / cell.id / "facts.json"
        path.parent.mkdir(parents=True)
        path.write_text(facts if isinstance(facts, str) else json.dumps(facts))
    return folder


def test_facts_come_from_the_capsules(tmp_path: Path) -> None:
    after = copy.deepcopy(FACTS)
    del after["trust"]["fingerprints"][:3]
    one = _run(tmp_path / "one", [make_cell()], FACTS)
    other = _run(tmp_path / "other", [make_cell()], after)
    diff = diff_runs(one, other / "report.json")
    assert diff.facts_compared == 1
    assert _told(diff) == [
        ("fact", "changed", "trust.fingerprints", "3 roots gone from the bundle")
    ]


def test_the_command_prints_and_answers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    good = str(_run(tmp_path / "good", [make_cell()]))
    bad = str(_run(tmp_path / "bad", [failing_cell(NAME)]))
    assert main(["diff", good, good]) == 0
    assert main(["diff", good, bad]) == 1
    assert "modules.signature" in capsys.readouterr().out
    assert main(["diff", "--json", bad, good]) == 0
    assert msgspec.json.decode(capsys.readouterr().out, type=Diff).verdict == "changed"
    assert main(["diff", good, str(_run(tmp_path / "x", [make_cell("x+y+z")]))]) == 4
    assert main(["diff", good, str(_run(tmp_path / "lab", [error_cell(NAME)]))]) == 3


@pytest.mark.parametrize("facts", ["{", "[]", '{"a": ' + "[" * 100_000, "\x00"])
def test_facts_that_are_none_are_one_clear_error(
    facts: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = _run(tmp_path / "one", [make_cell()], FACTS)
    other = _run(tmp_path / "other", [make_cell()], facts)
    assert main(["diff", str(one), str(other)]) == 2
    said = capsys.readouterr().err
    assert "facts.json of 'debian-12+proxy-intercept+gpu' is no facts of a node" in said
    assert "Traceback" not in said


def test_reports_that_cannot_be_read_are_one_clear_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = str(_run(tmp_path / "one", [make_cell()]))
    assert main(["diff", one, str(tmp_path / "none")]) == 2
    assert "there is no" in capsys.readouterr().err


def test_hostile_text_is_spelled_out() -> None:
    text = render_diff(diff_reports(good_report(), hostile_report()))
    assert "\x1b" not in text
    assert "\u202e" not in text
    poisoned = copy.deepcopy(FACTS)
    poisoned["packages"][ATTACK] = ATTACK
    poisoned["kernel"][ATTACK] = [ATTACK]
    poisoned["modules"][0]["signer"]["issuer_cn"] = ATTACK
    poisoned["trust"]["os_bundle"] = ATTACK
    for change in fact_changes(FACTS, poisoned):
        assert "\x1b" not in change.text
        assert "\n" not in change.text
