"""Nodes that stay up after their run: how to get in, and how they end."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from harness import kept, nodes
from harness.errors import UsageError
from harness.state import started_at
from tests.unit.core.test_bad_days import alive, child_of, wait_for
from tests.unit.core.workbench import AUTH, TRIXIE, Bench


@pytest.fixture
def state(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The bench's state directory, as this process sees it too."""
    monkeypatch.setenv("AIRLOCK_STATE", str(bench.state))
    return bench.state


def keep(bench: Bench, *words: str, child: bool = True) -> tuple[int, str]:
    """A run of two cells with ``--keep``, the second of which fails."""
    started = "child = true\n" if child else ""
    bench.script.write_text(
        f'["{AUTH}"]\n{started}["{TRIXIE}"]\n{started}["{TRIXIE}".facts]\n"os.id" = "slackware"\n'
    )
    return bench.run("-k", "proxy-auth or debian-13", "--keep", *words)


def test_a_node_that_failed_stays_up_and_answers_until_it_is_ended(
    bench: Bench, state: Path
) -> None:
    status, output = keep(bench, "on-failure")
    assert status == 1, output
    (node,) = kept.listing()
    assert (node.cell, node.provider) == (TRIXIE, "fake")
    assert node.why == "fail: failed: small.os"
    assert f"airlock node ssh {node.name}" in output
    assert f"airlock node down {node.name}" in output
    child = child_of(bench, TRIXIE)
    assert [process.pid for process in node.processes] == [child]
    assert not alive(child_of(bench, AUTH)), "a good node stayed up"

    for _ in range(2):
        with node.transport() as transport:
            assert transport.facts("7", timeout=5)["nonce"] == "7"
    assert bench.run("--scenario", "proxy-auth+rebooted")[0] == 0
    assert alive(child), "another run swept a node that is kept"

    node.end()
    assert not alive(child)
    assert not node.holder.alive
    assert bench.leftovers() == []
    assert kept.listing() == []
    with pytest.raises(UsageError, match="there is no node"):
        nodes.find(node.name)
    assert (state / "kept").is_dir()


def test_every_node_stays_up_if_asked_and_one_ends_without_the_others(
    bench: Bench, state: Path
) -> None:
    del state
    status, output = keep(bench, "always")
    assert status == 1, output
    nodes = {node.cell: node for node in kept.listing()}
    assert set(nodes) == {AUTH, TRIXIE}
    nodes[AUTH].end()
    assert not alive(child_of(bench, AUTH))
    assert alive(child_of(bench, TRIXIE))
    assert [node.cell for node in kept.listing()] == [TRIXIE]
    os.kill(nodes[TRIXIE].holder.pid, signal.SIGTERM)
    wait_for(lambda: not nodes[TRIXIE].holder.alive)
    assert not alive(child_of(bench, TRIXIE))
    assert bench.leftovers() == []
    assert kept.listing() == []


def test_nothing_is_kept_without_a_reason(bench: Bench, state: Path) -> None:
    del state
    status, output = bench.run("--scenario", "proxy-auth+rebooted", "--keep", "on-failure")
    assert status == 0, output
    assert "kept:" not in output
    assert kept.listing() == []
    assert bench.leftovers() == []


def test_a_holder_that_was_killed_is_swept_with_its_nodes(bench: Bench, state: Path) -> None:
    del state
    keep(bench, "on-failure")
    (node,) = kept.listing()
    os.kill(node.holder.pid, signal.SIGKILL)
    wait_for(lambda: not node.holder.alive)
    assert kept.listing() == []
    status, output = bench.run("--scenario", "proxy-auth+rebooted")
    assert status == 0
    assert f"process {node.processes[0].pid} (sleep)" in output
    assert not alive(node.processes[0].pid)
    assert bench.leftovers() == []


def test_the_ways_in_and_out_that_a_run_prints_work(bench: Bench, state: Path) -> None:
    del state
    keep(bench, "on-failure")
    (node,) = kept.listing()

    def airlock(*words: str) -> tuple[int, str]:
        process = bench.start("node", *words)
        output, _ = process.communicate(timeout=60)
        return process.returncode, output

    status, output = airlock("list")
    assert status == 0
    assert node.name in output
    assert node.run in output
    # A double has no programs, and says so: it was asked.
    assert "exec" in airlock("ssh", node.name, "--", "true")[1]
    status, output = airlock("ssh", node.name)
    assert status == 3
    assert "no ssh leads to this node" in output
    assert airlock("down", node.name) == (0, f"{node.name} is down\n")
    assert "no node is up" in airlock("list")[1]
    assert bench.leftovers() == []


def test_a_node_that_dies_by_itself_is_kept_no_longer(bench: Bench, state: Path) -> None:
    del state
    keep(bench, "on-failure")
    (node,) = kept.listing()
    os.kill(node.processes[0].pid, signal.SIGKILL)
    wait_for(lambda: not node.holder.alive)
    assert kept.listing() == []
    assert bench.leftovers() == []


def test_a_holder_that_hangs_is_killed(
    bench: Bench, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    del state
    keep(bench, "on-failure")
    (node,) = kept.listing()
    monkeypatch.setattr(kept, "END_SECONDS", 0.5)
    os.kill(node.holder.pid, signal.SIGSTOP)
    node.end()
    assert not node.holder.alive
    wait_for(lambda: not alive(node.processes[0].pid))
    assert bench.leftovers() == []


def test_a_command_that_is_killed_takes_its_run_with_it(bench: Bench, state: Path) -> None:
    del state
    bench.script.write_text('["*"]\nseconds = 60\nchild = true\n')
    process = bench.start_run("--scenario", "proxy-auth+rebooted", "--keep", "always")
    child = child_of(bench, AUTH)
    owner = int((bench.state / "runs" / bench.leftovers()[0] / "owner").read_text().split()[1][:-1])
    assert owner != process.pid
    os.kill(process.pid, signal.SIGKILL)
    process.wait(timeout=10)
    wait_for(lambda: started_at(owner) is None)
    bench.script.write_text("")
    assert bench.run("--scenario", "proxy-auth+rebooted")[0] == 0
    assert not alive(child)
    assert bench.leftovers() == []


def test_ctrl_c_keeps_nothing(bench: Bench, state: Path) -> None:
    del state
    bench.script.write_text('["*"]\nchild = true\n')
    words = ("--scenario", "proxy-auth+rebooted", "--keep", "always")
    process = bench.start_run(*words, SLOW_CHECK="60")
    child = child_of(bench, AUTH)
    wait_for(bench.slow_began.exists)
    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 3, output
    assert not alive(child)
    assert kept.listing() == []
    assert bench.leftovers() == []
