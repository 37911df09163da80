"""How an agent ends: by its patience, and with what it was doing."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from harness.deadline import Deadline
from harness.transports.process import AgentProcess
from installers.execute import Programs


def test_an_agent_that_hears_nobody_ends(node_file: Path) -> None:
    """Its input stays open, as when a cable is pulled: only silence tells it."""
    argv = [sys.executable, str(node_file), "agent", "--stdio", "--patience", "1"]
    agent = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    assert agent.stdin is not None
    with agent.stdin:
        assert agent.wait(120) == 0


def test_programs_end_with_the_agent_and_none_is_started_any_more() -> None:
    programs = Programs()
    done: list[object] = []
    thread = threading.Thread(target=lambda: done.append(programs.run(["sleep", "600"])["code"]))
    thread.start()
    deadline = time.monotonic() + 30
    while not programs._running:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    programs.stop()
    thread.join(30)
    assert done == [-9]
    with pytest.raises(OSError, match="the agent is ending"):
        programs.run(["true"])


def test_a_greeting_is_found_in_the_noise_and_what_follows_is_the_agents() -> None:
    script = "echo welcome; echo 'hello: 3.11'; exec cat >/dev/null"
    process = AgentProcess("here", ["sh", "-c", script])
    try:
        assert process.greeted("hello: ", Deadline(60, "greeting"), lambda: None) == "3.11"
        process.feed(b"x" * 300_000, Deadline(60, "feeding"))
    finally:
        process.close()


@pytest.mark.parametrize(("script", "code"), [("echo no; exit 7", 7), ("exit 255", 255)])
def test_a_process_that_greets_nobody(script: str, code: int) -> None:
    process = AgentProcess("here", ["sh", "-c", f"echo why >&2; {script}"])
    try:
        assert process.greeted("hello: ", Deadline(60, "greeting"), lambda: None) is None
        assert process.last_words() == (code, "why")
    finally:
        process.close()


def test_who_waits_for_a_greeting_may_be_stopped() -> None:
    class Stop(Exception):
        pass

    def watch() -> None:
        raise Stop

    process = AgentProcess("here", ["sleep", "600"])
    began = time.monotonic()
    with pytest.raises(Stop):
        process.greeted("hello: ", Deadline(60, "greeting"), watch)
    process.close()
    assert time.monotonic() - began < 20
