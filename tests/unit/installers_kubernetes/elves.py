"""Shared objects made by hand: any need, either class and byte order, and tables that lie."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

_BASE = 0x400000  # where the file is loaded: places in it and addresses differ by this


def elf(
    needs: Mapping[str, Sequence[str]] | None = None,
    *,
    offers: Sequence[str] = (),
    weak: bool = False,
    bits: int = 64,
    order: str = "<",
    machine: int = 62,
    entries: int | None = None,
    following: int | None = None,
    spin: bool = False,
) -> bytes:
    """An ELF file of one segment. ``entries``: what DT_VERNEEDNUM says in place of the truth,
    ``following``: the last entry's vn_next, and with ``spin`` of every one (0: the chain's end).
    """
    wide = bits == 64
    head_size, row_size, tag = (64, 56, "QQ") if wide else (52, 32, "II")
    text, places = bytearray(b"\0"), {}

    def place(name: str) -> int:
        if name not in places:
            places[name] = len(text)
            text.extend(name.encode() + b"\0")
        return places[name]

    table = bytearray()
    libraries = list((needs or {}).items())
    for index, (library, names) in enumerate(libraries):
        last = index == len(libraries) - 1
        step = 16 + 16 * len(names)
        ahead = following if following is not None and (last or spin) else 0 if last else step
        table += struct.pack(order + "HHIII", 1, len(names), place(library), 16, ahead)
        for number, name in enumerate(names):
            more = 16 if number < len(names) - 1 else 0
            flags = 2 if weak else 0
            table += struct.pack(order + "IHHII", 0, flags, 2, place(name), more)
    if spin:
        table *= 30_000
    defined = bytearray()
    for index, name in enumerate(offers):
        more = 28 if index < len(offers) - 1 else 0
        defined += struct.pack(order + "HHHHIII", 1, 0, index + 1, 1, 0, 20, more)
        defined += struct.pack(order + "II", place(name), 0)
    start = head_size + 2 * row_size
    where, parts = {}, bytearray()
    for name, data in (("strings", text), ("needs", table), ("offers", defined)):
        where[name] = _BASE + start + len(parts)
        parts += data
    tags = [(5, where["strings"]), (10, len(text))]
    if needs:
        count = len(libraries) if entries is None else entries
        tags += [(0x6FFFFFFE, where["needs"]), (0x6FFFFFFF, count)]
    if offers:
        tags += [(0x6FFFFFFC, where["offers"]), (0x6FFFFFFD, len(offers))]
    dynamic = b"".join(struct.pack(order + tag, *pair) for pair in [*tags, (0, 0)])
    at = start + len(parts)
    size = at + len(dynamic)
    rows = b""
    for kind, offset, length in ((1, 0, size), (2, at, len(dynamic))):
        address = _BASE + offset
        if wide:
            row = (kind, 4, offset, address, address, length, length, 8)
            rows += struct.pack(order + "IIQQQQQQ", *row)
        else:
            row = (kind, offset, address, address, length, length, 4, 8)
            rows += struct.pack(order + "IIIIIIII", *row)
    ident = b"\x7fELF" + bytes([2 if wide else 1, 1 if order == "<" else 2, 1]) + bytes(9)
    word = "Q" if wide else "I"
    numbers = (3, machine, 1, 0, head_size, 0, 0, head_size, row_size, 2, 0, 0, 0)
    head = ident + struct.pack(f"{order}HHI{word}{word}{word}IHHHHHH", *numbers)
    return head + rows + bytes(parts) + dynamic
