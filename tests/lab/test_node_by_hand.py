"""A real node by hand: in over the channel and by ssh, saved, ended, resumed; frozen both ways."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from harness.lab.frozen import VARIABLE

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.xdist_group("main-job")]

AIRLOCK = [sys.executable, "-m", "harness.cli", "node"]


def node(*words: str, said: str = "", code: int = 0) -> str:
    """One action; ``said`` goes to its standard input."""
    done = subprocess.run(
        [*AIRLOCK, *words], input=said, capture_output=True, text=True, timeout=1500, check=False
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("way", ["memory", "snapshot"])
def test_a_node_by_hand(way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, way)
    name, again = f"hand-{way}", f"again-{way}"
    assert f"{name} is up" in node("up", "--name", name)
    try:
        host = node("ssh", name, "--", "hostname").strip()
        assert re.fullmatch(r"airlock-[0-9a-f]{6}", host), "a fork has a name of its own"
        assert node("ssh", name, "--", "systemctl is-system-running").strip() == "running"
        node("ssh", name, "--", "exit 3", code=1)
        assert f"uid=0(root)\n{host}\n" in node("ssh", name, said="id -un; id; hostname\n").replace(
            " gid=0(root) groups=0(root)", ""
        )
        node("ssh", name, "--", "echo here > /run/in-memory; echo kept > /root/on-disk")
        saved = tmp_path / "saved.tar"
        node("save", name, str(saved))
        assert node("ssh", name, "--", "hostname").strip() == host, "it runs on"
    finally:
        node("down", name)
    assert name not in node("list")
    node("resume", str(saved), "--name", again)
    try:
        told = node("ssh", again, "--", "cat /run/in-memory /root/on-disk; hostname; date +%s")
        assert told.split()[:3] == ["here", "kept", host]
        proxy = "curl -s -o /dev/null -w '%{http_connect}' -p -x 10.0.2.100:3128 http://x.test/"
        assert node("ssh", again, "--", f"{proxy} || true").strip() in ("403", "503", "200")
    finally:
        node("down", again)
