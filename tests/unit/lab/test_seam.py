"""What the lab puts into a node, and the machine it makes for it."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from fixtures import capture
from harness.lab import addresses as at
from harness.lab import seam, vm
from harness.lab.firmware import Firmware


def test_the_archive_holds_what_is_given_and_belongs_to_root() -> None:
    data = seam.archive({"usr/bin/tool": b"#!/bin/sh\n"}, executable=frozenset({"usr/bin/tool"}))
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        members = {m.name: m for m in tar.getmembers()}
    assert all((m.uid, m.gid) == (0, 0) for m in members.values())
    assert members["usr/bin/tool"].mode == 0o755
    assert members["etc/resolv.conf"].mode == 0o644
    assert members["etc/systemd/system/apt-daily.timer"].linkname == "/dev/null"
    # A directory that the image has keeps its mode: only directories it may lack are in there.
    assert all(
        m.name.endswith((".wants", ".service.d", ".device.d"))
        for m in members.values()
        if m.isdir()
    )


def test_the_archive_is_the_same_every_time() -> None:
    assert seam.archive() == seam.archive()


@pytest.fixture
def machine(tmp_path: Path) -> vm.Machine:
    return vm.Machine(
        directory=tmp_path,
        root=tmp_path / "root.qcow2",
        esp=tmp_path / "esp.img",
        firmware=Firmware(tmp_path / "code.fd", tmp_path / "vars.fd"),
        variables=tmp_path / "own.fd",
        proxy_port=3129,
        metadata_port=8080,
    )


def test_both_cards_are_restricted_and_lead_to_one_place_each(machine: vm.Machine) -> None:
    words = machine.arguments()
    cards = [word for word in words if word.startswith("user,")]
    assert len(cards) == 2
    assert all("restrict=on" in card and card.count("guestfwd") == 1 for card in cards)
    assert "10.0.2.100:3128-cmd:" in cards[0]
    assert cards[0].endswith("STDIO TCP:127.0.0.1:3129")
    assert "169.254.169.254:80-cmd:" in cards[1]
    # QEMU switches IPv4 off where only IPv6 is named.
    assert "ipv4=on,ipv6=on" in cards[0]


def test_without_a_proxy_there_is_no_way_to_one(machine: vm.Machine) -> None:
    direct = vm.Machine(**{**vars(machine), "proxy_port": None})
    assert not any("10.0.2.100" in word for word in direct.arguments())


def test_memory_is_shared_while_prepared_and_private_in_a_fork(machine: vm.Machine) -> None:
    ram = machine.directory / "ram"
    prepared = vm.Machine(**{**vars(machine), "ram": ram})
    fork = vm.Machine(**{**vars(machine), "ram": ram, "start": "incoming"})
    assert any(word.endswith("share=on") for word in prepared.arguments())
    assert any(word.endswith("share=off") for word in fork.arguments())
    assert "defer" in fork.arguments()
    assert "defer" not in prepared.arguments()


def test_a_fork_is_known_by_both_its_addresses() -> None:
    assert at.peers().node == [at.MAC]
    allowed = at.peers(at.MAC, "52:54:00:00:00:01")
    assert list(allowed.node) == [at.MAC, "52:54:00:00:00:01"]
    assert capture.classify([], allowed)["violations"] == []
