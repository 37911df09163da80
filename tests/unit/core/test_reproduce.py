"""What reproduce says and how it ends, on nodes made of data."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.core.workbench import Bench

SCENARIO = """
[scenario]
title = "nouveau is there"
symptom = "nouveau …"
named_by = "modules.nouveau"
expected = "named"
stage = "node"
"""
HELD = '["*"]\n["*".facts]\nloaded_modules = ["nouveau"]\n'


@pytest.fixture
def ours(tmp_path: Path) -> str:
    path = tmp_path / "ours.toml"
    path.write_text(SCENARIO)
    return str(path)


def reproduce(bench: Bench, *words: str) -> tuple[int, str]:
    process = bench.start("reproduce", *words, "--provider", "fake")
    output, _ = process.communicate(timeout=120)
    return process.returncode, output


def test_the_cause_is_named_by_the_check_that_the_scenario_names(bench: Bench, ours: str) -> None:
    bench.script.write_text(HELD)
    status, output = reproduce(bench, f"proxy-intercept+{ours}")
    assert status == 0, output
    assert "what a customer sees:  nouveau …" in output
    assert "named by the check modules.nouveau: nouveau is loaded" in output
    (cell,) = bench.report().cells
    assert (cell.expected, cell.verdict, cell.named_by) == ("named", "fail", "modules.nouveau")
    assert cell.scenario == "proxy-intercept+ours"
    assert bench.report().summary.verdict == "pass"


def test_a_pass_is_the_surprise_where_the_environment_is_faulty(bench: Bench, ours: str) -> None:
    status, output = reproduce(bench, f"proxy-intercept+{ours}")
    assert status == 1, output
    assert "NOT named by modules.nouveau: the cell ended as pass" in output
    assert "modules.nouveau should have named the cause" not in output
    assert bench.report().summary.verdict == "fail"


@pytest.mark.parametrize(
    ("behaviour", "status", "words"),
    [
        ("install-fails", 1, "the cell ended as fail (cause: fake)"),
        ("refuses", 1, "the cell ended as refused (cause: fake.refusal)"),
        ("error", 3, "the cell ended as error"),
    ],
)
def test_something_else_happened(
    bench: Bench, ours: str, behaviour: str, status: int, words: str
) -> None:
    bench.script.write_text(f'["*"]\nbehaviour = "{behaviour}"\n')
    found, output = reproduce(bench, ours, "--shell")
    assert found == status, output
    assert words in output
    assert "no shell: no machine was booted" in output


def test_an_installers_code_names_the_cause_too(bench: Bench, tmp_path: Path) -> None:
    path = tmp_path / "refused.toml"
    path.write_text(SCENARIO.replace("modules.nouveau", "fake.refusal"))
    bench.script.write_text('["*"]\nbehaviour = "refuses"\n')
    status, output = reproduce(bench, str(path))
    assert status == 0, output
    assert "named by the installers (fake.refusal): the fake refuses" in output


def test_what_a_node_must_stand(bench: Bench) -> None:
    status, output = reproduce(bench, "proxy-intercept", "--shell")
    assert status == 0, output
    assert "This node is made for it: trust.os-store passes." in output
    assert "airlock node#" in output


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["clock-behin"], "did you mean 'clock-behind'?"),
        (["proxy-auth+direct"], "has no proxy to set"),
        (["./none.toml"], "No such file"),
        (["proxy", "--image", "debian-21"], "unknown image 'debian-21'"),
    ],
)
def test_mistakes_are_usage_errors(bench: Bench, words: list[str], reason: str) -> None:
    status, output = reproduce(bench, *words)
    assert status == 2, output
    assert reason in output
    assert "Traceback" not in output


def test_a_run_takes_scenarios_put_together(bench: Bench, ours: str) -> None:
    status, output = bench.run("--image", "debian-12", "--scenario", f"proxy-auth+{ours}")
    assert status == 1, output  # none of the small checks names the cause
    (cell,) = bench.report().cells
    assert cell.id == "debian-12+proxy-auth+ours+driver"
    assert "modules.nouveau should have named the cause" in output
