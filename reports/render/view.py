"""What the HTML page shows, worked out before the template runs: a template only prints."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import msgspec

from reports.causes import Failure, fold
from reports.model import (
    BuildLedger,
    Cell,
    CheckCounts,
    CheckResult,
    Evidence,
    Phase,
    Report,
    Severity,
)
from reports.render.words import mark, verdict_words
from reports.summary import Standing, count_checks, elapsed, placed, standing, unproved, violations
from reports.text import duration, head, slug, tail

FULL_TABLE_LIMIT = 20_000
"""Checks. A larger report lists the passed ones by name only, so that it stays small and quick."""

PAGE_LIMIT = 1_000
"""Cells. In a larger report only those that are not fine have a page: nobody reads the others."""

EVIDENCE_LIMIT = 8_000
"""Characters of one piece of evidence; the whole of it is in the capsule."""

_TONES: dict[Standing, str] = {"fine": "pass", "fail": "fail", "error": "error", "not-run": "none"}
_ENDS_MATTER = ("serial", "journal", "console")


@dataclass(frozen=True)
class Bar:
    """A phase on the timeline; ``left`` and ``width`` are per cent of the cell's time."""

    phase: Phase
    left: float
    width: float


@dataclass(frozen=True)
class CellView:
    """A cell with everything its page needs. ``tone`` is the colour's name, ``anchor`` an id."""

    cell: Cell
    anchor: str
    tone: str
    mark: str
    words: str
    label: str
    fine: bool
    page: bool
    counts: CheckCounts
    violations: int
    seconds: float
    failures: list[Failure]
    unverified: list[CheckResult]
    skipped: list[CheckResult]
    passed_by_area: list[tuple[str, str]]
    bars: list[Bar]
    consoles: list[Evidence]
    evidence: list[Evidence]
    build_order: str
    reason: str
    origin: str


@dataclass(frozen=True)
class CheckView:
    """One check over all cells; ``counts`` are the outcomes of its instances."""

    id: str
    title: str
    severity: Severity
    remedy: str
    counts: CheckCounts


@dataclass(frozen=True)
class Grid:
    """The matrix: images × scenarios, with the cells (one per profile and provider) in each."""

    scenarios: list[str]
    rows: list[tuple[str, list[list[CellView]]]]


def cell_views(report: Report) -> list[CellView]:
    """Return the views of a report's cells, with anchors that differ."""
    used: Counter[str] = Counter()
    varies = {
        field: len({getattr(cell, field) for cell in report.cells}) > 1
        for field in ("profile", "provider")
    }
    views = []
    for cell in report.cells:
        name = f"cell-{slug(cell.id)}"
        used[name] += 1
        # "_" is in no slug, so a numbered anchor can never meet another cell's.
        anchor = name if used[name] == 1 else f"{name}_{used[name]}"
        label = ", ".join(getattr(cell, field) for field, many in varies.items() if many)
        views.append(_cell_view(cell, anchor, label, few=len(report.cells) <= PAGE_LIMIT))
    return views


def _cell_view(cell: Cell, anchor: str, label: str, *, few: bool) -> CellView:
    counts_as = standing(cell)
    refused_well = cell.verdict == "refused" and counts_as == "fine"
    page = few or counts_as != "fine"
    passed: dict[str, list[str]] = {}
    for check in cell.checks:
        if page and check.outcome == "pass":
            area, _, rest = check.id.partition(".")
            passed.setdefault(area, []).append(check_name(check, rest or area))
    return CellView(
        cell=cell,
        anchor=anchor,
        tone="refused" if refused_well else _TONES[counts_as],
        mark=mark("refused" if cell.verdict == "refused" else counts_as),
        words=verdict_words(cell),
        label=label,
        fine=counts_as == "fine",
        page=page,
        counts=count_checks(cell.checks),
        violations=violations(cell),
        seconds=elapsed(cell),
        failures=fold(cell.checks),
        unverified=[check for check in cell.checks if check.outcome == "not-verified"],
        skipped=[check for check in cell.checks if check.outcome == "skip"],
        passed_by_area=[(area, ", ".join(names)) for area, names in passed.items()],
        bars=_bars(cell) if page else [],
        consoles=[item for item in cell.evidence if item.kind == "serial"],
        evidence=[item for item in cell.evidence if item.kind != "serial"],
        build_order=_build_order(cell.ledger.build if cell.ledger else None),
        reason=cell.reason or unproved(cell),
        origin=_origin(cell),
    )


def grid(views: Sequence[CellView]) -> Grid:
    """Lay cells out as images × scenarios, both in the order in which they first come."""
    scenarios = list(dict.fromkeys(view.cell.scenario for view in views))
    by_place: dict[tuple[str, str], list[CellView]] = {}
    for view in views:
        by_place.setdefault((view.cell.image.name, view.cell.scenario), []).append(view)
    return Grid(
        scenarios,
        [
            (image, [by_place.get((image, scenario), []) for scenario in scenarios])
            for image in dict.fromkeys(view.cell.image.name for view in views)
        ],
    )


def check_views(cells: Iterable[Cell]) -> list[CheckView]:
    """Return every check of a report once, by id."""
    by_id: dict[str, list[CheckResult]] = {}
    for cell in cells:
        for check in cell.checks:
            by_id.setdefault(check.id, []).append(check)
    return [
        CheckView(name, found[0].title, found[0].severity, found[0].remedy, count_checks(found))
        for name, found in sorted(by_id.items())
    ]


def check_name(check: CheckResult, base: str = "") -> str:
    """Return a check's id with its instance: ``modules.signature[nvidia]``."""
    base = base or check.id
    return f"{base}[{check.instance}]" if check.instance else base


def excerpt(item: Evidence) -> tuple[str, int]:
    """Return what to show of a piece of evidence, and how many characters were left out.

    Of a console or a journal the end says most, of anything else the beginning.
    """
    cut = tail if item.kind in _ENDS_MATTER else head
    return cut(item.text, EVIDENCE_LIMIT)


def value_text(value: Any) -> str:
    """Say a setting's value: text as it is, anything else as JSON."""
    if value is None:
        return "(absent)"
    if isinstance(value, str):
        return value or "(empty)"
    return msgspec.json.encode(value).decode()


def _origin(cell: Cell) -> str:
    """The link to the page that an inherited result comes from; only ever a relative path."""
    where = cell.inherited.report if cell.inherited else ""
    if not where or where.startswith("/") or ":" in where:
        return ""
    return f"{quote(where)}/index.html"


def _bars(cell: Cell) -> list[Bar]:
    whole = elapsed(cell) or 1.0
    return [
        Bar(phase, round(100 * begin / whole, 2), round(100 * phase.seconds / whole, 2))
        for phase, begin in placed(cell.phases)
    ]


def _build_order(build: BuildLedger | None) -> str:
    """Say whether the proxy was configured before the build's first request."""
    if build is None or build.first_request is None or build.proxy_step_end is None:
        return ""
    lag = build.first_request - build.proxy_step_end
    when = "after" if lag >= 0 else "BEFORE"
    return f"{duration(abs(lag))} {when} the proxy step ended"
