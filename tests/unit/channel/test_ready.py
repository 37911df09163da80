"""When the agent says that a node is ready."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from installers import agent as agents
from installers.collect import systemd
from installers.port import Port


def test_a_manager_that_is_re_executed_while_booting_is_not_ready(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """``systemctl is-system-running --wait`` then ends at once, or never; it may not answer."""
    monkeypatch.setattr(agents, "BOOTED", tmp_path)
    states = iter(["initializing", None, "running"])
    asked: list[list[str]] = []

    def ended(argv: list[str], *, timeout: float, **_: Any) -> None:
        asked.append(argv)
        if len(asked) == 2:
            raise subprocess.TimeoutExpired(argv, timeout)

    monkeypatch.setattr(subprocess, "run", ended)
    monkeypatch.setattr(systemd, "collect", lambda _reader: {"state": next(states), "failed": []})
    read_end, write_end = os.pipe()
    agent = agents.Agent(Port(read_end, write_end, returns=False))
    assert agent._settled()["state"] == "running"
    assert len(asked) == 3
    os.close(read_end)
    os.close(write_end)


def test_where_there_is_no_systemd_nothing_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(agents, "BOOTED", tmp_path / "none")
    monkeypatch.setattr(systemd, "collect", lambda _reader: {"state": None, "failed": []})
    read_end, write_end = os.pipe()
    agent = agents.Agent(Port(read_end, write_end, returns=False))
    assert agent._settled()["state"] is None
    os.close(read_end)
    os.close(write_end)
