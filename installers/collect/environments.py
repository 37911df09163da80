"""Conda environments that we installed: what their records say, and whether they are still that.

Records are below /var/lib/airlock/environments, one an environment (installers.environments). Every
file is compared with its SHA-256 there; what the lock names is imported by the environment's own
interpreter.
"""

# Thousands of files are looked at: Path objects would cost more than reading them.
# ruff: noqa: PTH115, PTH116, PTH123

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping
from typing import Any, Optional

from installers.collect import seams
from installers.collect.reader import Reader
from installers.collect.remember import Remembered

RECORDS = "/var/lib/airlock/environments"
KERNELS = "/usr/local/share/jupyter/kernels"
#: As many names of changed files are told; how many there are is told too.
SHOWN = 10
_IMPORT = """
import importlib, json, sys
wrong = {}
for name in sys.argv[1:]:
    try:
        importlib.import_module(name)
    except BaseException as error:
        wrong[name] = f"{type(error).__name__}: {error}"
print(json.dumps(wrong))
"""


class Seen:
    """What a resident agent remembers between two looks: hashes and imports of the same files."""

    def __init__(self) -> None:
        self.digests: Remembered[str] = Remembered()
        self.imports: dict[str, tuple[Any, Optional[dict[str, str]]]] = {}


def collect(reader: Reader, seen: Seen) -> dict[str, Any]:
    """Name of each environment to its ``lock`` (digest), ``prefix``, how many ``files`` it has, how
    many are ``changed`` (``first``: some of them), its ``packages`` (NAME-VERSION-BUILD, sorted),
    ``imports`` (what cannot be imported, and why; None where the interpreter does not run) and
    ``kernel`` (the program Jupyter starts for it). For the rest see installers.collect.seams.
    """
    found: dict[str, Any] = {}
    for file in reader.names(RECORDS):
        name, _, suffix = file.rpartition(".")
        if suffix != "json" or not name:
            continue
        record = _record(reader, f"{RECORDS}/{file}")
        if record is None:
            reader.miss(f"environments.{name}", f"{RECORDS}/{file} is no record of ours")
            found[name] = None
            continue
        changed, state = _changed(reader, record, seen)
        found[name] = {
            "lock": record["lock"],
            "prefix": record["prefix"],
            "files": len(record["files"]) + len(record["links"]),
            "changed": len(changed),
            "first": changed[:SHOWN],
            "packages": _packages(record),
            "imports": _imports(reader, name, record, state, seen),
            "kernel": _kernel(reader, name),
            **seams.collect(reader, record),
        }
    return found


def _record(reader: Reader, path: str) -> Optional[dict[str, Any]]:
    try:
        record = json.loads(reader.text(path) or "")
    except ValueError:
        return None
    wanted = {"lock": str, "prefix": str, "imports": list, "files": dict, "links": dict}
    fits = isinstance(record, dict) and all(
        isinstance(record.get(key), kind) for key, kind in wanted.items()
    )
    return record if fits else None


def _packages(record: Mapping[str, Any]) -> list[str]:
    """Conda packages by the files that say what each brought, one a package."""
    found = (re.fullmatch(r"conda-meta/([^/]+)\.json", name) for name in record["files"])
    return sorted(match.group(1) for match in found if match)


def _changed(reader: Reader, record: Mapping[str, Any], seen: Seen) -> tuple[list[str], int]:
    """Names of files and links that differ, and a number that is another one when anything does:
    also when a folder of theirs got a file that is no one's, which can hide a module.
    """
    prefix = reader.path(record["prefix"])
    changed: list[str] = []
    state: list[Any] = []
    for name, digest in record["files"].items():
        path = f"{prefix}/{name}"
        try:
            found = seen.digests.get(path, _digest)
        except OSError:
            found = ""
        state.append(found)
        if found != digest:
            changed.append(name)
    for name, to in record["links"].items():
        try:
            found = os.readlink(f"{prefix}/{name}")
        except OSError:
            found = ""
        state.append(found)
        if found != to:
            changed.append(name)
    for folder in sorted(_folders(record["files"])):
        try:
            info = os.stat(f"{prefix}/{folder}")
        except OSError:
            continue  # its files are among the changed
        state.append((info.st_ino, info.st_mtime_ns))
    return sorted(changed), hash(tuple(state))


def _folders(names: Iterable[str]) -> set[str]:
    """Every folder that a file of these lies below, the prefix itself as an empty name."""
    found = {""}
    for name in names:
        while (name := name.rpartition("/")[0]) not in found:
            found.add(name)
    return found


def _digest(path: str) -> str:
    with open(path, "rb", buffering=0) as file:
        return hashlib.sha256(file.read()).hexdigest()


def _imports(
    reader: Reader, name: str, record: Mapping[str, Any], state: int, seen: Seen
) -> Optional[dict[str, str]]:
    """What cannot be imported, and why. -B: what a look compiles would be files of no lock."""
    key = (record["lock"], record["prefix"], state)
    known = seen.imports.get(name)
    if known is not None and known[0] == key:
        return known[1]
    fact = f"environments.{name}.imports"
    argv = [f"{record['prefix']}/bin/python", "-B", "-c", _IMPORT, *map(str, record["imports"])]
    said = reader.command(argv, fact, timeout=60)
    wrong: Optional[dict[str, str]] = None
    if said is not None:
        try:
            wrong = json.loads(said.strip().splitlines()[-1])
        except (ValueError, IndexError):
            reader.miss(fact, "the interpreter did not say what it imported")
    seen.imports[name] = (key, wrong)
    return wrong


def _kernel(reader: Reader, name: str) -> Optional[str]:
    text = reader.text(f"{KERNELS}/airlock-{name}/kernel.json")
    try:
        return None if text is None else str(json.loads(text)["argv"][0])
    except (ValueError, KeyError, IndexError, TypeError):
        return ""
