"""EFI variables and signature lists, as the firmware hands them to the kernel.

A file of efivarfs is four bytes of attributes and then the value. ``db`` and ``dbx`` are
EFI_SIGNATURE_LISTs (UEFI specification, section 32.4.1): a type GUID, three little-endian u32
(list size, header size, signature size), the header, and then signatures of equal size, each an
owner GUID followed by the data.
"""

from __future__ import annotations

import struct
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


def variable(reader: Reader, name: str, guid: str, fact: Optional[str] = None) -> Optional[bytes]:
    """A variable's value without its attributes; None where the firmware has none."""
    data = reader.data(f"{EFIVARS}/{name}-{guid}", fact)
    if data is None or len(data) < ATTRIBUTES:
        return None
    return data[ATTRIBUTES:]


def flag(reader: Reader, name: str, fact: str) -> Optional[bool]:
    """A one-byte variable of the global namespace (SecureBoot, SetupMode)."""
    value = variable(reader, name, GLOBAL, fact)
    return None if not value else value[-1] == 1
