"""Which cells a shard has: the same answer on every machine that is asked with the same inputs.

What is measured differs between machines, so nothing that a machine knows of itself counts here:
the weights are those of a file that all shards are given, or equal.
"""

from __future__ import annotations

import heapq
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.cells import Cell, Expected
from harness.errors import UsageError
from reports.division import Division
from reports.text import count as plural

#: As many as one matrix of GitHub's may have jobs.
MOST = 256

#: (provider, cell id) -> seconds.
Durations = Mapping[tuple[str, str], float]


@dataclass(frozen=True)
class Shard:
    """One part of a selection: number ``index``, from one, of ``count``.

    ``positions`` are those of its cells in the whole, which has ``total``; see
    :class:`reports.model.Shard`.
    """

    index: int
    count: int
    total: int
    positions: tuple[int, ...]
    division: str


def parse_shard(text: str) -> tuple[int, int]:
    """Index and count of ``2/4``. UsageError."""
    found = re.fullmatch(r"([0-9]{1,4})/([0-9]{1,4})", text)
    if not found:
        raise UsageError(f"--shard {text!r}: is not INDEX/COUNT", hint="such as 2/4")
    index, count = int(found[1]), int(found[2])
    if not 1 <= count <= MOST:
        raise UsageError(f"--shard {text}: there can be 1 to {MOST} shards")
    if not 1 <= index <= count:
        raise UsageError(f"--shard {text}: the shards are 1/{count} to {count}/{count}")
    return index, count


def weights(cells: Sequence[Cell], durations: Durations) -> list[int]:
    """Milliseconds that each cell counts, 1 at least.

    A cell that nobody has measured counts as the median of the others, one that the matrix expects
    to be refused as next to nothing. Whole numbers: sums of them are the same in any order.
    """
    known = [_milliseconds(cell, durations) for cell in cells]
    usual = statistics.median_low([each for each in known if each] or [1000])
    return [
        1 if cell.expected is Expected.REFUSED else measured or usual
        for cell, measured in zip(cells, known, strict=True)
    ]


def divide(cells: Sequence[Cell], count: int, durations: Durations) -> list[int]:
    """The shard of each cell, from one. UsageError when there are fewer cells than shards.

    The longest first, each to the shard that has the least so far: no shard takes more than 4/3 of
    what the best division would (Graham, 1969).
    """
    if count > len(cells):
        raise UsageError(
            f"{count} shards of {plural(len(cells), 'cell')}: some would have none",
            hint=f"at most {len(cells)}",
        )
    weighed = list(zip(weights(cells, durations), (cell.id for cell in cells), strict=True))
    order = sorted(range(len(cells)), key=lambda at: (-weighed[at][0], weighed[at][1]))
    # The number of cells comes second: shards of which none has anything fill evenly.
    loads = [(0, 0, index) for index in range(1, count + 1)]
    owner = [0] * len(cells)
    for at in order:
        load, held, index = heapq.heappop(loads)
        owner[at] = index
        heapq.heappush(loads, (load + weighed[at][0], held + 1, index))
    return owner


def shard_of(
    cells: Sequence[Cell], index: int, count: int, durations: Durations
) -> tuple[list[Cell], Shard]:
    """The cells of one shard, in their order, and what its report says of it."""
    owner = divide(cells, count, durations)
    division = Division(count)
    for cell, whose in zip(cells, owner, strict=True):
        division.add(whose, cell.provider, cell.expected.value, cell.id)
    positions = tuple(at for at, whose in enumerate(owner) if whose == index)
    shard = Shard(index, count, len(cells), positions, division.hexdigest())
    return [cells[at] for at in positions], shard


def _milliseconds(cell: Cell, durations: Durations) -> int:
    seconds = durations.get((cell.provider, cell.id))
    if seconds is None or cell.expected is Expected.REFUSED:
        return 0
    return max(1, round(seconds * 1000))
