"""Completion, asked by the shells themselves; those that are not installed are skipped."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from harness.cli import VERBS, main
from tests.unit.packaging.installed import ROOT

#: Asks for the ways to go on after $LINE, whose last word begins at the last blank.
ASK = {
    "bash": """
eval "$(airlock completion bash)"
COMP_LINE=$LINE; COMP_POINT=${#LINE}; COMP_TYPE=9; COMPREPLY=()
_python_argcomplete airlock "${LINE##* }" x
printf '%s\\n' "${COMPREPLY[@]}"
""",
    # zsh's own way to show them takes a terminal: here they are printed.
    "zsh": """
autoload -Uz compinit is-at-least && compinit -u -D
eval "$(airlock completion zsh)"
_describe() { eval 'print -l -- "${'$2'[@]}"' }
BUFFER=$LINE; CURSOR=${#LINE}; words=(${=LINE}); compstate=()
_python_argcomplete airlock
""",
    "fish": 'airlock completion fish | source; complete -C "$LINE"',
}
START = {"bash": ["bash", "--norc", "-c"], "zsh": ["zsh", "-f", "-c"], "fish": ["fish", "-Nc"]}


@pytest.fixture
def path(tmp_path: Path) -> str:
    """A PATH with ``airlock``."""
    program = tmp_path / "bin/airlock"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m harness.cli "$@"\n')
    program.chmod(0o755)
    return f"{program.parent}:{os.environ['PATH']}"


def asked(shell: str, line: str, path: str) -> set[str]:
    """The words that a shell would offer."""
    if shutil.which(shell, path=path) is None:
        pytest.skip(f"{shell} is not installed")
    done = subprocess.run(
        [*START[shell], ASK[shell]],
        env={**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "LINE": line},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stderr == ""
    # fish and zsh show what a word means behind it.
    words = {one.partition("\t")[0].strip() for one in done.stdout.splitlines()}
    return {word.partition(":")[0] if shell == "zsh" else word for word in words} - {""}


@pytest.mark.parametrize("shell", list(ASK))
def test_verbs_options_and_values(shell: str, path: str) -> None:
    assert asked(shell, "airlock sab", path) == {"sabotage"}
    assert asked(shell, "airlock run --sc", path) == {"--scenario"}
    assert asked(shell, "airlock run --image debian-1", path) >= {"debian-11", "debian-12"}


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("airlock ", {"run", "check"}),
        ("airlock run --keep ", {"never", "on-failure", "always"}),
        ("airlock node up --provider ho", {"host"}),
        ("airlock check lo", {"local"}),
        ("airlock reproduce --profile dri", {"driver"}),
        ("airlock no-such-verb ", set()),
        ('airlock run "', set()),
    ],
)
def test_more_of_the_command_line(line: str, found: set[str], path: str) -> None:
    assert asked("bash", line, path) >= found


def test_a_shell_that_nobody_knows(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "tcsh"]) == 2
    assert "invalid choice" in capsys.readouterr().err
    assert "completion" in VERBS
