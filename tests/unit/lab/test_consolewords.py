"""Why a machine never says that it is ready: what consoles really showed, or their sources say."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.lab import consolewords, seed, vm
from harness.providers.base import NodeFailed
from tests.unit.lab.test_booting import machine

ACCESS = (
    'BdsDxe: loading Boot0001 "UEFI Misc Device" from PciRoot(0x0)/Pci(0x2,0x0)\r\n'
    'BdsDxe: failed to load Boot0001 "UEFI Misc Device" from PciRoot(0x0)/Pci(0x2,0x0): '
    "Access Denied\r\n"
)
NOTHING = "BdsDxe: No bootable option or device was found.\r\nBdsDxe: Press any key to enter\r\n"
OTHER = (
    "[   41.2] cloud-init[512]: Cloud-init v. 22.4.2 finished at Sun, 22 Nov 2026 09:00:00 +0000. "
    "Datasource DataSourceNone.  Up 41.20 seconds\r\n"
)
OURS = OTHER.replace("DataSourceNone.", "DataSourceNoCloud [seed=/dev/vdb][dsmode=net].")
LOGIN = "\r\nDebian GNU/Linux 12 localhost ttyS0\r\n\r\nlocalhost login: "


def watch(folder: Path, said: str, *, heard: bool = False) -> consolewords.Watch:
    running = vm.VirtualMachine(machine(folder))
    running.machine.console.write_text(said)
    return consolewords.Watch(running, lambda: heard, patience=0.0)


def look_again(look: consolewords.Watch) -> None:
    """Patience begins with the first look at a prompt."""
    for _ in range(3):
        look()


@pytest.mark.parametrize(
    ("said", "code", "means"),
    [
        (ACCESS + NOTHING, "boot.loader-not-trusted", "nobody in its db has signed it"),
        (NOTHING, "boot.no-loader", "nothing to boot"),
        ("error: no such device\r\ngrub rescue> ", "boot.grub-rescue", "GRUB"),
        ("error: bad shim signature.\r\n", "boot.loader-not-trusted", "shim or GRUB"),
        (f"{seed.FAILED}/usr/bin/python3 is old\r\n{LOGIN}", "cloud-init.seed-failed", "is old"),
        (OTHER + LOGIN, "cloud-init.other-source", "DataSourceNone"),
        (LOGIN, "cloud-init.silent", "never looked at its seed"),
    ],
)
def test_the_console_tells_why(said: str, code: str, means: str, tmp_path: Path) -> None:
    look = watch(tmp_path, said)
    with pytest.raises(NodeFailed, match=means) as caught:
        look_again(look)
    assert caught.value.cause == code
    assert caught.value.hint
    assert "serial console: " in caught.value.message


@pytest.mark.parametrize(
    ("said", "heard"), [("", False), (OURS, False), ("GRUB loading.\r\n", False), (LOGIN, True)]
)
def test_a_machine_that_comes_up_is_left_alone(said: str, heard: bool, tmp_path: Path) -> None:
    look_again(watch(tmp_path, said, heard=heard))
