"""Freezing, forking, saving and resuming QEMU itself, both ways, with a machine in its firmware."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from harness.errors import InfraError, UsageError
from harness.lab import disk, firmware, frozen, saved, vm

pytestmark = pytest.mark.lab

PAGE = 4096
#: A megabyte somewhere in the memory that the firmware uses.
START, SIZE = 0x00800000, 0x00400000


@pytest.fixture(params=["memory", "snapshot"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv(frozen.VARIABLE, request.param)
    return str(request.param)


def bare(directory: Path) -> vm.Machine:
    """A machine whose disks are empty: its firmware runs, and finds nothing to boot."""
    directory.mkdir()
    esp = directory / "esp.img"
    esp.write_bytes(bytes(1 << 20))
    return vm.Machine(
        directory=directory,
        root=directory / "root.qcow2",
        esp=esp,
        firmware=firmware.find(),
        variables=directory / "vars.fd",
        proxy_port=None,
        metadata_port=None,
        memory=128,
    )


@contextmanager
def in_its_firmware(machine: vm.Machine) -> Iterator[vm.VirtualMachine]:
    """The machine, powered on and past the start of its firmware."""
    argv = ["qemu-img", "create", "-q", "-f", "qcow2", str(machine.root), "16M"]
    subprocess.run(argv, check=True)
    firmware.enroll(machine.firmware, [], machine.variables)
    if machine.variables_format == "qcow2":
        disk.to_qcow2(machine.variables)
    with vm.VirtualMachine(machine) as running:
        deadline = time.monotonic() + 120
        while "BdsDxe" not in running.console_tail():
            running.check_alive()
            assert time.monotonic() < deadline
            time.sleep(0.1)
        yield running


def at_rest(machine: vm.Machine, directory: Path) -> frozen.Frozen:
    """The machine, frozen in its firmware."""
    with frozen.making(directory) as place:
        prepared = frozen.prepare(machine, place)
        with in_its_firmware(prepared) as running:
            return frozen.freeze(running, place, directory, {})


def memory(running: vm.VirtualMachine, path: Path) -> list[bytes]:
    """Pages of the machine's memory."""
    arguments = {"val": START, "size": SIZE, "filename": str(path)}
    running.monitor(("pmemsave", arguments))
    data = path.read_bytes()
    path.unlink()
    return [data[i : i + PAGE] for i in range(0, len(data), PAGE)]


def same(before: list[bytes], after: list[bytes]) -> bool:
    """Whether it is the same memory, but for the little that runs meanwhile."""
    assert len(set(before)) > 50, "the memory is nearly empty and proves nothing"
    equal = sum(a == b for a, b in zip(before, after, strict=True))
    return equal > len(before) * 0.9


def digests(directory: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in directory.iterdir()}


def test_a_fork_goes_on_from_the_memory_that_was_frozen_and_leaves_it_as_it_is(
    way: str, tmp_path: Path
) -> None:
    machine = bare(tmp_path / "first")
    directory = tmp_path / "frozen"
    with frozen.making(directory) as place:
        prepared = frozen.prepare(machine, place)
        with in_its_firmware(prepared) as running:
            running.monitor("stop")
            before = memory(running, tmp_path / "memory")
            frozen.freeze(running, place, directory, {"cell": "bare"})
    rest = frozen.find(directory)
    assert rest is not None
    assert rest.method == way
    assert rest.manifest["cell"] == "bare"
    kept = digests(directory)
    for number in range(2):
        scratch = tmp_path / f"fork{number}"
        scratch.mkdir()
        fork = frozen.fork(rest, replace(machine, directory=scratch))
        with vm.VirtualMachine(fork) as running:
            frozen.thaw(running, rest)
            assert running.monitor("query-status")[0]["status"] == "running"
            assert same(before, memory(running, tmp_path / "memory"))
    assert digests(directory) == kept


@pytest.mark.parametrize("target", ["node", "node.tar"])
def test_a_fork_is_saved_runs_on_and_is_resumed_from_the_files_alone(
    way: str, target: str, tmp_path: Path
) -> None:
    machine = bare(tmp_path / "first")
    directory = tmp_path / "frozen"
    rest = at_rest(machine, directory)
    scratch = tmp_path / "fork"
    scratch.mkdir()
    with vm.VirtualMachine(frozen.fork(rest, replace(machine, directory=scratch))) as running:
        frozen.thaw(running, rest)
        saved.save(running, tmp_path / target, {"note": way})
        assert running.monitor("query-status")[0]["status"] == "running"
        before = memory(running, tmp_path / "memory")
        with pytest.raises(UsageError, match="is there already"):
            saved.save(running, tmp_path / target, {})
    assert (tmp_path / target).stat().st_mode & 0o077 == 0
    assert not list(tmp_path.glob(".node*"))
    # Elsewhere: nothing of the machine that it was forked from is there.
    (tmp_path / "first" / "esp.img").unlink()
    directory.rename(tmp_path / "gone")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    files = saved.load(tmp_path / target, elsewhere)
    assert files.manifest["note"] == way
    woken = saved.wake(files, replace(machine, directory=elsewhere))
    with vm.VirtualMachine(woken) as running:
        saved.resume(running, files)
        assert running.monitor("query-status")[0]["status"] == "running"
        assert same(before, memory(running, tmp_path / "memory"))


@pytest.mark.slow
def test_a_fork_on_a_host_that_gives_it_no_time_is_waited_for(tmp_path: Path) -> None:
    """QEMU stands still for longer than it takes on any machine that has time for it."""
    machine = bare(tmp_path / "first")
    directory = tmp_path / "frozen"
    rest = at_rest(machine, directory)
    scratch = tmp_path / "fork"
    scratch.mkdir()
    with vm.VirtualMachine(frozen.fork(rest, replace(machine, directory=scratch))) as running:
        running.monitor("query-status")
        # QEMU is the keeper's child.
        (child,) = Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text().split()
        os.kill(int(child), signal.SIGSTOP)
        timer = threading.Timer(35, os.kill, (int(child), signal.SIGCONT))
        timer.start()
        frozen.thaw(running, rest)
        assert running.monitor("query-status")[0]["status"] == "running"


def test_qemu_is_asked_what_it_can_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(frozen.VARIABLE, raising=False)
    assert frozen.method() == "memory"  # QEMU has had the capability since 4.0
    monkeypatch.setenv(frozen.VARIABLE, "tape")
    with pytest.raises(UsageError, match="memory or snapshot"):
        frozen.method()


def test_what_is_no_saved_node_is_said(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.tar").write_text("no tar file")
    for name in ("empty", "text.tar", "missing"):
        with pytest.raises(UsageError, match="is no saved node"):
            saved.load(tmp_path / name, tmp_path)
    (tmp_path / "empty/manifest.json").write_text('{"format": 99}')
    with pytest.raises(UsageError, match="of format 99"):
        saved.load(tmp_path / "empty", tmp_path)


def test_a_state_that_is_damaged_is_an_error_of_the_lab(tmp_path: Path) -> None:
    machine = bare(tmp_path / "first")
    with in_its_firmware(machine) as running:
        saved.save(running, tmp_path / "node", {})
    files = saved.load(tmp_path / "node", tmp_path)
    with files.state.open("r+b") as state:
        state.truncate(files.state.stat().st_size // 2)
    again = tmp_path / "again"
    again.mkdir()
    woken = saved.wake(files, replace(machine, directory=again))
    with vm.VirtualMachine(woken) as running, pytest.raises(InfraError):
        saved.resume(running, files)
