"""Which C library what will run on a node needs: in folders, wheels, packages and image layers.

The tag of a wheel and the name of a package tell what their maker believed. This reads what the
loader will ask for: the newest ``GLIBC_x.y`` that a binary names without being content to miss it.
"""

from __future__ import annotations

import functools
import lzma
import os
import re
import tarfile
import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

from installers import elffiles, unpacking
from installers.elfversions import Versions
from installers.errors import ConfigError

_NUMBERED = re.compile(r"GLIBC_(\d+(?:\.\d+)+)")
#: A need that is no number -> the release that brought it (glibc's NEWS, 2.36).
_ABI = {"GLIBC_ABI_DT_RELR": "2.36"}
#: e_machine of what uname(2) calls the machine; a 32-bit program runs on its 64-bit one.
MACHINES = {"x86_64": (62, 3), "aarch64": (183, 40), "ppc64le": (21,), "s390x": (22,)}
# What a source that is no archive, or half of one, makes of the standard library.
_BROKEN = (
    *(OSError, EOFError, zlib.error, lzma.LZMAError, tarfile.TarError, zipfile.BadZipFile),
    *(unpacking.Damaged, NotImplementedError, RuntimeError, ValueError, LookupError, TypeError),
)


@functools.lru_cache(maxsize=1024)
def number(version: str) -> tuple[int, ...]:
    """A version to compare: "2.34" -> (2, 34)."""
    return tuple(int(part) for part in re.findall(r"\d+", version))


def needed(found: Versions) -> Optional[str]:
    """The oldest C library that starts this file: "2.34", or None where it asks for none."""
    asked = set()
    for _, name, weak in found.needs:
        if weak:
            continue
        match = _NUMBERED.fullmatch(name)
        if match:
            asked.add(match.group(1))
        elif name in _ABI:
            asked.add(_ABI[name])
    return max(asked, key=number, default=None)


@dataclass
class Need:
    """What the ELF files of one ``source`` need.

    ``files``: how many there are for this machine, ``foreign``: for others. ``version``: the oldest
    C library that starts all of them, None where none needs one; ``because``: the files that need
    it, at most ten. ``private``: files that name GLIBC_PRIVATE, which only the very library they
    were built with has. ``damaged``: [(path, why)].
    """

    source: str
    files: int = 0
    foreign: int = 0
    version: Optional[str] = None
    because: list[str] = field(default_factory=list)
    private: list[str] = field(default_factory=list)
    damaged: list[tuple[str, str]] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """As a dictionary."""
        return {**vars(self), "damaged": [list(pair) for pair in self.damaged]}


def need(source: str, machine: str = "") -> Need:
    """The need of a folder, an ELF file, a wheel, a package (.deb) or an image.

    ``source`` may end in ``:/FOLDER``, and is then what lies below it: of an image only what is
    copied to the host matters. ``machine`` as uname has it; this machine's where it is left out.
    An image is an OCI layout (a folder or a tar) or what ``docker save`` writes. ConfigError where
    it is none of these.
    """
    place, below = source, ""
    if not Path(source).exists() and ":/" in source:
        place, _, below = source.rpartition(":/")
    lowest = below.strip("/")
    result = Need(source)
    wanted = MACHINES.get(machine or os.uname().machine, ())
    try:
        found = elffiles.read(Path(place))
    except _BROKEN as error:
        raise ConfigError(f"cannot be read: {_said(error)}", where=place) from None
    for path, one in sorted(found.items()):
        if not lowest or f"{path}/".startswith(f"{lowest}/"):
            _add(result, path, one, wanted)
    return result


def _said(error: BaseException) -> str:
    return (error.strerror if isinstance(error, OSError) else "") or str(error) or "it is cut off"


def offered(libc: Path) -> Optional[str]:
    """The version of a C library's own file: the newest that it defines. None for another's."""
    found = elffiles.read(libc).get(libc.name)
    if not isinstance(found, Versions):
        return None
    names = (_NUMBERED.fullmatch(name) for name in found.offers)
    return max((match.group(1) for match in names if match), key=number, default=None)


def _add(result: Need, path: str, found: elffiles.Found, wanted: tuple[int, ...]) -> None:
    if isinstance(found, str):
        result.damaged.append((path, found))
        return
    if wanted and found.machine not in wanted:
        result.foreign += 1
        return
    result.files += 1
    if any(version.name == "GLIBC_PRIVATE" for version in found.needs):
        result.private.append(path)
    asked = needed(found)
    if asked is None:
        return
    if result.version is None or number(asked) > number(result.version):
        result.version, result.because = asked, []
    if asked == result.version and len(result.because) < 10:
        result.because.append(path)
