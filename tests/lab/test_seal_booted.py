"""Sealing a machine that runs: what it logs meanwhile is not in its image."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.pack import pack
from harness.state import cache_dir
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
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="airlock-boot-") as scratch:
        root = container.unpacked("debian-12", Path(scratch))
        container.furnish(root, pack(cache_dir("node")).path, [])
        (root / "etc/machine-id").write_text("")
        build = {"instance": {"attributes": {"invocation-type": "custom-images"}}}
        (root / "root/build.json").write_text(json.dumps(build))
        program = container.nspawn(tmp_path)
        with container.Node(root, Path(scratch) / "seal", program) as made:
            made.boot(agent=False)
            yield made


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
