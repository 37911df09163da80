"""Installed packages and their versions, from dpkg's own database or from rpm."""

from __future__ import annotations

from pathlib import Path
from typing import Optional

from installers.collect.reader import Reader

STATUS = "/var/lib/dpkg/status"
RPM_DATABASES = ("/var/lib/rpm", "/usr/lib/sysimage/rpm")


def _line(stanza: bytes, start: int) -> bytes:
    """What follows the byte at ``start``, to the end of its line."""
    end = stanza.find(b"\n", start + 1)
    return stanza[start + 1 :] if end < 0 else stanza[start + 1 : end]


def dpkg(status: bytes) -> dict[str, str]:
    """Name -> version of every package whose state is "installed"; removed ones keep a stanza."""
    found: dict[str, str] = {}
    for stanza in status.split(b"\n\n"):
        # dpkg writes Package first, and Status soon after it.
        state = stanza.find(b"\nStatus: ")
        version = stanza.find(b"\nVersion: ")
        if not stanza.startswith(b"Package: ") or state < 0 or version < 0:
            continue
        if not _line(stanza, state).endswith(b" installed"):
            continue
        name = _line(stanza, len("Package: ") - 1).decode()
        found[name] = _line(stanza, version + len("\nVersion: ") - 1).decode()
    return found


def rpm(text: str) -> dict[str, str]:
    """Name -> version-release from lines of "name version-release"."""
    pairs = (line.split(" ", 1) for line in text.splitlines() if " " in line)
    return {name: version for name, version in pairs if name != "gpg-pubkey"}


def manager(reader: Reader) -> Optional[str]:
    """ "dpkg", "rpm", or None where neither keeps a database."""
    if Path(reader.path(STATUS)).exists():
        return "dpkg"
    return "rpm" if any(reader.names(path) for path in RPM_DATABASES) else None


def collect(reader: Reader) -> dict[str, str]:
    """Every installed package; {} and a note where no known package manager is found."""
    kind = manager(reader)
    if kind == "dpkg":
        return dpkg(reader.data(STATUS, "packages") or b"")
    if kind == "rpm":
        argv = ["rpm", "--root", reader.root, "-qa", "--qf", "%{NAME} %{VERSION}-%{RELEASE}\n"]
        return rpm(reader.command(argv, "packages", timeout=30) or "")
    reader.miss("packages", "neither dpkg nor rpm keeps a database here")
    return {}
