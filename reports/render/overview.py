"""What the first page of the HTML report shows: the matrix, the causes, the plots."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from statistics import quantiles

from reports.model import Cell, CheckCounts, CheckResult, Severity
from reports.render.view import Bar, CellView, Share, bars, check_name, shares
from reports.render.words import mark
from reports.summary import Standing, count_checks

DENSE = 60
"""Cells. A larger matrix shows one sign for each, so that it can still be seen at a glance."""

CAUSES_OPEN = 4
"""Causes that are shown at once, so that the matrix is still to be seen; the others open."""

CAUSE_CELLS = 12
"""Cells that are named beside a cause; the table shows the others."""

PLOT_ROWS = 12
"""Bars of one plot."""

BINS = 40
"""Bins of the histogram of durations."""

_SEVERITIES: tuple[Severity, ...] = ("blocker", "major", "minor")
_STANDINGS: tuple[Standing, ...] = ("fail", "error", "not-run", "fine")


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
    """The matrix: images × scenarios, with the cells (one per profile and provider) in each.

    ``dense``: there are so many that each is one sign.
    """

    scenarios: list[str]
    rows: list[tuple[str, list[list[CellView]]]]
    dense: bool


@dataclass
class Cause:
    """One root cause, and every cell that it spoiled.

    ``check`` is null where no check tells it (a refusal, a broken lab): ``messages`` then are the
    cells' reasons. ``messages`` counts what was said, for cells say it in different words.
    """

    standing: Standing
    check: CheckResult | None
    words: str
    tone: str
    mark: str
    remedy: str
    cells: list[CellView] = field(default_factory=list)
    messages: Counter[str] = field(default_factory=Counter)
    followers: set[str] = field(default_factory=set)

    @property
    def named(self) -> list[CellView]:
        """The cells that are named on the page."""
        return self.cells[:CAUSE_CELLS]

    @property
    def name(self) -> str:
        """The check's name, or empty."""
        return check_name(self.check) if self.check else ""


@dataclass(frozen=True)
class Slow:
    """A cell with its phases, on a scale on which the slowest is 100 per cent."""

    view: CellView
    bars: list[Bar]


@dataclass(frozen=True)
class Times:
    """Where the time went. ``totals`` are seconds by phase; ``kinds`` number the phases' colours.

    ``histogram`` is per cent of the fullest bin, empty where each cell has a bar of its own;
    ``marks`` are shortest, median, 95th percentile and longest of the cells that ran, in seconds.
    """

    slowest: list[Slow]
    totals: list[tuple[str, float]]
    kinds: dict[str, int]
    histogram: list[float]
    marks: list[float]


@dataclass(frozen=True)
class CacheRow:
    """One kind of built thing over all cells; ``width`` is per cent of ``uses``."""

    name: str
    hits: int
    uses: int
    bytes_fetched: int

    @property
    def width(self) -> float:
        """Hits in per cent."""
        return round(100 * self.hits / self.uses, 2)


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
        dense=len(views) > DENSE,
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


def causes(views: Iterable[CellView]) -> list[Cause]:
    """Group what is wrong with cells by its root: one cause in forty cells is one entry.

    Failures come before errors, blockers before the rest, and what spoiled more cells first.
    """
    found: dict[tuple[str, ...], Cause] = {}
    for view in views:
        if view.fine:
            continue
        for tree in view.failures:
            check = tree.check
            key = ("check", check.id, check.instance, check.outcome)
            cause = found.setdefault(key, _check_cause(check))
            cause.cells.append(view)
            cause.messages[check.message or check.title] += 1
            cause.followers |= {follower.id for follower in tree.followers}
        if not view.failures:
            reason = view.reason or "no reason was given"
            cause = found.setdefault(
                ("cell", view.words, reason),
                Cause(view.standing, None, view.words, view.tone, view.mark, view.cell.remedy),
            )
            cause.cells.append(view)
            cause.messages[reason] += 1
    return sorted(found.values(), key=_rank)


def _check_cause(check: CheckResult) -> Cause:
    standing: Standing = "fail" if check.outcome == "fail" else "error"
    words = "failed" if standing == "fail" else "could not run"
    return Cause(standing, check, words, check.outcome, mark(check.outcome), check.remedy)


def _rank(cause: Cause) -> tuple[int, int, int]:
    severity = _SEVERITIES.index(cause.check.severity) if cause.check else 0
    return _STANDINGS.index(cause.standing), severity, -len(cause.cells)


def times(views: Sequence[CellView]) -> Times:
    """Work out where the time went."""
    ran = sorted((view for view in views if view.seconds), key=lambda view: -view.seconds)
    spent: Counter[str] = Counter()
    for view in ran:
        for phase in view.cell.phases:
            spent[phase.name] += phase.seconds  # type: ignore[assignment]
    totals: list[tuple[str, float]] = [*spent.most_common()]
    longest = ran[0].seconds if ran else 0.0
    seconds = [view.seconds for view in reversed(ran)]
    return Times(
        slowest=[Slow(view, bars(view.cell.phases, longest)) for view in ran[:PLOT_ROWS]],
        totals=totals,
        kinds={name: number for number, (name, _) in enumerate(totals)},
        histogram=_histogram(seconds) if len(ran) > PLOT_ROWS else [],
        marks=_marks(seconds),
    )


def _histogram(seconds: Sequence[float]) -> list[float]:
    bins = Counter(min(int(BINS * value / seconds[-1]), BINS - 1) for value in seconds)
    fullest = max(bins.values())
    return [round(100 * bins[number] / fullest, 2) for number in range(BINS)]


def _marks(seconds: Sequence[float]) -> list[float]:
    if len(seconds) < 2:
        return [*seconds]
    cuts = quantiles(seconds, n=20, method="inclusive")
    return [seconds[0], cuts[9], cuts[18], seconds[-1]]


def cache_rows(cells: Iterable[Cell]) -> list[CacheRow]:
    """Count cache hits by what was looked for."""
    hits: Counter[str] = Counter()
    uses: Counter[str] = Counter()
    fetched: Counter[str] = Counter()
    for cell in cells:
        for use in cell.provenance.cache:
            uses[use.name] += 1
            hits[use.name] += use.hit
            fetched[use.name] += use.bytes_fetched
    return [CacheRow(name, hits[name], number, fetched[name]) for name, number in uses.items()]


def hosts(cells: Iterable[Cell]) -> list[Share]:
    """Requests of the running nodes by host, over all cells."""
    seen: Counter[str] = Counter()
    for cell in cells:
        if cell.ledger:
            seen.update(cell.ledger.hosts)
    return shares(seen, PLOT_ROWS)
