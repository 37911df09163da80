"""A broken node of the lab in a capsule, and the same failed check on another machine."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from harness.capsules import archive
from harness.state import keys_dir

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.xdist_group("main-job")]


def airlock(*words: str, code: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "harness.cli", *words],
        capture_output=True,
        text=True,
        timeout=2400,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


def test_a_full_disk_behind_a_proxy_is_seen_again(tmp_path: Path) -> None:
    """By what the node itself says: its size, its free space, its proxy, its CA."""
    capsule, out = tmp_path / "full.tar.gz", str(tmp_path / "out")
    airlock("node", "up", "--scenario", "proxy-auth+disk-20g", "--name", "full")
    try:
        shown = airlock("capture", "full", "--yes", "-o", str(capsule))
    finally:
        airlock("node", "down", "full")
    assert "metadata.json" in shown
    held = archive.read(capsule)
    password = (keys_dir() / "proxy-password").read_bytes()
    assert not [name for name, data in held.members.items() if password in data]
    assert b"airlock-proxy" in held.members["journal.txt"]
    # What takes a node is open: exit code 1 is for the full disk.
    assert "system.disk" in airlock("check", str(capsule), "--out", out, code=1)
    told = airlock("reproduce", str(capsule), "--out", out)
    assert "    disk: 20480 MiB" in told
    assert "named by the check system.disk:" in told
    assert "system.disk: failed here too" in told
