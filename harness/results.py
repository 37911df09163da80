"""Results kept by content: a green cell of which nothing has changed need not run again.

Off unless asked for (``--inherit``, or ``inherit = true`` in a matrix): what a run shows by
default it has seen. The key of a result holds everything that could change it: what the provider
makes nodes of (image, keys, node file, versions of the host's tools), image, scenario, profile,
the checks' tree and our own. ``AIRLOCK_STATE/results/<key>.json`` holds the cell as its report
had it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from harness.catalog import ROOMS
from harness.cells import Cell
from harness.providers.base import Provider
from harness.state import private_dir, state_dir
from reports import model
from reports.read import REPORT_NAME
from reports.summary import standing

#: Rooms whose code decides what a cell shows; the installers' come as the provider's node file.
_ROOMS = ("harness", "fixtures")
_SUFFIXES = frozenset({".py", ".toml", ".json"})


class Results:
    """The store, for one tree of checks as it is when this is made."""

    def __init__(self, conformance: Path) -> None:
        self._trees = {str(place): _tree(ROOMS / place) for place in _ROOMS}
        self._trees["checks"] = _tree(conformance)

    def key(self, cell: Cell, provider: Provider) -> str | None:
        """The key of the cell's result; None where the provider cannot say what it makes."""
        inputs = provider.inputs(cell)
        if inputs is None:
            return None
        parts = {
            "inputs": dict(inputs),
            "provider": cell.provider,
            "image": dataclasses.asdict(cell.image),
            "scenario": dataclasses.asdict(cell.scenario),
            "profile": dataclasses.asdict(cell.profile),
            "expected": cell.expected.value,
            "trees": self._trees,
        }
        text = json.dumps(parts, sort_keys=True, default=_plain)
        return hashlib.sha256(text.encode()).hexdigest()

    def find(self, cell: Cell, provider: Provider, out: Path) -> model.Cell | None:
        """The result of an unchanged cell, marked as inherited; None if it has to run.

        ``out`` is where the new report will lie; the link to the old one is relative to it.
        """
        key = self.key(cell, provider)
        if key is None:
            return None
        with contextlib.suppress(OSError, msgspec.MsgspecError):
            kept = msgspec.json.decode(_path(key).read_bytes(), type=_Kept)
            report = Path(kept.report)
            # Evidence that nobody can look at any more is none.
            if kept.cell.id == cell.id and (report / REPORT_NAME).is_file():
                link = os.path.relpath(report, out.absolute())
                inherited = model.Inherited(run=kept.run, finished=kept.finished, report=link)
                return msgspec.structs.replace(kept.cell, inherited=inherited)
        return None

    def keep(
        self, cell: Cell, provider: Provider, found: model.Cell, run: model.Run, directory: Path
    ) -> None:
        """Keep the result of a cell that ran, if it is green and of no double."""
        doubles = found.simulated or any(check.simulated for check in found.checks)
        if found.verdict != "pass" or standing(found) != "fine" or doubles or not run.finished:
            return
        key = self.key(cell, provider)
        if key is None or found.inherited:
            return
        kept = _Kept(run.id, run.finished, str(directory.absolute()), found)
        path = _path(key)
        private_dir(path.parent)
        partial = path.with_suffix(f".{os.getpid()}")
        partial.write_bytes(msgspec.json.encode(kept))
        partial.replace(path)


class _Kept(msgspec.Struct, frozen=True):
    run: str
    finished: datetime
    report: str
    cell: model.Cell


def _path(key: str) -> Path:
    return state_dir() / "results" / f"{key}.json"


def _plain(value: Any) -> Any:
    if isinstance(value, frozenset):
        return sorted(value)
    return value.name if isinstance(value, Path) else str(value)


def _tree(root: Path) -> str:
    """SHA-256 over names and contents of a tree's sources."""
    total = hashlib.sha256()
    for path in sorted(root.rglob("*")):
        if path.suffix in _SUFFIXES and "__pycache__" not in path.parts and path.is_file():
            content = hashlib.sha256(path.read_bytes()).hexdigest()
            total.update(f"{path.relative_to(root)} {content}\n".encode())
    return total.hexdigest()
