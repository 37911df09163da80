"""How pytest-xdist hands out checks: all checks of a cell go to one worker.

xdist's own ``loadgroup`` does the same by a mark; with pytest 9.2 it silently stops to.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from xdist.scheduler import LoadScopeScheduling

MARK = "node="


def cell_of(nodeid: str, cells: Collection[str]) -> str | None:
    """The cell in a pytest node id such as ``test_x.py::test_y[node=CELL]``, or None.

    Cell names and pytest both use ``-``: an id with further parameters is cut from its end.
    """
    _, found, rest = nodeid.partition(MARK)
    name = rest.removesuffix("]")
    while found and name:
        if name in cells:
            return name
        name = name.rpartition("-")[0]
    return None


class ByCell(LoadScopeScheduling):  # type: ignore[misc]
    """A scope is a cell; what belongs to no cell is a scope of its own."""

    def __init__(self, config: Any, log: Any, cells: Collection[str]) -> None:
        super().__init__(config, log)
        self._cells = cells

    def _split_scope(self, nodeid: str) -> str:
        return cell_of(nodeid, self._cells) or nodeid
