"""Which versions of libraries an ELF file asks for, and which a library offers: as ld.so sees it.

The loader goes by the program headers and the dynamic section, which no strip takes away, and so
does this: DT_VERNEED and DT_VERDEF (elf(5), "Dynamic tags"; Oracle's Linker and Libraries Guide,
"Versioning Information"). A few short reads a file, whatever its size: nothing is mapped, since a
file that is cut off while it is looked at would kill us.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import NamedTuple

from installers.elf import ELFError

#: ``read(size, offset)``: bytes of the file, fewer at its end, as os.pread gives them.
Read = Callable[[int, int], bytes]


class Version(NamedTuple):
    """``name`` ("GLIBC_2.34") of ``library`` ("libc.so.6"); a ``weak`` one may be missing."""

    library: str
    name: str
    weak: bool


class Versions(NamedTuple):
    """``machine``: e_machine (62: x86-64); ``bits``: 32 or 64; what is needed and what is offered.

    ``offers`` are names of versions, the library's own name among them.
    """

    machine: int
    bits: int
    needs: list[Version]
    offers: list[str]


#: Asked for first: the header and, in every file a linker has made, the program headers.
FIRST = 4096
_LIMIT = 1 << 20  # no dynamic section, and no table of versions, is larger
_MOST = 20_000  # versions in one file: the C library itself has some 40
_DYN_TYPES = (2, 3)  # ET_EXEC, ET_DYN
_PT_LOAD, _PT_DYNAMIC = 1, 2
_DT_STRTAB, _DT_STRSZ = 5, 10
_DT_VERDEF, _DT_VERDEFNUM, _DT_VERNEED, _DT_VERNEEDNUM = (
    0x6FFFFFFC,
    0x6FFFFFFD,
    0x6FFFFFFE,
    0x6FFFFFFF,
)
_WANTED = frozenset((_DT_STRTAB, _DT_STRSZ, _DT_VERDEF, _DT_VERDEFNUM, _DT_VERNEED, _DT_VERNEEDNUM))
_WEAK = 0x2


class _Layout(NamedTuple):
    """The structures of one class and byte order."""

    bits: int
    header: struct.Struct  # e_type, e_machine, e_phoff, e_phentsize, e_phnum
    program: struct.Struct
    places: tuple[int, int, int]  # of p_offset, p_vaddr, p_filesz in it
    dynamic: struct.Struct
    need: struct.Struct
    need_aux: struct.Struct
    offer: struct.Struct
    offer_aux: struct.Struct


def _layout(bits: int, order: str) -> _Layout:
    wide = bits == 64
    return _Layout(
        bits,
        struct.Struct(order + ("16xHH12xQ14xHH" if wide else "16xHH8xI10xHH")),
        struct.Struct(order + ("IIQQQQQQ" if wide else "IIIIIIII")),
        (2, 3, 5) if wide else (1, 2, 4),
        struct.Struct(order + ("QQ" if wide else "II")),
        struct.Struct(order + "HHIII"),
        struct.Struct(order + "IHHII"),
        struct.Struct(order + "HHHHIII"),
        struct.Struct(order + "II"),
    )


_LAYOUTS = {
    (1, 1): _layout(32, "<"),
    (1, 2): _layout(32, ">"),
    (2, 1): _layout(64, "<"),
    (2, 2): _layout(64, ">"),
}


def versions(read: Read) -> Versions:
    """What one ELF file needs and offers; both empty for one that is linked statically.

    ELFError where it is none, or is damaged.
    """
    head = read(FIRST, 0)
    if head[:4] != b"\x7fELF":
        raise ELFError("not an ELF file")
    layout = _LAYOUTS.get((head[4], head[5])) if len(head) >= 64 else None
    if layout is None:
        raise ELFError("unknown ELF class or byte order, or cut off")
    kind, machine, table, entry, count = layout.header.unpack_from(head)
    empty = Versions(machine, layout.bits, [], [])
    if kind not in _DYN_TYPES or not count:
        return empty
    if entry != layout.program.size:
        raise ELFError("program headers of an unknown size")
    rows = head[table : table + entry * count]
    if len(rows) != entry * count:
        rows = read(entry * count, table) if table < 1 << 62 else b""
        if len(rows) != entry * count:
            raise ELFError("program headers are cut off")
    offset_at, address_at, size_at = layout.places
    loads, dynamic = [], None
    for row in layout.program.iter_unpack(rows):
        if row[0] == _PT_LOAD:
            loads.append((row[address_at], row[offset_at], row[size_at]))
        elif row[0] == _PT_DYNAMIC:
            dynamic = (row[offset_at], row[size_at])
    if dynamic is None:
        return empty
    return _File(read, layout, machine, loads, _tags(read, layout, *dynamic)).versions()


def _tags(read: Read, layout: _Layout, offset: int, size: int) -> dict[int, int]:
    """The dynamic tags that matter here, up to DT_NULL; the first of each counts."""
    if size > _LIMIT or offset >= 1 << 62:
        raise ELFError("the dynamic section is too large to be one")
    data = read(size, offset)
    if len(data) != size:
        raise ELFError("the dynamic section is cut off")
    found: dict[int, int] = {}
    whole = len(data) - len(data) % layout.dynamic.size
    for tag, value in layout.dynamic.iter_unpack(data[:whole]):
        if tag == 0:
            break
        if tag in _WANTED:
            found.setdefault(tag, value)
    return found


class _File:
    """The tables that the dynamic tags lead to."""

    def __init__(
        self,
        read: Read,
        layout: _Layout,
        machine: int,
        loads: list[tuple[int, int, int]],
        tags: dict[int, int],
    ) -> None:
        self.read = read
        self.layout = layout
        self.machine = machine
        self.loads = loads
        self.tags = tags
        self.left = _MOST

    def versions(self) -> Versions:
        needs, names = self._needs() if _DT_VERNEED in self.tags else ([], [])
        offers = self._offers() if _DT_VERDEF in self.tags else []
        if not needs and not offers:
            return Versions(self.machine, self.layout.bits, [], [])
        text = self._strings([*names, *offers])
        return Versions(
            self.machine,
            self.layout.bits,
            [Version(text[library], text[name], weak) for library, name, weak in needs],
            [text[name] for name in offers],
        )

    def _place(self, address: int) -> int:
        """Where in the file what is loaded at this address lies."""
        for start, offset, size in self.loads:
            if start <= address < start + size:
                found = offset + address - start
                if found < 1 << 62:
                    return found
        raise ELFError("a table lies outside of the file's segments")

    def _needs(self) -> tuple[list[tuple[int, int, bool]], list[int]]:
        """(library, name, weak) of every version needed, and the places of all names."""
        found: list[tuple[int, int, bool]] = []
        names: set[int] = set()
        table = _Window(self.read, self._place(self.tags[_DT_VERNEED]))
        at = 0
        for _ in range(self.tags.get(_DT_VERNEEDNUM, _MOST)):
            _, count, library, first, following = table.unpack(self.layout.need, at)
            aux = at + first
            for _ in range(count):
                self._count()
                _, flags, _, name, step = table.unpack(self.layout.need_aux, aux)
                found.append((library, name, bool(flags & _WEAK)))
                names.update((library, name))
                if not step:
                    break
                aux += step
            if not following:
                break
            self._count()
            at += following
        return found, sorted(names)

    def _offers(self) -> list[int]:
        """The places of the names of every version defined: the first of each entry's."""
        found = []
        table = _Window(self.read, self._place(self.tags[_DT_VERDEF]))
        at = 0
        for _ in range(self.tags.get(_DT_VERDEFNUM, _MOST)):
            self._count()
            _, _, _, count, _, first, following = table.unpack(self.layout.offer, at)
            if count:
                found.append(table.unpack(self.layout.offer_aux, at + first)[0])
            if not following:
                break
            at += following
        return found

    def _count(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise ELFError("names more versions than any file has")

    def _strings(self, places: list[int]) -> dict[int, str]:
        """Texts of the string table by their places."""
        size = self.tags.get(_DT_STRSZ, 0)
        if _DT_STRTAB not in self.tags or max(places) >= size:
            raise ELFError("a version's name lies outside of the table of strings")
        start = self._place(self.tags[_DT_STRTAB])
        low, high = min(places), max(places)
        # Linkers write the names of versions side by side, at the end.
        table = _Window(self.read, start + low) if high - low < _LIMIT // 2 else None
        found = {}
        for place in set(places):
            data = table.text(place - low) if table else _Window(self.read, start + place).text(0)
            found[place] = data.decode("utf-8", "replace")
        return found


class _Window:
    """Some of the file, more of it where it turns out to be needed; never more than _LIMIT."""

    def __init__(self, read: Read, start: int) -> None:
        self.read = read
        self.start = start
        self.data = read(2048, start)
        self.size = 2048

    def _grow(self, end: int) -> None:
        if end > _LIMIT:
            raise ELFError("a table of versions is too large to be one")
        if end > self.size:
            self.size = max(end, 4 * self.size)
            self.data = self.read(self.size, self.start)
        if end > len(self.data):
            raise ELFError("a table of versions is cut off")

    def unpack(self, what: struct.Struct, at: int) -> tuple[int, ...]:
        """The numbers of one structure."""
        end = at + what.size
        if end > len(self.data):
            self._grow(end)
        return what.unpack_from(self.data, at)

    def text(self, at: int) -> bytes:
        """Up to the next NUL, of at most 4096 bytes."""
        end = self.data.find(b"\0", at)
        if end < 0:
            self.size = at + 4097
            self.data = self.read(self.size, self.start)
            end = self.data.find(b"\0", at)
        if not 0 <= end - at <= 4096:
            raise ELFError("a version's name does not end")
        return self.data[at:end]
