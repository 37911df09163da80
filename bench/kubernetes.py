"""A node's preflight in one exchange, and the C library that ten thousand ELF files need."""

from __future__ import annotations

import os
import secrets
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

from elftools.elf.elffile import ELFFile
from elftools.elf.gnuversions import GNUVerNeedSection

from bench.record import Measurement, against, timed
from harness.pack import pack
from harness.state import cache_dir
from harness.transports.local import LocalTransport
from installers import glibc
from installers.kubernetes import judging
from installers.kubernetes.wanted import Cluster

FILES = 10_000
FOLDERS = ("/usr/lib", "/usr/bin", "/usr/sbin", "/usr/libexec")
LIMIT_GLIBC, TIMES, LIMIT_PREFLIGHT = 5.0, 10.0, 1.0


def _real() -> list[Path]:
    """This machine's own ELF files with dynamic sections: programs and libraries."""
    found = []
    for folder in FOLDERS:
        for top, _, names in os.walk(folder):
            for name in names:
                path = Path(top) / name
                if path.is_symlink() or not path.is_file():
                    continue
                with path.open("rb") as file:
                    if file.read(18)[:4] == b"\x7fELF" and not name.endswith((".o", ".ko")):
                        found.append(path)
    return found


def _by_pyelftools(folder: Path) -> str:
    """The same answer: the newest version that any file of a folder needs of the C library."""
    newest = (0,)
    for path in folder.iterdir():
        with path.open("rb") as file:
            section = ELFFile(file).get_section_by_name(".gnu.version_r")
            if not isinstance(section, GNUVerNeedSection):
                continue
            for _, parts in section.iter_versions():
                for part in parts:
                    name = part.name
                    if name.startswith("GLIBC_2") and not part["vna_flags"] & 2:
                        newest = max(newest, glibc.number(name))
    return ".".join(map(str, newest))


def bench_glibc_vs_pyelftools() -> Measurement:
    """10,000 ELF files, the same set for both: at most 5 s, and ten times pyelftools at least.

    The set is this machine's files, linked under further names until there are 10,000.
    """
    with tempfile.TemporaryDirectory(prefix="ab-", dir="/var/tmp") as scratch:
        folder = Path(scratch)
        real = _real()
        for number in range(FILES):
            source = real[number % len(real)]
            target = folder / f"{number}-{source.name}"
            try:
                target.hardlink_to(source)
            except OSError:
                target.write_bytes(source.read_bytes())
        samples, found = [], []
        for _ in range(3):
            samples.append(timed(lambda: found.append(glibc.need(scratch))))
        began = time.perf_counter()
        theirs = _by_pyelftools(folder)
        peer = time.perf_counter() - began
    ours = found[-1]
    if ours.version != theirs or ours.files + ours.foreign != FILES or ours.damaged:
        sys.exit(f"glibc_vs_pyelftools: {ours.version} of {ours.files}, not {theirs} of {FILES}")
    measured = against(
        "glibc_vs_pyelftools", samples, [peer], "pyelftools, .gnu.version_r alone", "s",
        [f"{FILES} ELF files of {len(real)} different ones, the newest need equal: {theirs}"],
        {"pyelftools": version("pyelftools")},
    )  # fmt: skip
    if measured.ratio < TIMES or measured.ours > LIMIT_GLIBC:
        print(f"OVER THE LIMIT: {LIMIT_GLIBC} s, {TIMES} times", file=sys.stderr)
    return measured


def bench_preflight() -> Measurement:
    """One exchange with an agent that runs, over an open pair of pipes, and the judgement."""
    wanted = Cluster(services="172.20.0.0/16")
    node = LocalTransport(pack(cache_dir("node")).path)
    try:

        def one() -> None:
            facts = node.facts(secrets.token_hex(8), only=judging.AREAS)
            judging.judge(facts, wanted)

        one()  # the connection is open, and the agent's modules are loaded
        samples = [timed(one) for _ in range(9)]
    finally:
        node.close()
    measured = against(
        "preflight", samples, [LIMIT_PREFLIGHT], "limit", "s", ["the agent's facts, by area"]
    )
    if measured.ours > LIMIT_PREFLIGHT:
        print("OVER THE LIMIT: 1 s", file=sys.stderr)
    return measured
