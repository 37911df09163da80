"""Where an environment and what is around it touch: who may read it, and what gets in beside it.

Everything is read as it lies: no interpreter is started.
"""

# Thousands of files are looked at: Path objects would cost more than reading them.
# ruff: noqa: PTH116
from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Mapping
from typing import Any, Optional

from installers.collect.reader import Reader

SHOWN = 10
_SITE = re.compile(r"(lib/(python3\.\d+)/site-packages)/([^/]+)")
_METADATA = re.compile(r"lib/python3\.\d+/site-packages/[^/]+\.dist-info/METADATA")
_HEADER = re.compile(r"^(Name|Version|Requires-Dist):\s*(.+?)\s*$", re.M)
_NEEDS = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)\s*(?:\[[^\]]*\])?\s*\(?([^;)]*)\)?\s*(;.*)?$")
_PLAIN = re.compile(r"(==|!=|<=|>=|<|>)\s*([0-9]+(?:\.[0-9]+)*)$")
_NUMBERS = re.compile(r"[0-9]+(?:\.[0-9]+)*$")
# Python looks here before it looks into an environment.
_VARIABLES = re.compile(r"^\s*(?:export\s+)?(PYTHONPATH|PYTHONHOME|PYTHONSTARTUP)=(.+)$", re.M)
_PLACES = ("/etc/environment", "/etc/profile", "/root/.bashrc", "/root/.profile")


def collect(reader: Reader, record: Mapping[str, Any]) -> dict[str, Any]:
    """Of one environment: ``closed``: files and folders that not everybody can read; ``writable``:
    those that everybody can write; ``strays``: what lies in its site-packages and is no package's;
    ``unmet``: what a distribution in it requires and is not there; ``before``: what Python takes
    before it, for some user or for all. SHOWN names of each at most.
    """
    prefix = reader.path(record["prefix"])
    names = list(record["files"])
    closed, writable = _modes(prefix, names)
    site, python, known = _site(names)
    there = reader.names(f"{record['prefix']}/{site}") if site else []
    return {
        "closed": closed[:SHOWN],
        "writable": writable[:SHOWN],
        "strays": [n for n in there if n not in known and n != "__pycache__"][:SHOWN],
        "unmet": _unmet(reader, record["prefix"], names)[:SHOWN],
        "before": _before(reader, python),
    }


def _modes(prefix: str, names: Iterable[str]) -> tuple[list[str], list[str]]:
    closed, writable = [], []
    folders = {""}
    for name in names:
        above = name.rpartition("/")[0]
        while above not in folders:
            folders.add(above)
            above = above.rpartition("/")[0]
    for name in (*sorted(folders), *names):
        try:
            mode = os.stat(f"{prefix}/{name}").st_mode
        except OSError:
            continue  # gone: the files themselves are compared elsewhere
        least = stat.S_IROTH | (stat.S_IXOTH if stat.S_ISDIR(mode) else 0)
        if mode & least != least:
            closed.append(name or ".")
        if mode & stat.S_IWOTH:
            writable.append(name or ".")
    return closed, writable


def _site(names: Iterable[str]) -> tuple[str, Optional[str], set[str]]:
    """The folder of packages, its Python ("python3.11"), and the names in it that are known."""
    site, python, known = "", None, set()
    for name in names:
        match = _SITE.match(name)
        if match:
            site, python = match[1], match[2]
            known.add(match[3])
    return site, python, known


def _unmet(reader: Reader, prefix: str, names: Iterable[str]) -> list[str]:
    """As 'pip check' says it; a requirement with a marker is passed over, and so is a version that
    is more than numbers.
    """
    there: dict[str, str] = {}
    needs: list[tuple[str, str, str]] = []
    for name in names:
        if not _METADATA.fullmatch(name):
            continue
        head = (reader.text(f"{prefix}/{name}") or "").split("\n\n", 1)[0]
        fields = _HEADER.findall(head)
        own = next((value for key, value in fields if key == "Name"), name)
        there[_plain(own)] = next((value for key, value in fields if key == "Version"), "")
        for key, value in fields:
            match = _NEEDS.match(value) if key == "Requires-Dist" else None
            if match and not match[3]:
                needs.append((own, match[1], match[2]))
    found = []
    for own, wanted, versions in needs:
        version = there.get(_plain(wanted))
        if version is None:
            found.append(f"{own} requires {wanted}, which is not installed")
        elif not all(_fits(version, one.strip()) for one in versions.split(",")):
            found.append(f"{own} requires {wanted}{versions.strip()}, and has {version}")
    return sorted(found)


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _fits(version: str, demand: str) -> bool:
    match = _PLAIN.fullmatch(demand)
    if match is None or not _NUMBERS.fullmatch(version):
        return True
    has, wants = _numbers(version), _numbers(match[2])
    length = max(len(has), len(wants))
    has, wants = (v + (0,) * (length - len(v)) for v in (has, wants))
    return {
        "==": has == wants,
        "!=": has != wants,
        "<=": has <= wants,
        ">=": has >= wants,
        "<": has < wants,
        ">": has > wants,
    }[match[1]]


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def _before(reader: Reader, python: Optional[str]) -> list[str]:
    found = []
    for home in ("/root", *(f"/home/{name}" for name in reader.names("/home"))):
        place = f"{home}/.local/lib/{python}/site-packages"
        if python and reader.names(place):
            found.append(place)
    scripts = [n for n in reader.names("/etc/profile.d") if n.endswith(".sh")]
    for path in (*_PLACES, *(f"/etc/profile.d/{name}" for name in scripts)):
        for name, value in _VARIABLES.findall(reader.text(path) or ""):
            found.append(f"{path}: {name}={value}")
    return found
