"""Whether hardware acceleration really works here: shown by booting something with it.

``/dev/kvm`` can exist, and creating a machine succeed, while every guest hangs or QEMU aborts
(seen with nested virtualisation: ``error: failed to set MSR 0x10a``). So the probe boots a sector
that writes one byte to QEMU's debug-exit port, and gives it five seconds.
"""

from __future__ import annotations

import functools
import os
import subprocess
import tempfile
from pathlib import Path

from harness.lab.namespace import host_env

_SECONDS = 5
_VALUE = 0x10
# mov dx, 0xf4; mov al, VALUE; out dx, al; hlt; jmp $-1
_SECTOR = bytes([0xBA, 0xF4, 0x00, 0xB0, _VALUE, 0xEE, 0xF4, 0xEB, 0xFD]).ljust(510, b"\0")
# isa-debug-exit ends QEMU with (value << 1) | 1.
_SUCCESS = (_VALUE << 1) | 1


def boots(accelerator: str) -> bool:
    """Boot a sector with ``accelerator`` (``kvm`` or ``tcg``); True if it ran to its end."""
    with tempfile.NamedTemporaryFile(suffix=".img") as image:
        image.write(_SECTOR + b"\x55\xaa")
        image.truncate(1 << 20)  # the BIOS takes no disk smaller than a cylinder
        image.flush()
        argv = [
            *["qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none"],
            *["-machine", "q35,smm=on", "-accel", accelerator, "-cpu", "max", "-m", "64"],
            *["-no-reboot", "-device", "isa-debug-exit,iobase=0xf4,iosize=4"],
            *["-drive", f"format=raw,file={image.name},if=none,id=d"],
            *["-device", "virtio-blk-pci,drive=d,bootindex=0"],
        ]
        try:
            done = subprocess.run(
                argv,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=_SECONDS,
                env=host_env(),
                check=False,
            )
        except (subprocess.TimeoutExpired, FileNotFoundError):
            return False
    return done.returncode == _SUCCESS


@functools.cache
def accelerator() -> str:
    """``kvm`` where a guest really ran with it, else ``tcg`` (QEMU's own translation)."""
    if Path("/dev/kvm").exists() and os.access("/dev/kvm", os.R_OK | os.W_OK) and boots("kvm"):
        return "kvm"
    return "tcg"
