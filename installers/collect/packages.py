"""Installed packages and their versions, from dpkg's own database or from rpm."""

from __future__ import annotations

import re
from typing import Optional

from installers.collect.reader import Reader

STATUS = "/var/lib/dpkg/status"
RPM_DATABASES = ("/var/lib/rpm", "/usr/lib/sysimage/rpm")
FIELD = re.compile(r"^(Package|Status|Version): (.*)$", re.M)


def dpkg(text: str) -> dict[str, str]:
    """Name -> version of every package whose state is "installed"; removed ones keep a stanza."""
    found: dict[str, str] = {}
    name = state = ""
    for key, value in FIELD.findall(text):
        if key == "Package":
            name, state = value, ""
        elif key == "Status":
            state = value
        # dpkg writes Package, Status, ..., Version in this order.
        elif state.endswith(" installed"):
            found[name] = value
    return found


def rpm(text: str) -> dict[str, str]:
    """Name -> version-release from lines of "name version-release"."""
    pairs = (line.split(" ", 1) for line in text.splitlines() if " " in line)
    return {name: version for name, version in pairs if name != "gpg-pubkey"}


def manager(reader: Reader) -> Optional[str]:
    """ "dpkg", "rpm", or None where neither keeps a database."""
    if reader.names("/var/lib/dpkg/info"):
        return "dpkg"
    return "rpm" if any(reader.names(path) for path in RPM_DATABASES) else None


def collect(reader: Reader) -> dict[str, str]:
    """Every installed package; {} and a note where no known package manager is found."""
    kind = manager(reader)
    if kind == "dpkg":
        return dpkg(reader.text(STATUS, "packages") or "")
    if kind == "rpm":
        argv = ["rpm", "--root", reader.root, "-qa", "--qf", "%{NAME} %{VERSION}-%{RELEASE}\n"]
        return rpm(reader.command(argv, "packages", timeout=30) or "")
    reader.miss("packages", "neither dpkg nor rpm keeps a database here")
    return {}
