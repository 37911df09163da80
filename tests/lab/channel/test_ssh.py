"""The SSH transport against a real sshd, unpacked for the test and never installed."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.node import Transport
from harness.pack import pack
from harness.testinfra_host import make_host
from harness.transports.base import CommandTimeout, NodeGone, TransportError
from harness.transports.shell import PARTS
from harness.transports.ssh import SshTransport
from tests.lab.channel.machine import Machine, running, without_python

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def sshd() -> Iterator[Machine]:
    """A machine with a running sshd."""
    with running() as found:
        yield found


@pytest.fixture(scope="module")
def node_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``airlock-node.pyz`` of this source tree."""
    return pack(tmp_path_factory.mktemp("node-file")).path


Connect = Callable[[Machine], SshTransport]


@pytest.fixture
def connect(node_file: Path) -> Iterator[Connect]:
    """Makes transports to an sshd, and closes them."""
    with contextlib.ExitStack() as stack:

        def connected(sshd: Machine) -> SshTransport:
            node = SshTransport("127.0.0.1", node_file, port=sshd.port, options=sshd.options())
            stack.callback(node.close)
            return node

        yield connected


def test_facts_commands_and_files_over_one_connection(connect: Connect, sshd: Machine) -> None:
    node, folder = connect(sshd), sshd.folder
    assert isinstance(node, Transport)
    before = (folder / "log").read_text().count("Accepted publickey")
    facts = node.facts("n")
    assert facts["nonce"] == "n"
    assert facts["kernel"]["release"] == os.uname().release
    assert node.run("echo it\\'s; exit 4").code == 4
    assert node.run(["printf", "%s", "a b"]).out == b"a b"
    data = os.urandom(2_000_000)
    node.put(data, str(folder / "file"))
    assert node.get(str(folder / "file")) == data
    started = time.monotonic()
    node.facts()
    assert time.monotonic() - started < 1
    assert (folder / "log").read_text().count("Accepted publickey") - before == 1


def test_commands_see_a_clean_environment(connect: Connect, sshd: Machine) -> None:
    names = {line.split(b"=")[0] for line in connect(sshd).run(["env"]).out.splitlines()}
    assert names == {b"PATH", b"LANG", b"HOME"}


def test_the_node_file_is_never_on_its_disk(connect: Connect, sshd: Machine) -> None:
    before = sshd.files()
    node = connect(sshd)
    node.facts()
    (agent,) = sshd.agents()
    assert sshd.files() == before
    maps = [str(link.readlink()) for link in Path(f"/proc/{agent}/fd").iterdir()]
    assert "/memfd:airlock-node (deleted)" in maps


def test_a_node_with_only_sh_says_what_could_not_be_read(connect: Connect, sshd: Machine) -> None:
    full = connect(sshd).facts()
    with running(hidden=without_python()) as without:
        _only_sh(connect(without), full)


def _only_sh(bare: SshTransport, full: dict[str, Any]) -> None:
    facts = bare.facts("n")
    for area in ("os", "identity", "kernel", "packages", "trust"):
        unknown = dict.fromkeys(PARTS.get(area, ()))
        assert facts[area] == (full[area] | unknown if unknown else full[area]), area
        for part in unknown:
            assert facts["unreadable"][f"{area}.{part}"] == "the node has no python3, only sh"
    assert facts["nonce"] == "n"
    assert facts["modules"] is None
    for name in ("python", "modules", "hygiene", "secure_boot.keyrings", "systemd"):
        assert facts["unreadable"][name] == "the node has no python3, only sh"
    assert "identity.boot_id" not in facts["unreadable"]
    assert bare.run(["echo", "a  b"]).out == b"a  b\n"
    assert bare.run("cat", stdin=b"\0in").out == b"\0in"
    assert make_host(bare).file("/etc/passwd").exists
    with pytest.raises(TransportError, match=r"probe: the node has no python3, only sh"):
        bare.probe()


def test_a_command_that_hangs(connect: Connect, sshd: Machine) -> None:
    node = connect(sshd)
    with pytest.raises(CommandTimeout, match="its last words: said"):
        node.run("echo said; sleep 30", timeout=0.5)
    assert node.run("echo on").out == b"on\n"


def test_a_connection_that_is_cut(connect: Connect, sshd: Machine) -> None:
    node = connect(sshd)
    node.facts()
    with pytest.raises(NodeGone, match="the node closed the connection"):
        node.run("kill -9 $PPID")
    assert node.run("echo again").out == b"again\n"


def test_nobody_is_let_in_without_a_key(sshd: Machine, node_file: Path) -> None:
    options = sshd.options(key="stranger")
    node = SshTransport("127.0.0.1", node_file, port=sshd.port, options=options)
    with pytest.raises(TransportError, match=r"lets nobody in with our key \(.*publickey"):
        node.facts()
    node.close()


def test_nobody_listens(node_file: Path) -> None:
    node = SshTransport("127.0.0.1", node_file, port=1)
    with pytest.raises(TransportError, match=r"cannot be reached \(Connection refused\)"):
        node.run("true")
    node.close()
