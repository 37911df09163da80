"""How long cells took on this machine, for the estimates of a plan."""

from __future__ import annotations

import contextlib
import json
import os
import statistics
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from harness.state import exclusive, private_dir, state_dir

if TYPE_CHECKING:
    from reports import model

#: Runs that are remembered of a cell; the median of them is the estimate.
LAST = 5


def seconds_of(cell: model.Cell) -> float:
    """What a cell took: its phases, and its checks, which are none."""
    spent = sum(phase.seconds for phase in cell.phases)
    return spent + sum(check.seconds for check in cell.checks)


def remember(cells: Iterable[model.Cell]) -> None:
    """Keep how long these cells took. Only of cells that came to a verdict of their own."""
    ran = [c for c in cells if c.verdict in ("pass", "fail") and c.checks and not c.inherited]
    if not ran:
        return
    private_dir(state_dir())
    path = _path()
    with exclusive(path.with_suffix("")):
        known = _read(path)
        for cell in ran:
            before = known.get(_name(cell.provider, cell.id), [])
            took = [*before, round(seconds_of(cell), 3)]
            known[_name(cell.provider, cell.id)] = took[-LAST:]
        partial = path.with_suffix(f".{os.getpid()}")
        partial.write_text(json.dumps(known) + "\n")
        partial.replace(path)


def measured() -> Mapping[tuple[str, str], float]:
    """(provider, cell id) -> median seconds of its last runs here."""
    found = {}
    for name, took in _read(_path()).items():
        provider, _, cell = name.partition("/")
        found[provider, cell] = statistics.median(took)
    return found


def _name(provider: str, cell: str) -> str:
    return f"{provider}/{cell}"


def _path() -> Path:
    return state_dir() / "durations.json"


def _read(path: Path) -> dict[str, list[float]]:
    with contextlib.suppress(OSError, ValueError):
        data = json.loads(path.read_text())
        return {name: took for name, took in data.items() if took}
    return {}
