"""Which sabotages were found, and so which checks can fail: what ``airlock sabotage`` is about.

A check that no break turns red proves nothing. A sabotage counts as found only if every check that
it names failed, and none that it does not name.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.errors import InfraError
from installers.exits import Exit

if TYPE_CHECKING:
    from harness.cells import Cell
    from harness.sabotage import Sabotage
    from reports import model


@dataclass(frozen=True)
class Judged:
    """How one sabotage of one cell ended. ``why``: what is wrong; empty if it was found.

    ``told``: the lab could break the cell and look at it; else nothing is known.
    """

    sabotage: Sabotage
    cell: str
    why: tuple[str, ...]
    told: bool = True

    @property
    def found(self) -> bool:
        return self.told and not self.why

    @property
    def line(self) -> str:
        """For people."""
        by = self.sabotage.stops or ", ".join(self.sabotage.kills)
        said = f"found by {by}, as it should be" if self.found else "; ".join(self.why)
        return f"sabotage {self.sabotage.name} on {self.cell}: {said}"


@dataclass(frozen=True)
class Tally:
    """All of a run. ``checks``: every check that applied to a cell."""

    judged: tuple[Judged, ...]
    checks: frozenset[str]

    @property
    def killed(self) -> frozenset[str]:
        """Checks that failed when and only when they should."""
        found = (one.sabotage.kills for one in self.judged if one.found)
        return frozenset(check for kills in found for check in kills)

    @property
    def alive(self) -> list[str]:
        """Checks that no sabotage of this run turned red, sorted."""
        return sorted(self.checks - self.killed)

    @property
    def rate(self) -> float:
        """The share of checks that are killed, 0 to 1; 0 where there is no check."""
        return len(self.killed & self.checks) / len(self.checks) if self.checks else 0.0

    @property
    def exit(self) -> Exit:
        """PASS if every sabotage was found, FAIL if one was not, UNKNOWN if that is not known."""
        if not self.judged:
            return Exit.NOTHING
        if any(one.told and one.why for one in self.judged):
            return Exit.FAIL
        return Exit.PASS if all(one.told for one in self.judged) else Exit.UNKNOWN

    def summary(self) -> str:
        """Two sentences."""
        found = sum(one.found for one in self.judged)
        kills = f"{len(self.killed & self.checks)} of {len(self.checks)} checks killed"
        return f"{found} of {len(self.judged)} sabotages found; {kills}: kill rate {self.rate:.1%}"

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "sabotages": [
                {
                    "name": one.sabotage.name,
                    "cell": one.cell,
                    "kills": list(one.sabotage.kills),
                    "stops": one.sabotage.stops,
                    "found": one.found,
                    "told": one.told,
                    "why": list(one.why),
                }
                for one in self.judged
            ],
            "checks": {
                "total": len(self.checks),
                "killed": sorted(self.killed & self.checks),
                "alive": self.alive,
            },
            "kill_rate": round(self.rate, 4),
        }


def judged(results: Iterable[model.Cell], cells: Iterable[Cell]) -> list[Judged]:
    """How the sabotaged of ``cells`` ended, in their order; refused ones are left out."""
    by_id = {result.id: result for result in results}
    found = []
    for cell in cells:
        result = by_id.get(cell.id)
        if cell.sabotage is None or result is None or result.verdict == "refused":
            continue
        ran = any(check.outcome in ("pass", "fail") for check in result.checks)
        if result.verdict == "not-run" or (result.verdict == "error" and not ran):
            found.append(Judged(cell.sabotage, cell.id, (result.reason,), told=False))
            continue
        why = tuple(cell.sabotage.judge(result))
        found.append(Judged(cell.sabotage, cell.id, why))
    return found


def tally(
    results: Iterable[model.Cell], cells: Iterable[Cell], before: Iterable[str] = ()
) -> Tally:
    """The same with the checks that applied to these cells, or ``before`` they were broken."""
    all_results = list(results)
    checks = (_applied(result) for result in all_results)
    return Tally(tuple(judged(all_results, cells)), frozenset(before).union(*checks))


def applying(results: Iterable[model.Cell]) -> dict[str, frozenset[str]]:
    """Id of each cell that nobody broke to the checks that apply to it.

    Raises InfraError for one that does not pass: what is not right cannot be broken.
    """
    found = {}
    for result in results:
        if result.verdict != "pass":
            raise InfraError(
                f"{result.id}: {result.verdict} without any sabotage: {result.reason}",
                hint="airlock run must be green first",
            )
        found[result.id] = _applied(result)
    return found


def _applied(result: model.Cell) -> frozenset[str]:
    return frozenset(check.id for check in result.checks if check.outcome != "skip")
