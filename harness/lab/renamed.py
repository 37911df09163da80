"""A kernel module under another's name, for what a machine without that hardware cannot load.

The module is one of the node's own kernel, without a function; the name is written over its own,
and our key signs the result, so that a locked-down kernel takes it. It shows that a name is seen
among the loaded modules, and nothing about the driver that really has it.
"""

from __future__ import annotations

import struct
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from fixtures.signer import sign
from harness.errors import InfraError
from installers import modsig

if TYPE_CHECKING:
    from fixtures.pki import Authority
    from harness.transports.agent import AgentTransport

#: Loads everywhere and does nothing until it is asked to.
BASE = "dummy"
_PATH = "/run/airlock-renamed.ko"
#: struct module begins with ``enum module_state state; struct list_head list; char name[56]``
#: (include/linux/module.h): 8 bytes with padding, 16 bytes, then the name.
_NAME_AT, _NAME_SIZE = 24, 56
_SECTION = b".gnu.linkonce.this_module"


def rename(body: bytes, name: str) -> bytes:
    """``body`` (ELF, 64 bit, little endian, unsigned) as a module called ``name``."""
    if len(name) >= _NAME_SIZE or not name.isidentifier():
        raise InfraError(f"{name!r} is no module's name")
    start, size = _section(body, _SECTION)
    if size < _NAME_AT + _NAME_SIZE:
        raise InfraError(f"{BASE}'s structure is of another kind")
    field = name.encode().ljust(_NAME_SIZE, b"\0")
    at = start + _NAME_AT
    return body[:at] + field + body[at + _NAME_SIZE :]


def load(transport: AgentTransport, name: str, authority: Authority) -> None:
    """Load the renamed module on the node. InfraError if the kernel refuses it."""
    found = transport.run(["modinfo", "-n", BASE])
    path = found.out.decode().strip()
    if found.code or not path:
        raise InfraError(f"the node's kernel has no module {BASE}")
    with tempfile.TemporaryDirectory() as directory:
        copy = Path(directory) / Path(path).name
        copy.write_bytes(transport.get(path))
        body = modsig.split(modsig.read_module(copy)).body
    body = rename(body, name)
    transport.put(modsig.attach(body, sign(authority.module, body)), _PATH, mode=0o600)
    done = transport.run(["insmod", _PATH])
    if done.code:
        raise InfraError(f"{name} could not be loaded: {done.err.decode().strip()}")


def _section(elf: bytes, name: bytes) -> tuple[int, int]:
    """Offset and size of a section (elf(5), 64 bit)."""
    if elf[:6] != b"\x7fELF\x02\x01":
        raise InfraError("the module is no 64-bit ELF file")
    (table,) = struct.unpack_from("<Q", elf, 0x28)
    width, count, names = struct.unpack_from("<HHH", elf, 0x3A)
    headers = [struct.unpack_from("<IIQQQQ", elf, table + i * width) for i in range(count)]
    strings = headers[names][4]
    for label, _kind, _flags, _address, offset, size in headers:
        start = strings + label
        if elf[start : start + len(name) + 1] == name + b"\0":
            return offset, size
    raise InfraError(f"the module has no section {name.decode()}")
