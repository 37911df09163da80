"""Makes a fork of a frozen machine a machine of its own: clock, entropy, identity.

A fork wakes up with the memory of another machine: its clock stands where that one was frozen, its
random numbers would repeat, and its name and ids are taken.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import struct
import time
from pathlib import Path
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
    with Path("/dev/urandom").open("wb", buffering=0) as pool:
        fcntl.ioctl(
            pool, _RNDADDENTROPY, struct.pack("ii", len(entropy) * 8, len(entropy)) + entropy
        )
        # Kernels before 4.14 reseed by themselves within minutes only.
        with contextlib.suppress(OSError):
            fcntl.ioctl(pool, _RNDRESEEDCRNG)
    machine_id = os.urandom(16).hex()
    Path("/etc/machine-id").write_text(machine_id + "\n", encoding="ascii")
    socket.sethostname(name)
    Path("/etc/hostname").write_text(name + "\n", encoding="ascii")
    address = bytes.fromhex(mac.replace(":", ""))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
        request = struct.pack("16sH14s", card.encode(), _ARPHRD_ETHER, address)
        fcntl.ioctl(link, _SIOCSIFHWADDR, request)
    return {"machine_id": machine_id, "hostname": socket.gethostname(), "clock": time.time()}
