"""What the facts say of disks and of set-up scripts."""

from __future__ import annotations

from pathlib import Path

import pytest

from installers.collect import keyservers, volumes
from installers.collect.reader import Reader
from installers.facts import AREAS, Collector

MOUNTS = """\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 22 0:25 / /run rw - tmpfs tmpfs rw
40 22 0:40 / /data rw - btrfs /dev/vdd rw
50 22 254:17 / /boot/efi rw - vfat /dev/vdb1 rw
"""


class Tree(Reader):
    """A tree that counts as a running node's."""

    def need_live(self, fact: str) -> bool:
        del fact
        return True


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    block = tmp_path / "sys/class/block"
    for name, number, size in (
        ("vda", "254:0", 1000),
        ("vdb", "254:16", 2000),
        ("vdc", "254:32", 209715200),
        ("vdd", "254:48", 4000),
        ("loop0", "7:0", 5000),
        ("sr0", "11:0", 100),
        ("vde", "254:64", 4000),
        ("vdf", "254:80", 4000),
    ):
        (block / name / "holders").mkdir(parents=True)
        (block / name / "dev").write_text(f"{number}\n")
        (block / name / "size").write_text(f"{size}\n")
    (block / "vdb/vdb1/holders").mkdir(parents=True)
    (block / "vdb/vdb1/partition").write_text("1\n")
    (block / "vdb/vdb1/dev").write_text("254:17\n")
    (block / "vde/holders/dm-0").mkdir()
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/mountinfo").write_text(MOUNTS)
    (tmp_path / "proc/swaps").write_text("Filename Type\n/dev/vdf partition 1 2 3\n")
    return tmp_path


def test_disks_and_their_uses(tree: Path) -> None:
    found = {disk["name"]: disk for disk in volumes.collect(Tree(str(tree)))}
    assert {name: disk["uses"] for name, disk in found.items()} == {
        "vda": ["/"],
        "vdb": ["/boot/efi"],
        "vdc": [],
        "vdd": ["/data"],
        "vde": ["dm-0"],
        "vdf": ["swap"],
    }
    assert found["vdc"]["size"] == 100 << 30


def test_an_image_has_no_disks(tree: Path) -> None:
    reader = Reader(str(tree))
    assert volumes.collect(reader) == []
    assert "volumes" in reader.unreadable


def test_scripts_that_ask_a_key_server(tmp_path: Path) -> None:
    texts = {
        "usr/local/sbin/a": "#!/bin/sh\n# --recv-keys\ngpg --batch --recv-keys A4B4\n",
        "opt/vendor/bin/b": "apt-key adv --keyserver hkp://keys.example:80 --recv F6\n",
        "etc/rc.local": "curl -fsS https://example/key.asc\n",
        "opt/a/b/c/d/deep": "gpg --recv-keys 1\n",
        "usr/bin/gpg-doc": "gpg --recv-keys 1\n",
        "usr/local/bin/program": "\0ELF --recv-keys\n",
    }
    for path, text in texts.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    found = keyservers.collect(Reader(str(tmp_path)))
    assert [(hit["path"], hit["line"]) for hit in found] == [
        ("/usr/local/sbin/a", 3),
        ("/opt/vendor/bin/b", 1),
    ]
    assert found[0]["text"] == "gpg --batch --recv-keys A4B4"


def test_whatever_the_facts_hold_is_an_area(tree: Path) -> None:
    """One that AREAS lacks would be null for ever, without a word why."""
    about = {"schema", "nonce", "clock", "seconds", "timings", "unreadable"}
    found = {"controls", "probes", "cards"}
    assert set(Collector(str(tree)).collect()) - about - found == set(AREAS)
