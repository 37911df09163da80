"""Which kernel modules of an installed system belong to a package, and with what hash.

dpkg keeps MD5 sums beside its file lists; rpm's database is asked through rpm itself. A module that
a package owns is the distribution's word, good or bad; what no package owns is ours to answer for.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from installers.errors import CommandError
from installers.host import Host

_DPKG = "/var/lib/dpkg/info"
_RPM = ("/var/lib/rpm", "/usr/lib/sysimage/rpm")
_TREE = b"lib/modules/"


@dataclass(frozen=True)
class Owned:
    """The packages' modules. ``digests``: path without /usr -> (algorithm, hex), or None."""

    root: Path
    digests: dict[str, Optional[tuple[str, str]]]

    def _name(self, path: Path) -> str:
        return _plain(f"/{path.relative_to(self.root)}")

    def owns(self, path: Path) -> bool:
        """Whether a package brought this file."""
        return self._name(path) in self.digests

    def unchanged(self, path: Path) -> Optional[bool]:
        """Whether the file is what its package brought; None where the package has no hash."""
        stated = self.digests[self._name(path)]
        if stated is None:
            return None
        algorithm, digest = stated
        # Which algorithm is not ours to choose: the package manager's database has this one.
        found = hashlib.new(algorithm, path.read_bytes(), usedforsecurity=False)
        return found.hexdigest() == digest


def system_of(directory: Path) -> Optional[Owned]:
    """The packages of the installed system whose modules are in ``directory``.

    None for a bare directory: one that is no system's lib/modules, or whose system has no package
    database that can be read.
    """
    parts = directory.resolve().parts
    for index in range(len(parts) - 1):
        if parts[index : index + 2] == ("lib", "modules"):
            end = index - 1 if parts[index - 1] == "usr" else index
            return _of_root(Path(*parts[:end]))
    return None


def _of_root(root: Path) -> Optional[Owned]:
    if (root / _DPKG.lstrip("/")).is_dir():
        return Owned(root, _from_dpkg(root))
    if any((root / path.lstrip("/")).is_dir() for path in _RPM):
        found = _from_rpm(root)
        return None if found is None else Owned(root, found)
    return None


def _plain(path: str) -> str:
    """A path as both sides of a merged /usr name it."""
    return path[4:] if path.startswith("/usr/lib/") else path


def _from_dpkg(root: Path) -> dict[str, Optional[tuple[str, str]]]:
    found: dict[str, Optional[tuple[str, str]]] = {}
    directory = root / _DPKG.lstrip("/")
    for listing in directory.glob("*.list"):
        data = listing.read_bytes()
        if _TREE not in data:
            continue
        for line in data.decode("utf-8", "surrogateescape").splitlines():
            if "/lib/modules/" in line and ".ko" in line:
                found[_plain(line)] = None
        sums = listing.with_suffix(".md5sums")
        if not sums.exists():
            continue
        for line in sums.read_bytes().decode("utf-8", "surrogateescape").splitlines():
            digest, _, name = line.partition("  ")
            if _plain(f"/{name}") in found:
                found[_plain(f"/{name}")] = ("md5", digest)
    return found


def _from_rpm(root: Path) -> Optional[dict[str, Optional[tuple[str, str]]]]:
    query = r"[%{FILENAMES}\t%{FILEDIGESTS}\t%{FILEDIGESTALGO}\n]"
    try:
        said = Host(root).run(["rpm", "-qa", "--qf", query], timeout=300).out
    except CommandError:
        return None
    found: dict[str, Optional[tuple[str, str]]] = {}
    for line in said.splitlines():
        name, _, rest = line.partition("\t")
        digest = rest.partition("\t")[0]
        if "/lib/modules/" in name and ".ko" in name:
            # rpm 4.14 and later: SHA-256 for every file; an empty one for links and directories.
            found[_plain(name)] = ("sha256", digest) if len(digest) == 64 else None
    return found
