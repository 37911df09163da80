"""Makes a fork of a frozen machine a machine of its own: clock, entropy, identity.

A fork wakes up with the memory of another machine: its clock stands where that one was frozen, its
random numbers would repeat, and its name and ids are taken.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import socket
import struct
import time
from typing import Any

# linux/sockios.h and linux/if_arp.h. A program started for it would cost an emulated fork more than
# everything else here.
_SIOCSIFHWADDR, _ARPHRD_ETHER = 0x8924, 1
# linux/random.h: _IOW('R', 0x03, int[2]) and _IO('R', 0x07)
_RNDADDENTROPY, _RNDRESEEDCRNG = 0x40085203, 0x5207


def thaw(clock: float, entropy: bytes, name: str, mac: str, card: str = "eth0") -> dict[str, Any]:
    """Set the clock (unix seconds), mix in ``entropy``, and take a new identity.

    Returns machine_id, hostname and clock, read back. Raises OSError where the kernel refuses.
    """
    time.clock_settime(time.CLOCK_REALTIME, clock)
    pool = os.open("/dev/urandom", os.O_WRONLY | os.O_CLOEXEC)
    try:
        fcntl.ioctl(
            pool, _RNDADDENTROPY, struct.pack("ii", len(entropy) * 8, len(entropy)) + entropy
        )
        # Kernels before 4.14 reseed by themselves within minutes only.
        with contextlib.suppress(OSError):
            fcntl.ioctl(pool, _RNDRESEEDCRNG)
    finally:
        os.close(pool)
    machine_id = os.urandom(16).hex()
    _write("/etc/machine-id", machine_id + "\n")
    before = socket.gethostname()
    socket.sethostname(name)
    _write("/etc/hostname", name + "\n")
    # As cloud-init and the guest agents of clouds do it: a node knows its own name.
    with contextlib.suppress(FileNotFoundError), open("/etc/hosts") as hosts:  # noqa: PTH123
        _write("/etc/hosts", renamed(hosts.read(), before, name))
    address = bytes.fromhex(mac.replace(":", ""))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
        request = struct.pack("16sH14s", card.encode(), _ARPHRD_ETHER, address)
        fcntl.ioctl(link, _SIOCSIFHWADDR, request)
    return {"machine_id": machine_id, "hostname": socket.gethostname(), "clock": time.time()}


def renamed(hosts: str, before: str, name: str) -> str:
    """The text of /etc/hosts with another name of this machine; see hosts(5)."""
    return re.sub(rf"(?<=[ \t]){re.escape(before)}(?=[ \t\n]|$)", name, hosts)


def _write(path: str, text: str) -> None:
    """Puts a text into a file, in place.

    Emptied first, as one writes a file usually, ext4 would write it to the disk at once.
    """
    data = text.encode()
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        os.write(file, data)
        os.ftruncate(file, len(data))
    finally:
        os.close(file)
