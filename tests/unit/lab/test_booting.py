"""A boot that ends in the initramfs's shell, or with a panic."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.lab import vm
from harness.lab.firmware import Firmware
from harness.lab.node import QemuNode
from harness.providers.base import NodeFailed
from harness.transports.base import Ran

LAST = (
    "Begin: Running /scripts/init-bottom ... Failed to send exit request: Broken pipe\r\n"
    "BusyBox v1.37.0 (Debian) built-in shell (ash)\r\n\r\n(initramfs) "
)


def machine(directory: Path) -> vm.Machine:
    return vm.Machine(
        directory=directory,
        root=directory / "root.qcow2",
        esp=directory / "esp.img",
        firmware=Firmware(directory, directory),
        variables=directory / "vars.fd",
        proxy_port=None,
        metadata_port=None,
    )


@pytest.mark.parametrize("said", ["[  OK  ] Started ssh.service\r\n", "", LAST + "\r\nls\r\n$ "])
def test_a_machine_that_boots_is_left_alone(said: str, tmp_path: Path) -> None:
    running = vm.VirtualMachine(machine(tmp_path))
    running.machine.console.write_text(said)
    running.check_booting()


PANIC = (
    "[    1.48] Kernel panic - not syncing: Attempted to kill init! exitcode=0x0000000b\r\n"
    "[    1.49] ---[ end Kernel panic - not syncing: Attempted to kill init! ]---\r\n"
)


@pytest.mark.parametrize(("last", "said"), [(LAST, "Broken pipe"), (PANIC, "kill init")])
def test_a_boot_that_ended_is_seen_at_once(last: str, said: str, tmp_path: Path) -> None:
    running = vm.VirtualMachine(machine(tmp_path))
    running.machine.console.write_text(last)
    with pytest.raises(vm.BootStuck, match=f"console: .*{said}"):
        running.check_booting()


def test_colours_of_the_console_are_no_part_of_a_message(tmp_path: Path) -> None:
    running = vm.VirtualMachine(machine(tmp_path))
    running.machine.console.write_bytes(b"[\x1b[0;32m  OK  \x1b[0m] Started \x1b[1mssh\x1b[0m\r\n")
    assert running.console_tail() == "[  OK  ] Started ssh"


@pytest.mark.parametrize("heard", [False, True])
def test_a_node_that_never_spoke_is_not_asked_for_its_journal(heard: bool, tmp_path: Path) -> None:
    asked: list[list[str]] = []

    def run(argv: list[str], timeout: float) -> Ran:
        del timeout
        asked.append(argv)
        return Ran(0, b"journal", b"")

    node: Any = SimpleNamespace(
        _transport=SimpleNamespace(heard=heard, run=run),
        _vm=None,
        _rest=None,
        _proxy=None,
        _secrets=dict,
    )
    QemuNode.keep_evidence(node, tmp_path)
    assert (tmp_path / "journal.txt").exists() == heard == bool(asked)


@pytest.mark.parametrize("bad_boots", [1, 2])
def test_it_is_booted_once_more(bad_boots: int, tmp_path: Path) -> None:
    said: list[str] = []
    ended: list[str] = []
    boots = 0

    def boot(_: vm.Machine) -> str:
        nonlocal boots
        boots += 1
        if boots <= bad_boots:
            raise vm.BootStuck("it does not boot")
        return "running"

    node: Any = SimpleNamespace(
        _boot_machine=boot,
        _job=SimpleNamespace(say=lambda _, line: said.append(line)),
        transport=SimpleNamespace(close=lambda: ended.append("channel")),
        _vm=SimpleNamespace(stop=lambda: ended.append("machine")),
    )
    failing = pytest.raises(NodeFailed, match="twice: it does not boot")
    with failing if bad_boots == 2 else contextlib.nullcontext():
        QemuNode._power_on(node, machine(tmp_path))
    assert boots == 2
    assert said == ["it does not boot; once more"]
    assert ended == ["channel", "machine"]


def test_a_translated_processor_has_no_instruction_that_qemu_gets_wrong(tmp_path: Path) -> None:
    """Kernels of 6.12 panicked in most boots: EFLAGS were garbage after cmpxchg16b."""
    translated = machine(tmp_path)
    assert "-cx16" in translated.cpu.split(",")
    assert replace(translated, accelerator="kvm").cpu == "max"
