"""How long cells took: on this machine, for the estimates of a plan, or by a file, for shards."""

from __future__ import annotations

import contextlib
import json
import math
import os
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import UsageError
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
    ran = [cell for cell in cells if _ran(cell)]
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
    return _medians(_read(_path()))


def in_turn(cells: Iterable[tuple[str, float]]) -> list[int]:
    """The order in which cells (image, time) are begun best: their places in what was given.

    Long ones first, so that none ends alone; but before the second cell of an image the first of
    each other image, since the second waits for what the first one builds.
    """
    known = list(cells)
    seen: Counter[str] = Counter()
    turns = []
    for place in sorted(range(len(known)), key=lambda place: -known[place][1]):
        image = known[place][0]
        turns.append((seen[image], place))
        seen[image] += 1
    return [place for _, place in sorted(turns, key=lambda turn: turn[0])]


def durations_file(cells: Iterable[tuple[str, str]]) -> str:
    """What was measured here of these cells (provider, id), for :func:`read_durations`."""
    took = measured()
    named = {_name(*cell): [round(took[cell], 3)] for cell in cells if cell in took}
    return json.dumps(named, indent=1, sort_keys=True) + "\n"


def read_durations(path: Path) -> Mapping[tuple[str, str], float]:
    """The same from a file: ``{"PROVIDER/CELL": [seconds, ...]}``, or the report of a run.

    The median counts where there are several. Raises UsageError.
    """
    from reports.errors import ReportError
    from reports.read import open_report

    if not path.is_dir():
        try:
            data = json.loads(path.read_bytes())
        except OSError as error:
            raise UsageError(f"{path}: cannot be read: {error.strerror}") from error
        except ValueError as error:
            raise UsageError(f"{path}: is not JSON: {error}") from error
        if not (isinstance(data, dict) and "schema_version" in data):
            return _medians(_checked(path, data))
    try:
        with open_report(path) as reading:
            return {
                (cell.provider, cell.id): seconds_of(cell) for cell in reading.cells if _ran(cell)
            }
    except ReportError as error:
        raise UsageError(error.message, hint=error.hint) from error


def _ran(cell: model.Cell) -> bool:
    """Whether the cell came to a verdict of its own."""
    return cell.verdict in ("pass", "fail") and bool(cell.checks) and not cell.inherited


def _medians(known: Mapping[str, list[float]]) -> dict[tuple[str, str], float]:
    found = {}
    for name, took in known.items():
        provider, _, cell = name.partition("/")
        found[provider, cell] = statistics.median(took)
    return found


def _checked(path: Path, data: Any) -> dict[str, list[float]]:
    """The object of a file that somebody gave us."""
    hint = 'write {"PROVIDER/CELL": [SECONDS]}, or name the report of a run'
    if not isinstance(data, dict):
        raise UsageError(f"{path}: is not a JSON object", hint=hint)
    for name, took in data.items():
        fine = "/" in name and isinstance(took, list) and took and all(map(_is_seconds, took))
        if not fine:
            raise UsageError(f"{path}: {name!r} has no list of seconds", hint=hint)
    return data


def _is_seconds(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return math.isfinite(value) and 0 <= value < 1e9


def _name(provider: str, cell: str) -> str:
    return f"{provider}/{cell}"


def _path() -> Path:
    return state_dir() / "durations.json"


def _read(path: Path) -> dict[str, list[float]]:
    with contextlib.suppress(OSError, ValueError):
        data = json.loads(path.read_text())
        return {name: took for name, took in data.items() if took}
    return {}
