"""The agent over real channels: what it survives, and what it says."""

from __future__ import annotations

import base64
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from installers import port as port_module
from installers.agent import Agent
from installers.port import Port


class Host:
    """The host's end of a channel: sends lines, reads messages."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._buffer = b""

    def send(self, data: bytes) -> None:
        while data:
            data = data[os.write(self.fd, data) :]

    def message(self, seconds: float = 10) -> dict[str, Any]:
        """The next line that is not empty."""
        deadline = time.monotonic() + seconds
        while True:
            line, newline, rest = self._buffer.partition(b"\n")
            if newline:
                self._buffer = rest
                if line.strip():
                    found: dict[str, Any] = json.loads(line)
                    return found
                continue
            assert time.monotonic() < deadline, "the agent said nothing"
            self._buffer += os.read(self.fd, 1 << 16)

    def answer(self, number: int | None) -> dict[str, Any]:
        """The next answer to a request, events left out."""
        while True:
            found = self.message()
            if "event" not in found:
                assert found["id"] == number
                return found

    def ask(self, op: str, **fields: Any) -> Any:
        self.send(json.dumps({"id": 1, "op": op, **fields}).encode() + b"\n")
        found = self.answer(1)
        assert found["ok"], found
        return found["result"]

    def refusal(self, request: dict[str, Any]) -> str:
        self.send(json.dumps({"id": 2, **request}).encode() + b"\n")
        found = self.answer(2)
        assert not found["ok"]
        return str(found["error"])


@pytest.fixture
def host() -> Iterator[Host]:
    """An agent on a socketpair, in a thread of this process."""
    ours, theirs = socket.socketpair()
    agent = Agent(Port(theirs.fileno(), theirs.fileno(), returns=False))
    thread = threading.Thread(target=agent.serve)
    thread.start()
    yield Host(ours.fileno())
    ours.close()
    thread.join(10)
    assert not thread.is_alive(), "the agent did not end with its channel"
    theirs.close()


def test_it_says_hello_and_ready_with_the_boot_id(host: Host) -> None:
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    hello, ready = host.message(), host.message(30)
    assert (hello["event"], hello["boot_id"]) == ("hello", boot_id)
    assert ready["event"] == "ready"
    assert ready["uptime"] > 0
    # A host that comes late asks, and hears the last event once more.
    host.send(b'{"op": "hello"}\n')
    assert host.message() == ready


def test_it_echoes_the_nonce_with_a_fresh_clock_and_identity(host: Host) -> None:
    for nonce in ("one", "two"):
        before = time.time()
        found = host.ask("identity", nonce=nonce)
        assert found["nonce"] == nonce
        assert before <= found["clock"] <= time.time()
        assert found["hostname"] == os.uname().nodename


@pytest.mark.parametrize(
    "line",
    [b"{", b"[1, 2]", b"\xff\xfe\x00", b'"text"', b"[" * 100_000],
    ids=["cut off", "a list", "not UTF-8", "a string", "too deep"],
)
def test_it_survives_what_is_no_request(host: Host, line: bytes) -> None:
    host.send(line + b"\n")
    assert host.answer(None)["ok"] is False
    assert host.ask("ping")["clock"] > 0


def test_it_survives_a_line_without_end(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(port_module, "MAX_LINE", 100_000)
    writer = threading.Thread(target=host.send, args=(b"x" * 1_000_000 + b"\n",))
    writer.start()
    assert "a line of more than" in host.answer(None)["error"]
    writer.join()
    assert host.ask("ping")["clock"] > 0


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        ({"op": "dance"}, "no operation 'dance'; there are apply, capture, cards, controls, exec"),
        ({"op": ["facts"]}, "no operation"),
        ({}, "no operation None"),
        ({"op": "exec"}, "exec: 'argv' is missing"),
        ({"op": "exec", "argv": []}, "at least one string"),
        ({"op": "exec", "argv": "ls"}, "'argv' cannot be 'ls'"),
        ({"op": "exec", "sh": 3}, "'sh' cannot be 3"),
        ({"op": "exec", "sh": "true", "timeout": True}, "'timeout' cannot be True"),
        ({"op": "exec", "sh": "true", "stdin_b64": "!"}, "'stdin_b64' is not base64"),
        ({"op": "get", "path": "/proc/no-such-file"}, "FileNotFoundError"),
        ({"op": "hygiene", "secrets_b64": ["YQ=="], "paths": []}, "at least 4 bytes"),
        ({"op": "controls", "module": "no-such-module"}, "no module no-such-module is installed"),
    ],
)
def test_it_says_what_is_wrong_with_a_request(
    host: Host, request_: dict[str, Any], said: str
) -> None:
    assert said in host.refusal(request_)


def test_facts_say_why_there_are_no_controls(host: Host) -> None:
    host.refusal({"op": "controls", "module": "no-such-module"})
    facts = host.ask("facts")
    assert facts["controls"] == []
    assert "no module no-such-module is installed" in facts["unreadable"]["controls"]


def test_a_hanging_program_does_not_silence_it(host: Host) -> None:
    host.send(b'{"id": 9, "op": "exec", "sh": "sleep 30", "timeout": 0.3}\n')
    assert host.ask("ping")["clock"] > 0
    late = host.answer(9)["result"]
    assert late["timed_out"]
    assert late["code"] is None


def test_programs_end_at_their_timeout_with_all_they_started(host: Host, tmp_path: Path) -> None:
    script = f"sleep 60 & echo $! > {tmp_path}/child; echo said; wait"
    done = host.ask("exec", sh=script, timeout=0.5)
    assert base64.b64decode(done["out_b64"]) == b"said\n"
    child = int((tmp_path / "child").read_text())
    deadline = time.monotonic() + 5
    while Path(f"/proc/{child}").exists():
        state = Path(f"/proc/{child}/stat").read_text().rsplit(")", 1)[1].split()[0]
        if state == "Z":  # ended, and not yet collected by whoever inherited it
            break
        assert time.monotonic() < deadline, "the child still runs"
        time.sleep(0.02)


def test_a_daemon_that_keeps_the_pipes_is_not_waited_for(host: Host) -> None:
    started = time.monotonic()
    done = host.ask("exec", sh="setsid sleep 20 & echo done", timeout=0.5)
    assert time.monotonic() - started < 10
    assert done["code"] == 0
    assert not done["timed_out"]
    assert base64.b64decode(done["out_b64"]) == b"done\n"


def test_commands_see_a_clean_environment(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://user:secret@proxy:1")
    done = host.ask("exec", argv=["env"])
    names = {line.partition(b"=")[0] for line in base64.b64decode(done["out_b64"]).splitlines()}
    assert names == {b"PATH", b"LANG", b"HOME"}


def test_a_program_that_is_not_there_is_an_exit_code(host: Host) -> None:
    assert host.ask("exec", argv=["/no/such/program"])["code"] == 127
    assert host.ask("exec", argv=["/etc/passwd"])["code"] == 126


def test_probes_end_in_two_seconds_and_the_facts_repeat_them(host: Host) -> None:
    started = time.monotonic()
    found = host.ask("probe")
    assert time.monotonic() - started < 2
    assert {probe["target"] for probe in found} == {
        "tcp 192.0.2.1:443",
        "tcp [2001:db8::1]:443",
        "dns probe.invalid",
    }
    assert all(probe["outcome"] for probe in found)
    assert host.ask("facts")["probes"] == found


def test_a_search_is_repeated_by_the_facts_without_the_secret(host: Host, tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"password=canary-1234")
    coded = base64.b64encode(b"canary-1234").decode()
    host.ask("hygiene", secrets_b64=[coded], paths=[str(tmp_path)])
    facts = host.ask("facts")
    assert facts["hygiene"]["secrets"][0]["path"] == f"{tmp_path}/log"
    assert facts["hygiene"]["files"] == 1
    assert "canary-1234" not in json.dumps(facts)


def test_apply_tells_what_the_installers_refuse(host: Host) -> None:
    done = host.ask("apply", metadata={}, only=["no-such-installer"])
    assert done["code"] == 2
    assert "no-such-installer" in done["summary"]["error"]["what"]


class TestTerminal:
    """A terminal, like a virtio-serial port, stays when its host goes."""

    @pytest.fixture
    def terminal(self, node_file: Path) -> Iterator[tuple[Host, subprocess.Popen[bytes]]]:
        master, slave = os.openpty()
        argv = [sys.executable, str(node_file), "agent", "--port", os.ttyname(slave)]
        process = subprocess.Popen(argv, stderr=subprocess.PIPE)
        try:
            yield Host(master), process
        finally:
            process.kill()
            process.wait()
            os.close(slave)

    def test_it_answers_and_outlives_a_host(
        self, terminal: tuple[Host, subprocess.Popen[bytes]]
    ) -> None:
        host, process = terminal
        assert host.message(30)["event"] == "hello"
        assert len(host.ask("facts", nonce="n")["packages"]) >= 0
        assert host.ask("exec", sh="echo $((6 * 7))")["out_b64"] == "NDIK"
        process.send_signal(signal.SIGIO)
        assert host.ask("ping")["clock"] > 0
        os.close(host.fd)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1)

    def test_a_port_that_is_not_there_is_one_line(self, node_file: Path) -> None:
        argv = [sys.executable, str(node_file), "agent", "--port", "/dev/virtio-ports/none"]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        assert done.returncode == 3
        assert done.stderr.count("\n") == 1
        assert "/dev/virtio-ports/none" in done.stderr
