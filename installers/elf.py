"""What a kernel module says about itself: sections and ``.modinfo`` of an ELF file.

``modinfo`` is not on every node, and it reads a file by name only. The layout is that of elf(5).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass


class ELFError(ValueError):
    """The bytes are not an ELF file that can be read."""


@dataclass(frozen=True)
class Section:
    """One section header; ``offset`` and ``size`` in bytes. NOBITS sections hold no bytes."""

    name: str
    offset: int
    size: int
    nobits: bool


_SHT_NOBITS = 8
# (section header, e_shoff position, e_shentsize/e_shnum/e_shstrndx position) by EI_CLASS
_LAYOUT = {1: ("IIIIIIIIII", "I", 0x20, 0x2E), 2: ("IIQQQQIIQQ", "Q", 0x28, 0x3A)}


def extent(data: bytes) -> int:
    """How many bytes the ELF file itself needs; what follows was appended to it."""
    rows, _, table_end = _headers(data)
    return max([table_end] + [row[4] + row[5] for row in rows if row[1] != _SHT_NOBITS])


def _headers(data: bytes) -> tuple[list[tuple[int, ...]], int, int]:
    """(section headers, index of the one with names, where their table ends).

    Every section lies within ``data``; ELFError otherwise.
    """
    if data[:4] != b"\x7fELF" or len(data) < 0x40:
        raise ELFError("not an ELF file")
    if data[4] not in _LAYOUT or data[5] not in (1, 2):
        raise ELFError("unknown ELF class or byte order")
    order = "<" if data[5] == 1 else ">"
    header, word, shoff_at, counts_at = _LAYOUT[data[4]]
    (table,) = struct.unpack_from(order + word, data, shoff_at)
    entry, count, names_index = struct.unpack_from(order + "HHH", data, counts_at)
    row = struct.Struct(order + header)
    if entry < row.size or not 0 < names_index < count or table + entry * count > len(data):
        raise ELFError("section header table is damaged or cut off")
    rows = [row.unpack_from(data, table + i * entry) for i in range(count)]
    for number, found in enumerate(rows):
        if found[1] != _SHT_NOBITS and found[4] + found[5] > len(data):
            raise ELFError(f"section {number} is cut off")
    return rows, names_index, table + entry * count


def sections(data: bytes) -> list[Section]:
    """The sections of a 32 or 64 bit ELF file, either byte order; ELFError otherwise."""
    rows, names_index, _ = _headers(data)
    names = data[rows[names_index][4] :][: rows[names_index][5]]
    found = []
    for row in rows:
        name = names[row[0] :].split(b"\0", 1)[0].decode("ascii", "replace")
        found.append(Section(name, row[4], row[5], row[1] == _SHT_NOBITS))
    return found


def modinfo(data: bytes) -> dict[str, list[str]]:
    """The fields of ``.modinfo`` (vermagic, name, depends, alias, ...), each with all its values.

    ``data`` is an uncompressed module. A module without the section gives an empty dict.
    """
    found: dict[str, list[str]] = {}
    for section in sections(data):
        if section.name != ".modinfo":
            continue
        for entry in data[section.offset : section.offset + section.size].split(b"\0"):
            key, equals, value = entry.partition(b"=")
            if equals:
                found.setdefault(key.decode("ascii", "replace"), []).append(
                    value.decode("utf-8", "replace")
                )
    return found
