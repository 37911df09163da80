"""Transports to real agents: on this machine, and behind a socket as QEMU makes one."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.deadline import DeadlinePassed
from harness.errors import InfraError
from harness.node import CellNames, Node
from harness.testinfra_host import make_host
from harness.transports.agent import AgentTransport
from harness.transports.base import (
    CommandTimeout,
    NodeGone,
    RemoteError,
    Transport,
    TransportError,
)
from harness.transports.local import LocalTransport

# Keys of the facts object and the type of each where the machine has it.
SHAPE = {
    "schema": int,
    "nonce": str,
    "clock": float,
    "seconds": float,
    "unreadable": dict,
    "identity": dict,
    "os": dict,
    "kernel": dict,
    "python": str,
    "secure_boot": dict,
    "network": dict,
    "proxy": dict,
    "trust": dict,
    "modules": list,
    "loaded_modules": list,
    "controls": list,
    "probes": list,
    "systemd": dict,
    "disk": list,
    "memory": dict,
    "journal": list,
    "installers": list,
    "hygiene": dict,
    "packages": dict,
    "kernel_log_flags": list,
}


class TestLocal:
    def test_facts_have_their_shape(self, local: LocalTransport) -> None:
        facts = local.facts("a nonce")
        assert {name: type(facts[name]) for name in SHAPE} == SHAPE
        assert facts["identity"]["boot_id"] == _line("/proc/sys/kernel/random/boot_id")
        assert facts["kernel"]["release"] == os.uname().release
        assert facts["disk"][0]["size"] > facts["disk"][0]["free"] > 0
        assert all(isinstance(why, str) and why for why in facts["unreadable"].values())
        assert isinstance(local, Transport)

    def test_a_hundred_facts_in_a_second_over_an_open_connection(
        self, local: LocalTransport
    ) -> None:
        local.facts()
        started = time.monotonic()
        facts = local.facts("n")
        assert time.monotonic() - started < 1
        assert _leaves(facts) >= 100

    def test_values_changed_between_two_exchanges_are_seen(
        self, local: LocalTransport, tmp_path: Path
    ) -> None:
        found = []
        for nonce in ("one", "two"):
            with socket.socket() as server:
                server.bind(("127.0.0.1", 0))
                server.listen()
                port = server.getsockname()[1]
                (tmp_path / "log").write_text(f"canary-{nonce}\n")
                hygiene = local.hygiene([f"canary-{nonce}".encode()], paths=[str(tmp_path)])
                facts = local.facts(nonce)
                assert f"tcp 127.0.0.1:{port}" in facts["network"]["listening"]
                assert len(hygiene["secrets"]) == 1
                found.append((facts["nonce"], facts["clock"], port))
        assert [nonce for nonce, _, _ in found] == ["one", "two"]
        assert found[0][1] < found[1][1]
        assert f"tcp 127.0.0.1:{found[0][2]}" not in local.facts()["network"]["listening"]

    def test_commands(self, local: LocalTransport) -> None:
        ran = local.run(["cat"], stdin=b"\x00\xff in and out")
        assert (ran.code, ran.out, ran.err) == (0, b"\x00\xff in and out", b"")
        ran = local.run("echo out; echo err >&2; exit 7")
        assert (ran.code, ran.out, ran.err) == (7, b"out\n", b"err\n")
        assert local.run(["printf", "%s", "a b; $HOME"]).out == b"a b; $HOME"
        assert local.run("kill -9 $$").code == -9

    def test_a_command_that_hangs_keeps_its_last_words(self, local: LocalTransport) -> None:
        with pytest.raises(CommandTimeout, match=r"ran longer than 0\.3 s; its last words: said"):
            local.run("echo said; sleep 30", timeout=0.3)
        assert local.run("echo still here").out == b"still here\n"

    def test_too_much_output_is_an_error_and_not_half_of_it(self, local: LocalTransport) -> None:
        with pytest.raises(TransportError, match="printed more than fits a message"):
            local.run("head -c 9000000 /dev/zero")
        assert len(local.run("head -c 8000000 /dev/zero").out) == 8_000_000

    def test_files_go_there_and_back_whole(self, local: LocalTransport, tmp_path: Path) -> None:
        data = os.urandom(5_000_001)
        path = tmp_path / "file"
        local.put(data, str(path), mode=0o600)
        assert path.read_bytes() == data
        assert path.stat().st_mode & 0o777 == 0o600
        assert local.get(str(path)) == data
        local.put(b"", str(path))
        assert local.get(str(path)) == b""
        assert list(tmp_path.iterdir()) == [path]

    def test_the_nodes_own_words_come_back(self, local: LocalTransport) -> None:
        with pytest.raises(RemoteError, match="local: no operation 'dance'"):
            local.call("dance", timeout=5)
        with pytest.raises(RemoteError, match="No such file"):
            local.get("/no/such/file")

    def test_an_agent_that_was_killed_is_an_error_and_then_a_new_one(
        self, local: LocalTransport
    ) -> None:
        with pytest.raises(NodeGone, match="the node closed the connection; it exited -9"):
            local.run("kill -9 $PPID")
        assert local.run("echo back").out == b"back\n"

    def test_a_node_file_that_is_none_says_so(self, tmp_path: Path) -> None:
        transport = LocalTransport(tmp_path / "absent.pyz", name="here")
        with pytest.raises(TransportError, match=r"here: .*absent\.pyz"):
            transport.facts(timeout=10)
        transport.close()

    def test_several_threads_may_ask(self, local: LocalTransport) -> None:
        found: dict[int, bytes] = {}

        def ask(number: int) -> None:
            found[number] = local.run(f"sleep 0.1; echo {number}").out

        threads = [threading.Thread(target=ask, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == {n: f"{n}\n".encode() for n in range(8)}


class TestHost:
    def test_testinfra_reads_the_machine(self, local: LocalTransport) -> None:
        host = make_host(local)
        assert host.file("/etc/passwd").contains("root")
        assert host.file("/etc").is_directory
        assert host.process.filter(pid="1")
        assert host.package("dpkg").is_installed or not host.exists("dpkg")
        assert host.run("printf %s ünïcode").stdout == "ünïcode"
        assert host.run("echo %s; exit 3", "it's; $HOME").stdout == "it's; $HOME\n"
        assert host.run("exit 3").rc == 3

    def test_a_node_makes_its_host_once(self, local: LocalTransport) -> None:
        node = Node("n", CellNames("i", "s", "p", "host"), facts={}, transport=local)
        assert node.host is node.host
        assert node.host.backend.get_hostname() == "local"


class Chardev:
    """What QEMU does: a unix socket for one host at a time, relayed to the machine's port."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.master, self.slave = os.openpty()
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(str(path))
        self._server.listen()
        self._stop, self._end = os.pipe()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()
        self.agent: subprocess.Popen[bytes] | None = None

    def start(self, node_file: Path) -> None:
        argv = [sys.executable, str(node_file), "agent", "--port", os.ttyname(self.slave)]
        self.agent = subprocess.Popen(argv)

    def _serve(self) -> None:
        while True:
            ready, _, _ = select.select([self._server.fileno(), self._stop], [], [])
            if self._stop in ready:
                return
            link, _ = self._server.accept()
            with link:
                if not self._relay(link):
                    return

    def _relay(self, link: socket.socket) -> bool:
        while True:
            ready, _, _ = select.select([link.fileno(), self.master, self._stop], [], [])
            if self._stop in ready:
                return False
            if link.fileno() in ready:
                data = link.recv(4096)
                if not data:
                    return True
                while data:
                    data = data[os.write(self.master, data) :]
            if self.master in ready:
                try:
                    link.sendall(os.read(self.master, 4096))
                except OSError:
                    return True

    def close(self) -> None:
        if self.agent is not None:
            self.agent.kill()
            self.agent.wait()
        os.write(self._end, b".")
        self._thread.join()
        self._server.close()
        for fd in (self.master, self.slave, self._stop, self._end):
            os.close(fd)


@pytest.fixture
def chardev(tmp_path: Path) -> Iterator[Chardev]:
    device = Chardev(tmp_path / "agent.sock")
    yield device
    device.close()


class TestAgent:
    def test_ready_is_an_event_for_early_and_late_hosts(
        self, chardev: Chardev, node_file: Path
    ) -> None:
        early = AgentTransport(chardev.path, name="early")
        found: list[str] = []

        def wait() -> None:
            found.append(early.wait_ready(timeout=60)["event"])

        waiting = threading.Thread(target=wait)
        waiting.start()
        time.sleep(0.3)  # a machine's firmware takes longer; what was sent must wait for the agent
        chardev.start(node_file)
        waiting.join()
        assert found == ["ready"]
        early.close()
        late = AgentTransport(chardev.path, name="late")
        assert late.wait_ready(timeout=20)["state"]
        assert late.facts("n")["nonce"] == "n"
        assert late.identity("m")["nonce"] == "m"
        late.close()

    def test_an_answer_for_the_host_before_is_not_ours(
        self, chardev: Chardev, node_file: Path
    ) -> None:
        chardev.start(node_file)
        first = AgentTransport(chardev.path)
        first.wait_ready(timeout=60)
        asked = threading.Thread(target=_ignore_loss, args=(first, "sleep 1; echo late"))
        asked.start()
        time.sleep(0.3)
        first.close()
        asked.join()
        second = AgentTransport(chardev.path)
        for number in range(5):
            assert second.run(f"sleep 0.3; echo {number}").out == f"{number}\n".encode()
        second.close()

    def test_it_gives_up_when_the_machine_dies(self, chardev: Chardev) -> None:
        transport = AgentTransport(chardev.path, name="vm")

        def dead() -> None:
            raise InfraError("QEMU exited 1")

        started = time.monotonic()
        with pytest.raises(InfraError, match="QEMU exited 1"):
            transport.wait_ready(timeout=60, alive=dead)
        assert time.monotonic() - started < 5
        transport.close()

    def test_it_says_who_never_spoke(self, chardev: Chardev) -> None:
        transport = AgentTransport(chardev.path, name="vm")
        with pytest.raises(DeadlinePassed, match=r"vm: .*'ready'.*the agent was not heard at all"):
            transport.wait_ready(timeout=0.5)
        transport.close()

    def test_a_socket_that_is_not_there(self, tmp_path: Path) -> None:
        transport = AgentTransport(tmp_path / "none", name="vm")
        with pytest.raises(DeadlinePassed, match=r"vm: ping: .*No such file"):
            transport.call("ping", timeout=0.2)
        long = AgentTransport(tmp_path / ("x" * 120), name="vm")
        with pytest.raises(TransportError, match="too long for a socket"):
            long.call("ping", timeout=0.2)

    def test_a_stopped_agent_is_a_deadline(self, chardev: Chardev, node_file: Path) -> None:
        chardev.start(node_file)
        transport = AgentTransport(chardev.path, name="vm")
        transport.wait_ready(timeout=60)
        assert chardev.agent is not None
        chardev.agent.send_signal(signal.SIGSTOP)
        with pytest.raises(DeadlinePassed, match=r"ping: not done within 0\.5 s"):
            transport.call("ping", timeout=0.5)
        chardev.agent.send_signal(signal.SIGCONT)
        assert transport.call("ping", timeout=10)["clock"] > 0
        transport.close()

    def test_an_agent_that_restarts_loses_what_it_was_asked(
        self, chardev: Chardev, node_file: Path
    ) -> None:
        chardev.start(node_file)
        transport = AgentTransport(chardev.path, name="vm")
        transport.wait_ready(timeout=60)
        first = chardev.agent
        assert first is not None

        def replace() -> None:
            time.sleep(0.5)
            first.kill()
            first.wait()
            chardev.start(node_file)

        replacing = threading.Thread(target=replace)
        replacing.start()
        with pytest.raises(NodeGone, match="vm: exec: its agent was started anew"):
            transport.run("sleep 30", timeout=60)
        replacing.join()
        assert transport.run("echo anew").out == b"anew\n"
        transport.close()

    def test_a_reboot_ends_what_was_asked_before_it(self, tmp_path: Path) -> None:
        # A reboot cannot be had here; a peer that speaks for two boots can.
        server = socket.socket(socket.AF_UNIX)
        server.bind(str(tmp_path / "s"))
        server.listen()

        def machine() -> None:
            link, _ = server.accept()
            with link, link.makefile("rwb") as stream, contextlib.suppress(ConnectionError):
                boot = b"one"
                for line in filter(bytes.strip, stream):
                    if json.loads(line)["op"] == "hello":
                        stream.write(b'half a li\n{"event":"ready","boot_id":"%b"}\n' % boot)
                    else:
                        boot = b"two"
                        stream.write(b'{"event":"hello","boot_id":"two"}\n')
                        stream.write(b'{"event":"ready","boot_id":"two"}\n')
                    stream.flush()

        thread = threading.Thread(target=machine, daemon=True)
        thread.start()
        transport = AgentTransport(tmp_path / "s", name="vm")
        with pytest.raises(NodeGone, match="the node has rebooted"):
            transport.run("reboot", timeout=5)
        assert transport.wait_ready(timeout=5, after="one")["boot_id"] == "two"
        transport.close()
        thread.join(5)
        server.close()


def _ignore_loss(transport: Transport, command: str) -> None:
    with contextlib.suppress(NodeGone):
        transport.run(command)


def _line(path: str) -> str:
    return Path(path).read_text().strip()


def _leaves(value: object) -> int:
    if isinstance(value, dict):
        return sum(_leaves(item) for item in value.values())
    if isinstance(value, list):
        return sum(_leaves(item) for item in value)
    return 1
