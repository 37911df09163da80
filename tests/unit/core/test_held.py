"""Nodes by hand: up, found, asked, ended, and what a killed holder leaves behind."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from harness import held
from harness.cli import main
from harness.state import started_at, state_dir
from harness.sweep import sweep
from tests.unit.core.workbench import Bench

WHO = ["--provider", "fake"]


@pytest.fixture(autouse=True)
def own_state(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """State and script of this test's own, for this process and for the holders it starts."""
    for name, value in bench.environment().items():
        monkeypatch.setenv(name, value)


def airlock(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    status = main(list(words))
    said = capsys.readouterr()
    return status, said.out + said.err


def standing() -> held.Held:
    """The only node."""
    (node,) = held.listed()
    return node


def records() -> list[Path]:
    return list((state_dir() / "runs").iterdir())


def test_a_node_stays_until_it_is_told_to_end(capsys: pytest.CaptureFixture[str]) -> None:
    status, said = airlock(capsys, "node", "up", "--name", "one", *WHO)
    assert status == 0
    assert "airlock node ssh one" in said
    node = standing()
    try:
        assert node.up
        assert started_at(node.pid) == node.start
        assert sweep().runs == [], "a node that is up is no leftover"
        status, said = airlock(capsys, "node", "list")
        assert "debian-12+proxy-intercept+driver" in said
        with node.transport() as transport:
            assert transport.call("ping", timeout=10) is not None
        assert airlock(capsys, "node", "up", "--name", "one", *WHO)[0] == 2, "the name is taken"
        assert "cannot do 'ssh'" in airlock(capsys, "node", "ssh", "one")[1]
        assert "cannot do 'save'" in airlock(capsys, "node", "save", "one", "/tmp/x")[1]
        assert standing().pid == node.pid
    finally:
        status, said = airlock(capsys, "node", "down", "one")
    assert status == 0
    assert started_at(node.pid) is None
    assert records() == []
    assert held.listed() == []


def test_what_a_killed_holder_leaves_is_swept(
    capsys: pytest.CaptureFixture[str], bench: Bench
) -> None:
    bench.script.write_text('["debian-12+proxy-intercept+driver"]\nchild = true\n')
    assert airlock(capsys, "node", "up", "--name", "two", *WHO)[0] == 0
    node = standing()
    child = int((node.record / "capsule/child.pid").read_text())
    os.kill(node.pid, signal.SIGKILL)
    assert node._gone(10)
    # The record's lock goes with the last of the dead holder's threads.
    until = time.monotonic() + 10
    while held.listed() and time.monotonic() < until:
        time.sleep(0.05)
    assert held.listed() == []
    assert started_at(child) is not None, "this test needs something that is left"
    assert sweep().runs == [node.record.name]
    assert started_at(child) is None
    assert records() == []


def test_what_breaks_while_a_node_is_made_is_said_and_leaves_nothing(
    capsys: pytest.CaptureFixture[str], bench: Bench
) -> None:
    bench.script.write_text('["debian-12+proxy-intercept+driver"]\nbehaviour = "error"\n')
    status, said = airlock(capsys, "node", "up", "--name", "three", *WHO)
    assert status == 3, said
    assert records() == []


@pytest.mark.parametrize(
    ("words", "exit_code", "said"),
    [
        (["up", "--image", "debain-12"], 2, "did you mean 'debian-12'?"),
        (["up", "--scenario", "proxy-interzept"], 2, "did you mean 'proxy-intercept'?"),
        (["up", "--provider", "qmu"], 2, "did you mean 'qemu'?"),
        (["up", "--name", "A b"], 2, "cannot be a node's name"),
        (["up", "--image", "debian-11"], 2, "UEFI db"),
        (["ssh", "nobody"], 2, "there is no node 'nobody'"),
        (["down", "nobody"], 2, "airlock node up makes one"),
        (["resume", "/no/such/place"], 2, "there is no /no/such/place"),
        (["list"], 0, "no node is up"),
        ([], 2, "required: ACTION"),
    ],
)
def test_bad_input(
    capsys: pytest.CaptureFixture[str], words: list[str], exit_code: int, said: str
) -> None:
    status, printed = airlock(capsys, "node", *words)
    assert (status, said in printed) == (exit_code, True), printed
    assert not (state_dir() / "runs").exists() or records() == []
