"""The reader of ELF versions against objdump, readelf and pyelftools; and against liars."""

from __future__ import annotations

import contextlib
import os
import random
import re
import subprocess
import time
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from elftools.elf.gnuversions import GNUVerDefSection, GNUVerNeedSection
from hypothesis import given, settings
from hypothesis import strategies as st

from installers.elf import ELFError
from installers.elfversions import Versions, versions
from tests.unit.installers_kubernetes.elves import elf

FOLDERS = ("/usr/bin", "/usr/sbin", "/usr/lib/x86_64-linux-gnu")


def of(path: Path) -> Versions:
    with path.open("rb") as file:
        return versions(lambda size, offset: os.pread(file.fileno(), size, offset))


def of_bytes(data: bytes) -> Versions:
    return versions(lambda size, offset: data[offset : offset + size])


@pytest.fixture(scope="module")
def real() -> list[Path]:
    """200 of the machine's own ELF files, the C library and the largest library among them."""
    found = []
    for folder in FOLDERS:
        for path in Path(folder).iterdir():
            if path.is_file() and not path.is_symlink():
                with path.open("rb") as file:
                    if file.read(4) == b"\x7fELF":
                        found.append(path)
    found.sort()
    special = [p for p in found if p.name in ("libc.so.6", "ld-linux-x86-64.so.2")]
    special.append(max(found, key=lambda p: p.stat().st_size))
    chosen = random.Random(8).sample(found, min(200, len(found)))
    return sorted({*special, *chosen})


def test_as_pyelftools(real: list[Path]) -> None:
    for path in real:
        needs, offers = set(), set()
        with path.open("rb") as file:
            elf = ELFFile(file)
            for name in (".gnu.version_r", ".gnu.version_d"):
                section = elf.get_section_by_name(name)
                if isinstance(section, GNUVerNeedSection):
                    for entry, parts in section.iter_versions():
                        needs |= {(entry.name, p.name, bool(p["vna_flags"] & 2)) for p in parts}
                elif isinstance(section, GNUVerDefSection):
                    offers |= {next(iter(parts)).name for _, parts in section.iter_versions()}
        found = of(path)
        assert (set(found.needs), set(found.offers)) == (needs, offers), path
    assert len(real) > 100


def test_as_objdump_and_readelf(real: list[Path]) -> None:
    some = [str(path) for path in random.Random(53).sample(real, 60)]
    by_objdump: dict[str, set[tuple[str, str]]] = {path: set() for path in some}
    path, library, inside = "", "", False
    out = subprocess.run(["objdump", "-p", *some], capture_output=True, text=True, check=True)
    for line in out.stdout.splitlines():
        if match := re.match(r"(\S+):\s+file format", line):
            path, inside = match[1], False
        elif line == "Version References:":
            inside = True
        elif inside and (match := re.match(r"  required from (\S+):", line)):
            library = match[1]
        elif inside and (match := re.match(r"    0x\w+ 0x\w+ \d+ (\S+)", line)):
            by_objdump[path].add((library, match[1]))
    by_readelf: dict[str, set[tuple[str, str]]] = {path: set() for path in some}
    out = subprocess.run(["readelf", "-VW", *some], capture_output=True, text=True, check=True)
    for line in out.stdout.splitlines():
        if match := re.match(r"File: (\S+)", line):
            path = match[1]
        elif match := re.search(r"Version: \d+  File: (\S+)  Cnt", line):
            library = match[1]
        elif match := re.search(r"0x\w+:\s+Name: (\S+)  Flags: .*Version: \d+", line):
            by_readelf[path].add((library, match[1]))
    ours = {path: {(n.library, n.name) for n in of(Path(path)).needs} for path in some}
    assert ours == by_objdump
    assert ours == by_readelf
    assert sum(map(len, ours.values())) > 100


def test_without_section_headers() -> None:
    """sstrip(1) and packers take them away; the loader does not look at them."""
    data = bytearray(Path("/usr/bin/ls").read_bytes())
    whole = of_bytes(bytes(data))
    data[0x28:0x30] = bytes(8)
    data[0x3A:0x40] = bytes(6)
    assert of_bytes(bytes(data)) == whole
    assert {need.library for need in whole.needs} >= {"libc.so.6"}


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"#!/bin/sh\n", "not an ELF"),
        (b"\x7fELF", "cut off"),
        (b"\x7fELF\x09\x01" + bytes(60), "unknown ELF class"),
        (b"\x7fELF\x02\x07" + bytes(60), "unknown ELF class"),
    ],
)
def test_no_elf(data: bytes, words: str) -> None:
    with pytest.raises(ELFError, match=words):
        of_bytes(data)


SMALL = Path("/usr/bin/true").read_bytes()


def test_cut_off_anywhere() -> None:
    """It is damaged, or all there is was before the cut; and never another exception."""
    whole = of_bytes(SMALL)
    damaged = 0
    for end in range(0, len(SMALL), 37):
        try:
            assert of_bytes(SMALL[:end]) in (whole, whole._replace(needs=[], offers=[]))
        except ELFError:
            damaged += 1
    assert damaged > 100


@settings(max_examples=200)
@given(
    changes=st.lists(
        st.tuples(
            st.integers(0, len(SMALL) - 1) | st.integers(0, 0x400) | st.integers(0x400, 0x1000),
            st.binary(min_size=1, max_size=8),
        ),
        min_size=1,
        max_size=6,
    )
)
def test_hostile(changes: list[tuple[int, bytes]]) -> None:
    """Whatever the bytes: an answer or an ELFError, at once, with a few reads of little."""
    data = bytearray(SMALL)
    for at, new in changes:
        data[at : at + len(new)] = new
    size = 0

    def read(wanted: int, offset: int) -> bytes:
        nonlocal size
        assert 0 <= offset < 1 << 63, "pread(2) would refuse it"
        size += wanted
        assert size < 64 << 20
        return bytes(data[offset : offset + wanted])

    began = time.process_time()
    try:
        found = versions(read)
    except ELFError:
        pass
    else:
        assert len(found.needs) <= 20_000
    assert time.process_time() - began < 1


def test_a_table_that_leads_to_itself() -> None:
    """A chain of entries without an end that counts them ends all the same."""
    data = elf(needs={"libc.so.6": ["GLIBC_2.17"]}, entries=1 << 30, following=0)
    assert [need.name for need in of_bytes(data).needs] == ["GLIBC_2.17"]
    with pytest.raises(ELFError, match="more versions"):
        of_bytes(elf({"libc.so.6": ["GLIBC_2.17"]}, entries=1 << 30, following=32, spin=True))


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("order", ["<", ">"])
def test_either_class_and_byte_order(bits: int, order: str) -> None:
    wanted = {"libc.so.6": ["GLIBC_2.4", "GLIBC_2.38"], "libm.so.6": ["GLIBC_2.29"]}
    found = of_bytes(elf(wanted, offers=["libown.so", "OWN_1"], bits=bits, order=order))
    assert found.bits == bits
    assert [(n.library, n.name) for n in found.needs] == [
        (library, name) for library, names in wanted.items() for name in names
    ]
    assert found.offers == ["libown.so", "OWN_1"]


@given(st.binary(max_size=4096))
@settings(max_examples=100)
def test_noise(tail: bytes) -> None:
    for head in (b"\x7fELF\x02\x01\x01", b"\x7fELF\x01\x02\x01"):
        with contextlib.suppress(ELFError):
            of_bytes(head + bytes(9) + b"\x03\x00>\x00" + tail)


def test_a_thousand_files_in_a_moment(real: list[Path]) -> None:
    """10,000 in 5 s is the limit; this leaves a slow machine ten times that."""
    began = time.process_time()
    for path in (real * 10)[:1000]:
        of(path)
    assert time.process_time() - began < 5
