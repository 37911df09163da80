"""What today's scripts, or an apply that was interrupted, leave on a node, and what becomes of it.

``data/adoption.json`` has one row for each kind of thing, with the function that writes it as its
source. ``python -m installers.adopt.rows`` prints the table of ``docs/migration.md``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Optional

from installers.adopt import finds
from installers.adopt.finds import Cutter, Finder
from installers.compat import load_data

#: What becomes of a row's things: the words of the table, and of a plan.
FATES = {
    "set-aside": "set aside whole; `remove` puts it back",
    "cut": "their part is cut out, the file as it was is kept; `remove` puts it back",
    "released": "released; `remove` holds it again",
    "mended": "mended; `remove` leaves it mended",
    "discarded": "discarded; does not come back",
    "destroyed": "overwritten and removed; does not come back",
    "left": "left and reported",
}


@dataclass(frozen=True)
class Row:
    """``paths`` are node paths with ``*``; ``how``: by what it is recognised, for people.

    ``sure``: nobody else writes this, so it tells by itself that the scripts ran; the others count
    only beside such a trace, or (``alone``) without being one. ``find`` None: the installer asks a
    program. ``part``: the installer whose work it is; where that is not in a run, nothing of it is
    touched. ``after``: what has to be told of it. ``remedy``: what a plan says of what is left.
    """

    id: str
    what: str
    paths: tuple[str, ...]
    how: str
    fate: str
    source: str
    find: Optional[Finder] = None
    cut: Optional[Cutter] = None
    part: str = ""
    sure: bool = False
    alone: bool = False
    after: str = ""
    remedy: str = ""


def _function(spec: Any) -> Any:
    """A function of ``finds`` by its name, or ``[name, arguments ...]`` of one that makes it."""
    if isinstance(spec, str):
        return getattr(finds, spec)
    return getattr(finds, spec[0])(*spec[1:])


def _row(record: dict[str, Any]) -> Row:
    find, cut = record.get("find"), record.get("cut")
    known = {**record, "paths": tuple(record["paths"])}
    if find is not None:
        known["find"] = _function(find)
    elif cut is None and record["paths"]:
        known["find"] = finds.there
    if cut is not None:
        known["cut"] = _function(cut)
    return Row(**known)


ROWS = tuple(_row(record) for record in load_data("adoption.json")["rows"])


def by_id(name: str) -> Row:
    """The row of that id."""
    return next(row for row in ROWS if row.id == name)


def table() -> str:
    """The table of docs/migration.md."""
    lines = [
        "| what | where | recognised by | what `apply` does | source |",
        "|---|---|---|---|---|",
    ]
    for row in ROWS:
        where = ", ".join(f"`{path}`" for path in row.paths) or "–"
        fate = FATES[row.fate] + (f": {row.remedy}" if row.remedy else "")
        lines.append(f"| {row.what} | {where} | {row.how} | {fate} | {row.source} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(table(), end="")
