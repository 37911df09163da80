"""EFI variables and signature lists, as the firmware hands them to the kernel.

A file of efivarfs is four bytes of attributes and then the value. ``db`` and ``dbx`` are
EFI_SIGNATURE_LISTs (UEFI specification, section 32.4.1): a type GUID, three little-endian u32
(list size, header size, signature size), the header, and then signatures of equal size, each an
owner GUID followed by the data.
"""

# ruff: noqa: PTH120 - paths come as text and go as text
from __future__ import annotations

import ctypes
import os
import struct
import threading
import uuid
from typing import NamedTuple, Optional

from installers.collect.reader import Reader

EFIVARS = "/sys/firmware/efi/efivars"
GLOBAL = "8be4df61-93ca-11d2-aa0d-00e098032b8c"
IMAGE_SECURITY = "d719b2cb-3d3a-4596-a3bc-dad00e67656f"
X509 = uuid.UUID("a5c059a1-94e4-4aa7-87b5-ab155c2bf072")

ATTRIBUTES = 4
OWNER = 16
LIST_HEADER = struct.Struct("<16sIII")
LARGEST = 1 << 20
EVENTS = 1 << 16
# inotify.h: IN_MODIFY, IN_MOVED_FROM, IN_MOVED_TO, IN_CREATE, IN_DELETE
CHANGES = 0x002 | 0x040 | 0x080 | 0x100 | 0x200


class SignatureListError(ValueError):
    """The bytes are not EFI signature lists; says at which offset and why."""


class Signature(NamedTuple):
    """One entry of a signature list: its kind, who put it there, and the data itself."""

    kind: uuid.UUID
    owner: uuid.UUID
    data: bytes


def signatures(data: bytes) -> list[Signature]:
    """Every signature in a ``db`` or ``dbx`` value; raises SignatureListError on bad bytes."""
    found: list[Signature] = []
    offset = 0
    while offset < len(data):
        if len(data) - offset < LIST_HEADER.size:
            raise SignatureListError(f"{len(data) - offset} stray bytes at offset {offset}")
        kind, size, header, each = LIST_HEADER.unpack_from(data, offset)
        start = offset + LIST_HEADER.size + header
        end = offset + size
        if size < LIST_HEADER.size + header or end > len(data):
            raise SignatureListError(f"the list at offset {offset} says it is {size} bytes long")
        if each < OWNER or (end - start) % each:
            raise SignatureListError(f"the list at offset {offset} has signatures of {each} bytes")
        for entry in range(start, end, each):
            owner = uuid.UUID(bytes_le=data[entry : entry + OWNER])
            body = data[entry + OWNER : entry + each]
            found.append(Signature(uuid.UUID(bytes_le=kind), owner, body))
        offset = end
    return found


class Variables:
    """Reads variables, each once for as long as nobody writes to efivarfs.

    Each read is a call into the firmware: 0.1 s and more where it runs emulated, which is more
    than all other facts together. The kernel tells of every write (inotify(7)); where it cannot
    tell, nothing is kept. Of a file that is mounted over another it does not tell: it is known by
    being another file.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[str, object], tuple[Optional[bytes], Optional[OSError]]] = {}
        self._watch: Optional[int] = None
        self._watched = ""
        # Held while reading: a second reader waits instead of asking the firmware as well.
        self._lock = threading.Lock()

    def read(
        self, reader: Reader, name: str, guid: str, fact: Optional[str] = None
    ) -> Optional[bytes]:
        """A variable's value without its attributes; None where the firmware has none."""
        path = reader.path(f"{EFIVARS}/{name}-{guid}")
        with self._lock:
            if self._changed(os.path.dirname(path)):
                self._known.clear()
            key = (path, _which(path))
            if key not in self._known:
                self._known[key] = _read(path)
            data, error = self._known[key]
        if error is not None and fact is not None:
            reader.miss(fact, error)
        return data

    def flag(self, reader: Reader, name: str, fact: str) -> Optional[bool]:
        """A one-byte variable of the global namespace (SecureBoot, SetupMode)."""
        value = self.read(reader, name, GLOBAL, fact)
        return None if not value else value[-1] == 1

    def _changed(self, folder: str) -> bool:
        """Whether anything was written since the last call; True where that is not known."""
        if self._watch is None or self._watched != folder:
            self.close()
            self._watch, self._watched = _watch(folder), folder
            return True
        try:
            return bool(os.read(self._watch, EVENTS))
        except BlockingIOError:
            return False

    def close(self) -> None:
        """Gives the watch back."""
        if self._watch is not None:
            os.close(self._watch)
            self._watch = None


def _which(path: str) -> object:
    """What tells a file from another one of the same name; None where there is none."""
    try:
        status = os.stat(path)  # noqa: PTH116
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _watch(folder: str) -> Optional[int]:
    """An inotify descriptor that tells of changes in a folder; None where there is none."""
    libc = ctypes.CDLL(None, use_errno=True)
    fd = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    if fd < 0:
        return None
    if libc.inotify_add_watch(fd, os.fsencode(folder), CHANGES) < 0:
        os.close(fd)
        return None
    return int(fd)


def _read(path: str) -> tuple[Optional[bytes], Optional[OSError]]:
    """The value or the error. One read(2) and no more: reading on would ask the firmware again."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            data = os.read(fd, LARGEST)
        finally:
            os.close(fd)
    except OSError as error:
        return None, error
    return (data[ATTRIBUTES:], None) if len(data) >= ATTRIBUTES else (None, None)
