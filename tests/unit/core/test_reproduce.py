"""What reproduce says and how it ends, on nodes made of data."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.unit.core.test_bad_days import belongs_to, wait_for
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
PROMPT = b"airlock node# "


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
    assert cell.id == "debian-12+proxy-auth+ours+full"
    assert "modules.nouveau should have named the cause" in output


def test_no_name_gets_a_list(bench: Bench) -> None:
    status, output = reproduce(bench)
    assert status == 2, output
    assert "which scenario?" in output
    assert "clock-behind, direct, disk-20g" in output


def test_ctrl_c_while_the_symptom_is_shown_stops_in_order(bench: Bench) -> None:
    bench.script.write_text('["*"]\npause = "symptom"\nchild = true\n')
    process = bench.start("reproduce", "proxy-intercept", "--provider", "fake")
    wait_for(lambda: list(bench.path.glob("out/*/cells/*/paused-symptom")), 120)
    (run,) = bench.leftovers()
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 3, output
    assert "stopping in order" in output
    assert "Traceback" not in output
    assert bench.report().run.finished is None
    assert bench.leftovers() == []
    assert belongs_to(run) == []


def test_ctrl_c_in_the_shell_gives_a_new_prompt(bench: Bench) -> None:
    """As in any shell; the node stays up until the shell is left."""
    process = bench.start(
        "reproduce", "proxy-intercept", "--provider", "fake", "--shell", stdin=subprocess.PIPE
    )
    assert process.stdout is not None
    said, until = b"", time.monotonic() + 240
    while said.count(PROMPT) < 2:
        assert time.monotonic() < until, said
        # Again if nothing comes of it: one that arrives just before the read is seen after it.
        if said.endswith(PROMPT) and not select.select([process.stdout], [], [], 1)[0]:
            process.send_signal(signal.SIGINT)
        elif select.select([process.stdout], [], [], 1)[0]:
            said += os.read(process.stdout.fileno(), 4096)
    output, _ = process.communicate("uname\nexit\n", timeout=60)
    assert process.returncode == 0, output
    assert b"stopping" not in said
    assert "a fake node cannot do 'exec'" in output
    assert "This node is made for it" in output


def test_what_a_node_says_cannot_reach_the_terminal(bench: Bench, tmp_path: Path) -> None:
    path = tmp_path / "volume.toml"
    path.write_text(SCENARIO.replace("modules.nouveau", "system.volumes"))
    disk = '{name = "vdb\\u001b[2Jx", size = 107374182400, uses = []}'
    bench.script.write_text(f'["*"]\n["*".facts]\nvolumes = [{disk}]\n')
    status, output = reproduce(bench, str(path))
    assert status == 0, output
    assert "/dev/vdbx: 100 GiB, mounted nowhere" in output
    assert "\x1b" not in output
