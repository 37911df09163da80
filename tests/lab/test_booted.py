"""What only a machine shows that systemd booted: its journal."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from installers import capture
from tests.lab.deferred import container

pytestmark = [
    pytest.mark.lab,
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root for systemd-nspawn"),
    pytest.mark.skipif(not shutil.which("mmdebstrap"), reason="needs mmdebstrap"),
]


@pytest.fixture
def node(tmp_path: Path) -> Iterator[container.Node]:
    """It keeps its journal on disk, as vendors' images do."""

    def prepare(root: Path) -> None:
        build = {"instance": {"attributes": {"invocation-type": "custom-images"}}}
        (root / "root/build.json").write_text(json.dumps(build))

    with container.booted(tmp_path, prepare) as made:
        yield made


def test_a_capture_takes_warnings_and_what_our_units_said(node: container.Node) -> None:
    """Of this boot alone, and of whatever machine's journal it is in."""
    node.run("logger", "-t", "old", "-p", "user.warning", "before the boot")
    node.stop()
    node.boot(agent=False)
    node.run("logger", "-t", "app", "-p", "user.warning", "something is odd")
    node.run("systemd-run", "--wait", "-q", "-u", "airlock-said", "echo", "a word of ours")
    node.run("journalctl", "--sync")
    warnings, units = (node.run(*command) for command in capture.JOURNALS)
    assert "something is odd" in warnings
    assert "before the boot" not in warnings
    assert "a word of ours" in units
    assert "something is odd" not in units


def test_the_journal_goes_to_memory_until_the_next_boot(node: container.Node) -> None:
    kept = node.root / "var/log/journal"
    node.run("logger", "-t", "builder", "before the seal")
    node.run("journalctl", "--sync")
    assert [path for path in kept.rglob("*") if b"before the seal" in _bytes(path)]
    words = ["python3", "/usr/lib/airlock/airlock-node.pyz", "apply", "--only", "seal", "--json"]
    said = node.run(*words, "--metadata", "/root/build.json")
    assert json.loads(said)["exit"] == 0, said
    node.run("logger", "-t", "builder", "after the seal")
    node.run("journalctl", "--sync")
    assert "after the seal" in node.run("journalctl", "-o", "cat", "-t", "builder")
    assert not list(kept.iterdir())
    node.stop()
    assert not list(kept.iterdir())
    # The image's own nodes keep theirs, and know nothing of the builder's.
    node.boot(agent=False)
    assert list(kept.iterdir())
    assert "the seal" not in node.run("journalctl", "-o", "cat", "-t", "builder")


def _bytes(path: Path) -> bytes:
    return path.read_bytes() if path.is_file() else b""
