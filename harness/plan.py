"""The cells of a matrix: where each would run, why not, and how long. Runs nothing."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.catalog import CONFORMANCE
from harness.cells import Cell
from harness.durations import in_turn, measured
from harness.providers.base import Provider
from harness.providers.registry import load
from harness.requirements import unmet

if TYPE_CHECKING:
    from harness.results import Results


@dataclass(frozen=True)
class Planned:
    """What would become of one cell. ``will``: run | inherit | refuse | not-run.

    ``source`` says where the minutes come from: measured | estimate.
    """

    cell: str
    image: str
    provider: str
    expected: str
    will: str
    why: str
    remedy: str
    minutes: float
    memory_mb: int
    source: str = ""
    #: What it costs at most, in words; empty where nobody is paid.
    price: str = ""


def plan(cells: Sequence[Cell], conformance: Path = CONFORMANCE) -> list[Planned]:
    """Ask the providers about every cell."""
    providers: dict[str, Provider] = {}
    planned = []
    took = measured()
    results = None
    if any(cell.inherit for cell in cells):
        from harness.results import Results  # the report's model costs a plan too much

        results = Results(conformance)
    for cell in cells:
        if cell.provider not in providers:
            providers[cell.provider] = load(cell.provider)
        planned.append(_plan(cell, providers[cell.provider], took, results))
    for provider in providers.values():
        provider.close()
    return planned


def critical_path(planned: Sequence[Planned], workers: int) -> tuple[float, list[str]]:
    """Minutes that so many workers need, and the cells of the one that ends last.

    As a run does it: whoever is free takes the next cell in turn.
    """
    free = [(0.0, number) for number in range(workers)]
    chains: list[list[str]] = [[] for _ in range(workers)]
    running = [each for each in planned if each.will == "run"]
    for place in in_turn((each.image, each.minutes) for each in running):
        begun, number = heapq.heappop(free)
        chains[number].append(running[place].cell)
        heapq.heappush(free, (begun + running[place].minutes, number))
    end, last = max(free)
    return end, chains[last]


def render(planned: Sequence[Planned], workers: int = 1) -> str:
    """The plan as a table, and what it adds up to."""
    width = max(len(each.cell) for each in planned)
    lines = []
    for each in planned:
        about = "" if each.source == "measured" else "~"
        time = f"{about + format(each.minutes, '.1f'):>5} min" if each.will == "run" else " " * 9
        as_expected = "" if _fits(each) else f"  (the matrix expects: {each.expected})"
        lines.append(
            f"{each.cell:{width}}  {each.provider:5} {time}  {WORDS[each.will]}{as_expected}"
        )
        if each.price:
            lines.append(f"{'':{width}}    {each.price}")
        if each.why:
            lines.append(f"{'':{width}}    {each.why}")
        if each.remedy:
            lines.append(f"{'':{width}}    way out: {each.remedy}")
    running = [each for each in planned if each.will == "run"]
    total = sum(each.minutes for each in running)
    longest = max((each.minutes for each in running), default=0.0)
    counts = ", ".join(
        f"{sum(each.will == will for each in planned)} {WORDS[will]}"
        for will in WORDS
        if any(each.will == will for each in planned)
    )
    lines += ["", f"{len(planned)} cells: {counts}"]
    if running:
        lines.append(f"about {total:.1f} min one after the other; the longest {longest:.1f} min")
        end, chain = critical_path(planned, workers)
        at_a_time = f"{workers} cells at a time" if workers > 1 else "one cell at a time"
        lines.append(f"{at_a_time}: about {end:.1f} min; critical path: {' → '.join(chain)}")
        if any(each.source == "estimate" for each in running):
            lines.append("~ is the provider's estimate; the others were measured here")
    return "\n".join(lines)


def as_data(planned: Sequence[Planned]) -> list[Mapping[str, object]]:
    """The plan for programs."""
    return [asdict(each) for each in planned]


WORDS = {
    "run": "will run",
    "inherit": "is inherited",
    "refuse": "will be refused",
    "not-run": "cannot run here",
}


def _fits(each: Planned) -> bool:
    return (each.will == "refuse") == (each.expected == "refused")


def _plan(
    cell: Cell,
    provider: Provider,
    took: Mapping[tuple[str, str], float],
    results: Results | None,
) -> Planned:
    refusal = provider.refusal(cell)
    if refusal:
        will, why, remedy = "refuse", refusal.reason, refusal.remedy
    else:
        reasons = unmet(cell, provider)
        will, why, remedy = ("not-run" if reasons else "run"), "; ".join(reasons), ""
    if will == "run" and results and cell.inherit:
        earlier = results.find(cell, provider, Path())
        if earlier and earlier.inherited:
            will = "inherit"
            why = f"unchanged since run {earlier.inherited.run}: {earlier.inherited.report}"
    runs = will == "run"
    seconds = took.get((cell.provider, cell.id))
    minutes = provider.minutes(cell) if seconds is None else seconds / 60
    # Only who is paid for nodes has prices.
    priced: Callable[[Cell], str] | None = getattr(provider, "price", None)
    return Planned(
        cell=cell.id,
        image=cell.image.name,
        provider=cell.provider,
        expected=cell.expected.value,
        will=will,
        why=why,
        remedy=remedy,
        minutes=round(minutes, 2) if runs else 0.0,
        memory_mb=provider.needs(cell).memory_mb if runs else 0,
        source=("estimate" if seconds is None else "measured") if runs else "",
        price=priced(cell) if runs and priced else "",
    )
