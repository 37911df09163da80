"""Two runs compared, for the terminal."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby

from reports.diff import Diff, Difference
from reports.text import count, plain

_TITLES = {"cell": "cells", "check": "checks", "fact": "facts", "duration": "durations"}
_MARKS = {"worse": "✗", "unknown": "!", "better": "✓", "new": "+", "gone": "−", "changed": "·"}
_VERDICTS = {
    "same": "nothing is otherwise",
    "changed": "nothing got worse",
    "worse": "something got worse",
    "unknown": "something cannot be told any more",
    "nothing": "the runs have no cell in common, so nothing was compared",
}
_CELLS = 4
_NAMES = 5


def render_diff(diff: Diff) -> str:
    """Return a comparison as text."""
    lines = [
        f"{_line(diff.before)} → {_line(diff.after)}: {_VERDICTS[diff.verdict]} "
        f"({count(diff.compared, 'cell')} compared, facts of {diff.facts_compared})"
    ]
    for area, found in groupby(diff.differences, key=lambda item: item.area):
        lines.append(_TITLES[area])
        for same in _together(found):
            lines += _lines(same, diff.compared)
    return "\n".join(lines) + "\n"


def _together(found: Iterable[Difference]) -> list[list[Difference]]:
    """What went the same way for the same reason is one line: checks of the same cells, cells."""
    groups: dict[tuple[object, ...], list[Difference]] = {}
    for number, item in enumerate(found):
        place = {"check": item.cells, "cell": ()}.get(item.area, number)
        key = (item.way, item.text, item.reason, place)
        groups.setdefault(key, []).append(item)
    return list(groups.values())


def _lines(same: list[Difference], compared: int) -> list[str]:
    item = same[0]
    if item.area == "fact":
        what = item.text
    else:
        names = ", ".join(one.name for one in same[:_NAMES])
        more = f" and {len(same) - _NAMES} more" if len(same) > _NAMES else ""
        what = f"{names}{more}: {item.text}"
    own = item.area in ("cell", "duration")
    where = "" if own else f" ({_where(item, compared)})"
    lines = [f"  {_MARKS[item.way]} {_line(what)}{where}"]
    if item.reason:
        lines.append(f"      {_line(item.reason)}")
    return lines


def _where(item: Difference, compared: int) -> str:
    if len(item.cells) == compared > 1:
        return f"all {compared} cells"
    names = ", ".join(_line(name) for name in item.cells[:_CELLS])
    more = len(item.cells) - _CELLS
    return f"{len(item.cells)} cells: {names} and {more} more" if more > 0 else names


def _line(text: str) -> str:
    """Text of a node on one line, without what a terminal would obey."""
    return " ".join(plain(text).split())
