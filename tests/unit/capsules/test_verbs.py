"""From a node that is up to its capsule, and from there to a judgement and to its environment."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import cli
from harness.capsules import archive
from tests.unit.core.workbench import Bench, outcomes

HELD = '["*"]\n["*".facts]\nloaded_modules = ["nouveau"]\n'


def verb(bench: Bench, *words: str) -> tuple[int, str]:
    process = bench.start(*words)
    output, _ = process.communicate(timeout=300)
    return process.returncode, output


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Bench]:
    """A broken node by hand, made of data, called ``customer``."""
    bench = Bench(tmp_path)
    bench.script.write_text(HELD)
    status, output = verb(
        *(bench, "node", "up", "--provider", "fake", "--scenario", "proxy", "--name", "customer")
    )
    assert status == 0, output
    yield bench
    verb(bench, "node", "down", "customer")


def at_a_terminal(bench: Bench, answers: str, *words: str) -> tuple[int, str]:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "harness.cli", *words],
        cwd=bench.path,
        env=bench.environment(),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    os.write(ours, answers.encode())
    said = b""
    try:
        while part := os.read(ours, 65536):
            said += part
    except OSError:  # Linux's way to say that the other side is closed
        pass
    os.close(ours)
    return process.wait(60), said.decode(errors="replace")


def test_capture_check_reproduce(node: Bench) -> None:
    # Nobody at a terminal, nobody who said yes.
    status, output = verb(node, "capture", "customer", "-o", "c.tar.gz")
    assert status == 2, output
    assert "facts.json" in output
    assert "nothing was written" in output
    assert not (node.path / "c.tar.gz").exists()

    # At a terminal: a look, and no; then yes.
    words = ("capture", "customer", "-o", "c.tar.gz")
    status, output = at_a_terminal(node, "facts.json\nnone.txt\nn\n", *words)
    assert status == 4, output
    assert '"nouveau"' in output
    assert "there is no 'none.txt' in it" in output
    assert not (node.path / "c.tar.gz").exists()
    status, output = at_a_terminal(node, "y\n", *words)
    assert status == 0, output
    assert "written: c.tar.gz" in output
    capsule = archive.read(node.path / "c.tar.gz")
    assert {"facts.json", "ledger.json", "expect.json", "sbom.cdx.json", "provenance.json"} <= set(
        capsule.members
    )
    assert capsule.manifest["simulated"] is True
    assert capsule.manifest["missing"] == {"journal.txt": "a fake node has none"}

    # It is there now, and stays.
    status, output = verb(node, "capture", "customer", "--yes", "-o", "c.tar.gz")
    assert status == 2, output
    assert "is there already" in output

    # The node is gone; its capsule is judged by checks of another day.
    verb(node, "node", "down", "customer")
    status, output = verb(node, "check", "c.tar.gz", "--checks", str(node.checks))
    assert status == 0, output
    assert "1 check could not be verified" in output
    (cell,) = node.report().cells
    found = outcomes(cell)
    assert found["small.kernel"] == found["small.os"] == "pass"
    assert found["small.ping"] == "not-verified", "that takes a node"
    assert cell.simulated

    # And its environment is built again, where the same check fails.
    status, output = verb(node, "reproduce", "c.tar.gz", "--provider", "fake")
    assert status == 0, output
    assert "    image: debian-12, of debian 12" in output
    assert "not rebuilt:" in output
    assert "named by the check modules.nouveau: nouveau is loaded" in output
    assert "modules.nouveau: failed here too" in output
    (cell,) = node.report().cells
    assert cell.scenario.startswith("capsule-")
    assert (cell.expected, cell.named_by) == ("named", "modules.nouveau")

    # Where it does not, that is said, and the exit code says it as well.
    node.script.write_text("")
    status, output = verb(node, "reproduce", "c.tar.gz", "--provider", "fake")
    assert status == 1, output
    assert "modules.nouveau: passed here" in output


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["capture", "nobody"], "there is no node 'nobody'"),
        (["capture", "ftp://x"], "is no target"),
        (["capture", "local", "-o", "none/c.tar.gz"], "there is no directory none"),
        (["capture", "local", "--hide", "none.txt"], "--hide none.txt: cannot be read"),
        (["check", "none.tar.gz"], "No such file"),
    ],
)
def test_mistakes_are_usage_errors(
    words: list[str],
    reason: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AIRLOCK_STATE", str(tmp_path / "state"))
    assert cli.main(words) == 2
    assert reason in capsys.readouterr().err


def test_words_too_short_to_hide(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("words").write_text("corp.example\nab\n")
    assert cli.main(["capture", "local", "--hide", "words"]) == 2
    assert "words:2: too short" in capsys.readouterr().err
