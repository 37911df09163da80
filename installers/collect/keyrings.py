"""The kernel's system keyrings, read with the keyctl system call (no keyctl program needed).

/proc/keys names every keyring root may view with its serial number; KEYCTL_READ lists the serials
in it; KEYCTL_DESCRIBE gives "type;uid;gid;perm;description". For a certificate the description is
the subject's name, a colon and the hex subject key id: "Debian Secure Boot CA: 6ccece7e...".
"""

from __future__ import annotations

import ctypes
import os
import platform
import re
import struct
from collections.abc import Callable
from typing import Any, Optional

from installers.collect.reader import Reader

KEYRINGS = (".platform", ".machine", ".builtin_trusted_keys", ".secondary_trusted_keys")

KEYCTL_DESCRIBE = 6
KEYCTL_READ = 11
# System call numbers of keyctl(2) (arch/x86/entry/syscalls/syscall_64.tbl, asm-generic/unistd.h).
SYSCALLS = {"x86_64": 250, "aarch64": 219}

# "2cbfedd8 I------     1 perm 1f0b0000     0     0 keyring   .builtin_trusted_keys: empty"
KEY_LINE = re.compile(r"^([0-9a-f]{8}) \S+ +\d+ +\S+ +[0-9a-f]{8} +\d+ +\d+ keyring +(\S+?):", re.M)
KEY_ID = re.compile(r"^(.*): ([0-9a-f]{8,})$", re.S)

Fetch = Callable[[int, int], bytes]


def kernel_fetch() -> Optional[Fetch]:
    """A function (operation, serial) -> bytes over keyctl(2); None on an unknown architecture."""
    number = SYSCALLS.get(platform.machine())
    if number is None:
        return None
    libc = ctypes.CDLL(None, use_errno=True)

    def fetch(operation: int, serial: int) -> bytes:
        size = 4096
        while True:
            buffer = ctypes.create_string_buffer(size)
            got = libc.syscall(
                ctypes.c_long(number),
                ctypes.c_int(operation),
                ctypes.c_int(serial),
                buffer,
                ctypes.c_size_t(size),
            )
            if got < 0:
                code = ctypes.get_errno()
                raise OSError(code, os.strerror(code), f"key {serial & 0xFFFFFFFF:08x}")
            if got <= size:
                return buffer.raw[:got]
            size = got

    return fetch


def members(fetch: Fetch, serial: int) -> list[dict[str, Optional[str]]]:
    """What a keyring holds: [{"description", "keyid"}]; keyid is None where none is shown."""
    listed = fetch(KEYCTL_READ, serial)
    found: list[dict[str, Optional[str]]] = []
    for (member,) in struct.iter_unpack("=i", listed[: len(listed) // 4 * 4]):
        described = fetch(KEYCTL_DESCRIBE, member).rstrip(b"\0").decode("utf-8", "replace")
        description = described.split(";", 4)[-1]
        match = KEY_ID.match(description)
        if match:
            found.append({"description": match.group(1), "keyid": match.group(2)})
        else:
            found.append({"description": description, "keyid": None})
    return found


def collect(reader: Reader, fetch: Optional[Fetch] = None) -> dict[str, Any]:
    """Members of each system keyring; None for one that exists and cannot be read.

    A keyring the kernel does not have is an empty list: nothing is trusted through it.
    """
    fact = "secure_boot.keyrings"
    if not reader.need_live(fact):
        return dict.fromkeys(KEYRINGS)
    text = reader.text("/proc/keys", fact)
    fetch = fetch or kernel_fetch()
    if text is None or fetch is None:
        reader.miss(fact, f"keyctl is not known on {platform.machine()}")
        return dict.fromkeys(KEYRINGS)
    serials = {name: int(serial, 16) for serial, name in KEY_LINE.findall(text)}
    found: dict[str, Any] = {}
    for name in KEYRINGS:
        try:
            found[name] = members(fetch, serials[name]) if name in serials else []
        except OSError as error:
            reader.miss(f"{fact}.{name}", error)
            found[name] = None
    return found
