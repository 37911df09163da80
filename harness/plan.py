"""The cells of a matrix: where each would run, why not, and how long. Runs nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from harness.cells import Cell
from harness.providers.base import Provider
from harness.providers.registry import load


@dataclass(frozen=True)
class Planned:
    """What would become of one cell. ``will``: run | refuse | not-run."""

    cell: str
    provider: str
    expected: str
    will: str
    why: str
    remedy: str
    minutes: float
    memory_mb: int


def plan(cells: Sequence[Cell]) -> list[Planned]:
    """Ask the providers about every cell."""
    providers: dict[str, Provider] = {}
    planned = []
    for cell in cells:
        if cell.provider not in providers:
            providers[cell.provider] = load(cell.provider)
        planned.append(_plan(cell, providers))
    for provider in providers.values():
        provider.close()
    return planned


def render(planned: Sequence[Planned]) -> str:
    """The plan as a table, and what it adds up to."""
    width = max(len(each.cell) for each in planned)
    lines = []
    for each in planned:
        time = f"{each.minutes:5.1f} min" if each.will == "run" else " " * 9
        as_expected = "" if _fits(each) else f"  (the matrix expects: {each.expected})"
        lines.append(
            f"{each.cell:{width}}  {each.provider:5} {time}  {WORDS[each.will]}{as_expected}"
        )
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
        lines.append(f"about {total:.0f} min one after the other; the longest {longest:.0f} min")
    return "\n".join(lines)


def as_data(planned: Sequence[Planned]) -> list[Mapping[str, object]]:
    """The plan for programs."""
    return [asdict(each) for each in planned]


WORDS = {"run": "will run", "refuse": "will be refused", "not-run": "cannot run here"}


def _fits(each: Planned) -> bool:
    return (each.will == "refuse") == (each.expected == "refused")


def _plan(cell: Cell, providers: Mapping[str, Provider]) -> Planned:
    provider = providers[cell.provider]
    refusal = provider.refusal(cell)
    if refusal:
        will, why, remedy = "refuse", refusal.reason, refusal.remedy
    else:
        reasons = provider.reasons_not(cell)
        will, why, remedy = ("not-run" if reasons else "run"), "; ".join(reasons), ""
    runs = will == "run"
    return Planned(
        cell=cell.id,
        provider=cell.provider,
        expected=cell.expected.value,
        will=will,
        why=why,
        remedy=remedy,
        minutes=round(provider.minutes(cell), 1) if runs else 0.0,
        memory_mb=provider.needs(cell).memory_mb if runs else 0,
    )
