"""What a cell's page shows, worked out before the template runs: a template only prints."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
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
)
from reports.render.words import mark, verdict_words
from reports.summary import (
    Standing,
    count_checks,
    elapsed,
    placed,
    standing,
    unproved,
    unwatched,
    violations,
)
from reports.text import duration, head, plain, slug, tail

EVIDENCE_LIMIT = 8_000
"""Characters of one piece of evidence; the whole of it is in the capsule."""

_TONES: dict[Standing, str] = {"fine": "pass", "fail": "fail", "error": "error", "not-run": "none"}
_ENDS_MATTER = ("serial", "journal", "console", "ledger")

_BLANK = re.compile(r"\n(?:[ \t]*\n){2,}")

THINNEST = 0.4
"""Per cent. A phase that took no time is still to be seen on a timeline."""


@dataclass(frozen=True)
class Bar:
    """A phase on the timeline; ``left`` and ``width`` are per cent of the cell's time."""

    phase: Phase
    left: float
    width: float


@dataclass(frozen=True)
class Share:
    """A bar with its name: ``width`` is per cent of the longest one's."""

    name: str
    number: int
    width: float


@dataclass(frozen=True)
class CellView:
    """A cell with everything its page needs. ``tone`` is the colour's name, ``anchor`` an id.

    ``before`` and ``after`` are the anchors of its neighbours (or empty).
    """

    cell: Cell
    anchor: str
    before: str
    after: str
    tone: str
    mark: str
    words: str
    label: str
    standing: Standing
    counts: CheckCounts
    violations: int
    watched: bool
    seconds: float
    failures: list[Failure]
    unverified: list[CheckResult]
    bars: list[Bar]
    hosts: list[Share]
    evidence: list[Evidence]
    build_order: str
    reason: str
    origin: str

    @property
    def fine(self) -> bool:
        """Whether the cell is what its matrix expects."""
        return self.standing == "fine"


def cell_views(report: Report) -> list[CellView]:
    """Return the views of a report's cells, with anchors that differ."""
    used: Counter[str] = Counter()
    varies = {
        field: len({getattr(cell, field) for cell in report.cells}) > 1
        for field in ("profile", "provider")
    }
    anchors = []
    for cell in report.cells:
        name = f"cell-{slug(cell.id)}"
        used[name] += 1
        # "_" is in no slug, so a numbered anchor can never meet another cell's.
        anchors.append(name if used[name] == 1 else f"{name}_{used[name]}")
    views = []
    for cell, before, anchor, after in zip(
        report.cells, ["", *anchors], anchors, [*anchors[1:], ""], strict=False
    ):
        label = ", ".join(getattr(cell, field) for field, many in varies.items() if many)
        views.append(_cell_view(cell, (before, anchor, after), label))
    return views


def _cell_view(cell: Cell, anchors: tuple[str, str, str], label: str) -> CellView:
    counts_as = standing(cell)
    refused_well = cell.verdict == "refused" and counts_as == "fine"
    before, anchor, after = anchors
    return CellView(
        cell=cell,
        anchor=anchor,
        before=before,
        after=after,
        tone="refused" if refused_well else _TONES[counts_as],
        mark=mark("refused" if cell.verdict == "refused" else counts_as),
        words=verdict_words(cell),
        label=label,
        standing=counts_as,
        counts=count_checks(cell.checks),
        violations=violations(cell),
        watched=not unwatched(cell),
        seconds=elapsed(cell),
        failures=fold(cell.checks),
        unverified=[check for check in cell.checks if check.outcome == "not-verified"],
        bars=bars(cell.phases, elapsed(cell)),
        hosts=shares(Counter(cell.ledger.hosts) if cell.ledger else Counter()),
        evidence=sorted(cell.evidence, key=lambda item: item.kind != "serial"),
        build_order=_build_order(cell.ledger.build if cell.ledger else None),
        reason=cell.reason or unproved(cell),
        origin=_origin(cell),
    )


def bars(phases: Sequence[Phase], whole: float) -> list[Bar]:
    """Place phases on a timeline that is ``whole`` seconds long; one inside another comes later."""
    whole = whole or 1.0
    return [
        Bar(
            phase,
            round(min(100 * begin / whole, 100 - THINNEST), 2),
            round(max(100 * phase.seconds / whole, THINNEST), 2),
        )
        for phase, begin in placed(phases)
    ]


def shares(numbers: Counter[str], limit: int = 0) -> list[Share]:
    """Return the largest first; past ``limit`` (0: none) the rest is one bar, its name in words."""
    ranked = numbers.most_common()
    if limit and len(ranked) > limit:
        rest = ranked[limit:]
        ranked = [*ranked[:limit], (f"{len(rest)} more", sum(number for _, number in rest))]
    longest = max((number for _, number in ranked), default=0) or 1
    return [Share(name, number, round(100 * number / longest, 2)) for name, number in ranked]


def check_name(check: CheckResult, base: str = "") -> str:
    """Return a check's id with its instance: ``modules.signature[nvidia]``."""
    base = base or check.id
    return f"{base}[{check.instance}]" if check.instance else base


def excerpt(item: Evidence) -> tuple[str, int]:
    """Return what to show of a piece of evidence, and how many characters were left out.

    Of a console or a journal the end says most, of anything else the beginning.
    """
    cut = tail if ends_matter(item) else head
    return cut(_BLANK.sub("\n\n", plain(item.text)), EVIDENCE_LIMIT)


def ends_matter(item: Evidence) -> bool:
    """Whether the end of a piece of evidence says most."""
    return item.kind in _ENDS_MATTER


def seen(evidence: Sequence[Evidence]) -> list[Evidence]:
    """Return a check's evidence with its lines (pieces without a name) in one piece, the first."""
    lines = [item for item in evidence if item.kind == "text" and not item.title and not item.path]
    if not lines:
        return [*evidence]
    one = Evidence(
        title="what was seen",
        text="\n".join(item.text for item in lines),
        simulated=any(item.simulated for item in lines),
    )
    return [one, *(item for item in evidence if item not in lines)]


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


def _build_order(build: BuildLedger | None) -> str:
    """Say whether the proxy was configured before the build's first request."""
    if build is None or build.first_request is None or build.proxy_step_end is None:
        return ""
    lag = build.first_request - build.proxy_step_end
    when = "after" if lag >= 0 else "BEFORE"
    return f"{duration(abs(lag))} {when} the proxy step ended"
