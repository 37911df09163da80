"""``airlock check`` of a machine behind a real sshd: it changes nothing, and has bad days."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.errors import InfraError
from harness.pack import pack
from harness.providers import host
from harness.targets import parse_target
from harness.transports.ssh import SshTransport
from reports.model import Cell
from tests.lab.channel.machine import (
    USER,
    Machine,
    know,
    running,
    ssh_in_path,
    whole,
    without_python,
)
from tests.unit.core.workbench import Bench, outcomes

pytestmark = [pytest.mark.lab, pytest.mark.xdist_group("host")]

#: Every check that ships but those that measure, which take minutes.
SHIPPED = ("-k", "not performance")
#: Seconds until what was left alone has noticed.
NOTICED = 30


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    """One for all tests that do not spoil it."""
    whole()
    with running() as found:
        yield found


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """State, output and small checks of its own."""
    return Bench(tmp_path)


def start(
    bench: Bench,
    machine: Machine,
    *words: str,
    target: str = "",
    key: str = "user",
    slow: str = "",
    victim: str = "",
) -> subprocess.Popen[str]:
    """``airlock check`` of the machine, with the small checks unless ``words`` say others."""
    path = ssh_in_path(machine, bench.path / "bin", key)
    checks = words or ("--checks", str(bench.checks))
    asked = ("check", target or machine.target(), *checks)
    if slow:
        return bench.start(*asked, PATH=path, SLOW_CHECK=slow)
    return bench.start(*asked, PATH=path, VICTIM=victim)


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    output, _ = process.communicate(timeout=300)
    return process.returncode, output


def wait_for(what: Callable[[], object], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.1)


def told(bench: Bench, status: int, output: str) -> Cell:
    """The cell of a check that could not tell: exit 3, no failed check, one clear message."""
    assert status == 3, output
    assert "Traceback" not in output
    (cell,) = bench.report().cells
    assert cell.verdict == "error", output
    assert "fail" not in outcomes(cell).values()
    assert cell.reason.count("\n") == 0
    return cell


def nothing_left(machine: Machine, before: object) -> None:
    """Neither processes nor files of ours are on it, nor a connection."""
    wait_for(lambda: not machine.agents(), NOTICED)
    wait_for(lambda: len(machine.sessions()) == 1, NOTICED)
    assert machine.files() == before


@pytest.fixture(scope="module")
def checked(machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> Cell:
    """All that ships, once; what the machine was before is what it is after."""
    bench = Bench(tmp_path_factory.mktemp("all"))
    before = machine.files()
    assert before, "a machine that was furnished"
    status, output = ended(start(bench, machine, *SHIPPED))
    assert status in (1, 3), f"this machine is no GPU node: {output}"
    nothing_left(machine, before)
    (cell,) = bench.report().cells
    return cell


def test_a_check_changes_nothing(checked: Cell, machine: Machine) -> None:
    """Before and after it every file is the same, and a change would have been seen."""
    assert len(checked.checks) > 50
    assert not [check for check in checked.checks if check.outcome == "error"]
    before = machine.files()
    machine.run("touch /etc/proof")
    assert set(machine.files()) - set(before) == {"upper/etc/proof"}
    machine.run("rm /etc/proof")


def test_nothing_is_left_when_the_control_side_is_killed(bench: Bench, machine: Machine) -> None:
    before = machine.files()
    process = start(bench, machine, slow="60")
    wait_for(bench.slow_began.exists)
    assert len(machine.agents()) == 1
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    nothing_left(machine, before)


@pytest.fixture
def node_file(tmp_path: Path) -> Path:
    return pack(tmp_path).path


def test_nothing_is_left_when_the_cable_is_pulled(machine: Machine, node_file: Path) -> None:
    """Nobody tells the machine: its agent notices that it is not heard, with what it runs."""
    before = machine.files()
    node = SshTransport(
        "127.0.0.1", node_file, port=machine.port, options=machine.options(), patience=4
    )
    assert node.run("echo here").out == b"here\n"
    time.sleep(6)
    (agent,) = machine.agents()
    assert node.run("echo $PPID").code == 0, "an agent that is heard stays"
    assert machine.agents() == [agent]
    busy = threading.Thread(target=_lost, args=(node, "sleep 1000"))
    busy.start()
    wait_for(lambda: "sleep 1000" in machine.processes().values(), NOTICED)
    clients = subprocess.run(
        ["pgrep", "-f", f"ControlPath={node._folder.name}/c"], capture_output=True, check=True
    ).stdout.split()
    master = subprocess.run(
        ["pgrep", "-f", f"{node._folder.name}/c .mux."], capture_output=True, check=False
    ).stdout.split()
    frozen = [int(pid) for pid in {*clients, *master}]
    for pid in frozen:
        os.kill(pid, signal.SIGSTOP)
    try:
        wait_for(lambda: not machine.agents(), NOTICED)
        wait_for(lambda: "sleep 1000" not in machine.processes().values(), NOTICED)
    finally:
        for pid in frozen:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
    node.close()
    busy.join(NOTICED)
    nothing_left(machine, before)


def _lost(node: SshTransport, command: str) -> None:
    with contextlib.suppress(InfraError):
        node.run(command, timeout=600)


def test_a_connection_cut_in_the_middle(bench: Bench, machine: Machine) -> None:
    """By the end of sshd's process for it, while a check waits for the machine's answer."""
    asks = bench.checks / "small" / "test_zz_asks.py"
    asks.write_text(
        "import os, time\n"
        "from harness.checks import check\n"
        "@check(id='small.asks', severity='major', title='It answers', remedy='wake it')\n"
        "def test_asks(node):\n"
        "    node.transport.call('exec', timeout=20, argv=['true'])\n"
        "    open(os.environ['VICTIM'] + '.asked', 'w').close()\n"
        "    end = time.monotonic() + 60\n"
        "    while not os.path.exists(os.environ['VICTIM']) and time.monotonic() < end:\n"
        "        time.sleep(0.1)\n"
        "    for pid in open(os.environ['VICTIM']).read().split(): os.kill(int(pid), 9)\n"
        "    node.transport.call('exec', timeout=20, argv=['sleep', '15'])\n"
        "@check(id='small.asks-again', severity='major', title='It answers', remedy='wake it')\n"
        "def test_asks_again(node):\n"
        "    node.transport.call('exec', timeout=20, argv=['true'])\n"
    )
    before, standing = machine.files(), set(machine.sessions())
    victim = bench.path / "victim"
    process = start(bench, machine, victim=str(victim))
    # Not before: what asked whether the machine can be reached was another connection.
    wait_for(victim.with_suffix(".asked").exists)
    # Whole at once: half of it would be another's process, or none.
    named = victim.with_suffix(".new")
    named.write_text(" ".join(str(pid) for pid in set(machine.sessions()) - standing))
    named.rename(victim)
    cell = told(bench, *ended(process))
    assert "the node closed the connection" in cell.reason
    assert outcomes(cell)["small.asks"] == "error"
    assert outcomes(cell)["small.asks-again"] in ("error", "skip"), "not asked again"
    nothing_left(machine, before)


def test_the_host_key_changed(bench: Bench, machine: Machine) -> None:
    known = (machine.folder / "known").read_text()
    know(machine.folder, machine.port, (machine.folder / "stranger.pub").read_text())
    try:
        cell = told(bench, *ended(start(bench, machine)))
    finally:
        (machine.folder / "known").write_text(known)
    assert "its host key is another than the one that is known" in cell.reason
    assert "ssh-keygen -R" in cell.remedy


def test_the_host_key_is_not_known(bench: Bench, machine: Machine) -> None:
    known = (machine.folder / "known").read_text()
    (machine.folder / "known").write_text("")
    try:
        cell = told(bench, *ended(start(bench, machine)))
    finally:
        (machine.folder / "known").write_text(known)
    assert "its host key is not known: nothing was sent" in cell.reason


def test_a_wrong_key(bench: Bench, machine: Machine) -> None:
    cell = told(bench, *ended(start(bench, machine, key="stranger")))
    assert "lets nobody in with our key" in cell.reason


def test_sudo_that_is_not_there(bench: Bench, machine: Machine) -> None:
    """Or that asks for a password, which is what a machine with sudo says (see test_targets)."""
    machine.run("rm -f /usr/bin/sudo")
    cell = told(bench, *ended(start(bench, machine, target=machine.target("ssh+sudo", USER))))
    assert "it has no sudo" in cell.reason


def test_sudo_asks_for_a_password(bench: Bench, machine: Machine) -> None:
    """sudo's own words for -n; that a password is not typed is ssh's BatchMode and our -n."""
    machine.run(
        'printf \'#!/bin/sh\\n[ "$1" = -n ] || sleep 600\\n'
        "echo sudo: a password is required >&2\\nexit 1\\n' >/usr/bin/sudo;"
        " chmod 755 /usr/bin/sudo"
    )
    cell = told(bench, *ended(start(bench, machine, target=machine.target("ssh+sudo", USER))))
    assert "sudo asks for a password there" in cell.reason
    assert "NOPASSWD" in cell.remedy
    machine.run("printf '#!/bin/sh\\nshift\\nexec \"$@\"\\n' >/usr/bin/sudo")
    status, output = ended(start(bench, machine, target=machine.target("ssh+sudo", USER)))
    assert status == 0, output
    machine.run("rm -f /usr/bin/sudo")


def test_a_full_disk_is_not_in_our_way(bench: Bench, machine: Machine) -> None:
    """Nothing is written there, so there is nothing to fail."""
    machine.run("mount -o remount,size=64k /tmp; cat /dev/zero >/tmp/ballast 2>/dev/null || true")
    before = machine.files()
    try:
        status, output = ended(start(bench, machine))
    finally:
        machine.run("rm /tmp/ballast; mount -o remount,size=50% /tmp")
    assert status == 0, output
    assert "tmp/ballast" in str(before)


def test_no_python_on_the_machine(bench: Bench, checked: Cell) -> None:
    with running(hidden=without_python()) as machine:
        before = machine.files()
        status, output = ended(start(bench, machine, *SHIPPED))
        assert status in (1, 3), output
        assert "Traceback" not in output
        nothing_left(machine, before)
    (cell,) = bench.report().cells
    without, full = outcomes(cell), outcomes(checked)
    # What fails is read from files that sh can show, and fails with Python as well.
    assert {name for name, outcome in without.items() if outcome == "fail"} <= {
        name for name, outcome in full.items() if outcome == "fail"
    }
    assert any("the node has no python3, only sh" in check.message for check in cell.checks)


CLOCK = 'printf \'#!/bin/sh\\nexec /bin/date.real -d "-2 hours" "$@"\\n\' >"$ROOT/usr/bin/date"'


def test_clocks_apart_while_nobody_keeps_ours(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody can tell which is wrong, so nothing is told; else it is the machine's own."""
    with running(extra=f'mv "$ROOT/usr/bin/date" "$ROOT/usr/bin/date.real"; {CLOCK}') as machine:
        monkeypatch.setenv("PATH", ssh_in_path(machine, bench.path / "bin"))
        monkeypatch.setenv("AIRLOCK_STATE", str(bench.state))
        node = host.HostNode(parse_target(machine.target()), lambda: None)
        machine.run("chmod 755 /usr/bin/date")
        try:
            monkeypatch.setattr(host, "synchronised", lambda: False)
            with pytest.raises(InfraError, match=r"7[12]\d\d s apart, and nothing keeps ours"):
                node.greet()
            monkeypatch.setattr(host, "synchronised", lambda: True)
            node.greet()
        finally:
            node.down()
