"""systemd itself: first boot, second boot, races, failures, stale stamps."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from fixtures import dataproc
from harness.pack import pack
from harness.state import cache_dir
from installers.deferred import stamp, unit
from tests.lab.deferred import container
from tests.lab.deferred.container import NM, Node

pytestmark = [
    pytest.mark.lab,
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root for systemd-nspawn"),
    pytest.mark.skipif(not shutil.which("mmdebstrap"), reason="needs mmdebstrap"),
]
CONFIG = unit.NAME
BUILD = {"invocation-type": "custom-images"}


@pytest.fixture(scope="module")
def image(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[Path, tuple[str, dict[str, str]]]]:
    """An image that the installer has sealed for first boot, and the program that boots it."""
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="airlock-boot-") as scratch:
        root = container.unpacked("debian-12", Path(scratch))
        container.furnish(root, pack(cache_dir("node")).path, [dataproc.L4])
        node_file = root / "usr/lib/airlock/airlock-node.pyz"
        metadata = Path(scratch) / "metadata.json"
        metadata.write_text(json.dumps({"instance": {"attributes": BUILD}}))
        argv = ["python3", str(node_file), "apply", "--only", "deferred", "--root", str(root)]
        subprocess.run([*argv, "--metadata", str(metadata)], check=True)
        assert not (root / stamp.STAMP.lstrip("/")).exists()
        (root / "etc/machine-id").write_text("")
        yield root, container.nspawn(tmp_path_factory.mktemp("nspawn"))


@pytest.fixture
def node(
    image: tuple[Path, tuple[str, dict[str, str]]], request: pytest.FixtureRequest
) -> Iterator[Node]:
    with (
        tempfile.TemporaryDirectory(dir="/var/tmp", prefix="airlock-node-") as scratch,
        Node(image[0], Path(scratch) / request.node.name, image[1]) as made,
    ):
        yield made


def test_first_and_second_boot(node: Node) -> None:
    """And the stamp of another instance, and an agent that writes its files anew."""
    node.boot()
    assert node.started() == ["gpu=1"]
    assert node.result()["outcome"] == "configured"
    assert node.result()["seconds"] < 20
    assert node.run("id", "-nG", "yarn").split() == ["yarn", "video", "render"]
    node.stop()
    node.boot()
    assert node.started() == ["gpu=1", "gpu=1"]
    # The agent wrote its files again, so there was something to do again.
    assert "/etc/hadoop/conf/yarn-site.xml:yarn.resource-types" in node.result()["changes"]
    assert "stamp" not in node.result()["changes"]
    node.run("systemctl", "restart", NM)
    assert node.started() == ["gpu=1"] * 3
    assert node.result()["outcome"] == "unchanged"
    node.stop()
    container.instance(node.root, "4712")
    node.boot()
    assert "stamp" in node.result()["changes"]
    assert node.result()["provenance"]["instance"] == "gce:4712"
    assert node.started() == ["gpu=1"] * 4


def test_the_daemon_waits_for_a_slow_card(node: Node) -> None:
    """The race that Before= alone does not lose, but that is lost without any order."""
    program = node.root / "usr/bin/nvidia-smi"
    slow = program.read_text().replace("def main(", "import time\ntime.sleep(2)\n\n\ndef main(", 1)
    program.write_text(slow)
    node.boot()
    assert node.started() == ["gpu=1"]
    assert node.result()["seconds"] >= 2


def test_a_failed_configuration_keeps_the_daemon_down(node: Node) -> None:
    """And a start after the repair configures first."""
    short = "[Service]\nExecStart=\nExecStart=/usr/bin/python3 /usr/lib/airlock/airlock-node.pyz "
    short += "gpu-config --patience 1\n"
    folder = node.root / container.UNITS / f"{CONFIG}.d"
    (folder / "short.conf").write_text(short)
    container.instance(node.root, "4711", ENABLE_MIG="1")
    node.boot()
    assert node.started() == []
    assert node.run("systemctl", "is-active", NM) == "inactive"
    assert node.run("systemctl", "is-failed", CONFIG) == "failed"
    assert "no GPU of this node has MIG" in node.result()["problems"][0]["what"]
    assert not (node.root / stamp.STAMP.lstrip("/")).exists()
    container.instance(node.root, "4711")
    node.run("systemctl", "start", NM)
    assert node.started() == ["gpu=1"]
    # Ordering alone, as a unit with Before= and no drop-in has it, lets the daemon through.
    node.run("systemctl", "stop", NM)
    container.instance(node.root, "4711", ENABLE_MIG="1")
    for daemon in unit.DAEMONS:
        (node.root / unit.drop_in(daemon).lstrip("/")).unlink()
    (node.root / "etc/hadoop/conf/yarn-site.xml").write_text("<configuration/>")
    node.run("systemctl", "daemon-reload")
    node.run("systemctl", "start", CONFIG, NM)
    assert node.started() == ["gpu=1", "gpu=0"]


def test_apply_on_a_running_node_restarts_what_runs(node: Node) -> None:
    """An init action: configured at once, and no deadlock with the unit that restarts pull in."""
    for daemon in unit.DAEMONS:
        shutil.rmtree((node.root / unit.drop_in(daemon).lstrip("/")).parent)
    (node.root / container.UNITS / CONFIG).unlink()
    node.boot()
    assert node.started() == ["gpu=0"]
    said = node.run(
        *("python3", "/usr/lib/airlock/airlock-node.pyz", "apply", "--only", "deferred", "--json")
    )
    assert json.loads(said)["exit"] == 0, said
    assert node.started() == ["gpu=0", "gpu=1"]
    assert node.run("systemctl", "is-active", NM) == "active"


def test_systemd_has_no_word_to_say(image: tuple[Path, tuple[str, dict[str, str]]]) -> None:
    """systemd-analyze exits 0 for most of what is wrong: its words count."""
    root = image[0]
    for name in (CONFIG, f"{NM}.service", "multi-user.target"):
        done = subprocess.run(
            ["systemd-analyze", f"--root={root}", "verify", "--man=no", name],
            capture_output=True,
            text=True,
            check=False,
        )
        about_us = [line for line in done.stderr.splitlines() if "gpu" in line or "cycle" in line]
        assert about_us == []
