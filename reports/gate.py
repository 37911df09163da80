"""The gate: may what this report is about be released?

It trusts no verdict that the rest of the report does not support: a cell that passed with an
egress violation in its ledger, or over a capture that saw nothing, is not let through.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Protocol

from reports.cellgate import Rules, judge_cell
from reports.findings import Finding, Found, Judgement, Level, Mark
from reports.model import Cell, Run, Subject
from reports.policy import Policy, Waiver, Waivers
from reports.summary import Standing, run_verdict

#: A run may end a little later than our clock says.
_SKEW = timedelta(minutes=5)


class Judged(Protocol):
    """A report in memory, or one that is read cell by cell."""

    @property
    def run(self) -> Run: ...

    @property
    def cells(self) -> Iterable[Cell]: ...


@dataclass(frozen=True)
class Terms:
    """What a report is judged by.

    ``baseline``: what had failed before (:func:`known_failures`). ``subject``: the image that is
    to be released, as far as the policy binds it. ``now``: of the freshness, waivers and grace.
    ``whole``: a shard alone does not do.
    """

    policy: Policy = field(default_factory=Policy)
    waivers: Sequence[Waiver] = ()
    baseline: frozenset[str] | None = None
    subject: Subject | None = None
    now: datetime = field(default_factory=lambda: datetime.now(UTC))
    whole: bool = False


def judge(report: Judged, terms: Terms | None = None) -> Judgement:
    """Judge a report: every cell must be what its matrix expects, and be supported by evidence.

    Raises what reading the cells raises.
    """
    terms = terms or Terms()
    rules = _rules(terms)
    found = Found()
    standings: set[Standing] = set()
    cells: dict[str, Mark] = {}
    for cell in report.cells:
        mark = cells[cell.id] = found.add(judge_cell(cell, rules))
        standings.add(_standing(cell, mark))
    verdict = run_verdict(standings)
    if verdict == "nothing":
        found.add([Finding("error", "no cell ran, so nothing was proved")])
    marks = {
        found.add(_run_findings(report.run, rules)),
        found.add(_part_findings(report.run, whole=terms.whole)),
        found.add(_area_findings(rules)),
        found.add(_waiver_findings(rules)),
    }
    if verdict in ("pass", "error") and "fail" in marks:
        verdict = "fail"
    elif verdict == "pass" and "error" in marks:
        verdict = "error"
    return Judgement(
        verdict, found.worst_first(), found.blames, found.excused, found.left_out, cells
    )


def known_failures(report: Judged, policy: Policy) -> frozenset[str]:
    """The keys of what failed in an earlier report, whatever was waived then."""
    rules = _rules(Terms(policy=policy))
    rules.whole = True
    return frozenset(
        finding.key
        for cell in report.cells
        for finding in judge_cell(cell, rules)
        if finding.key and (finding.level == "fail" or finding.excuse)
    )


def _rules(terms: Terms) -> Rules:
    return Rules(
        policy=terms.policy,
        waivers=Waivers(terms.waivers, terms.policy.waivers, terms.now),
        known=terms.baseline or frozenset(),
        subject=terms.subject,
        now=terms.now,
    )


def _standing(cell: Cell, mark: Mark) -> Standing:
    if cell.verdict == "not-run":
        return "not-run"
    return "fine" if mark == "excused" else mark


def _run_findings(run: Run, rules: Rules) -> Iterator[Finding]:
    if run.finished is None:
        yield Finding("error", "the run was cut off before its end", "run it again to the end")
        return
    if run.finished > rules.now + _SKEW and rules.policy.evidence.max_age_hours:
        yield Finding(
            "error",
            f"the run ended at {run.finished:%Y-%m-%d %H:%M %Z}, which is still to come",
            "correct the clock, here or where the run was made",
        )
    oldest = min((part.finished for part in run.merged), default=run.finished)
    if rules.stale(oldest):
        yield Finding(
            "error",
            f"the run ended at {oldest:%Y-%m-%d %H:%M %Z}; the policy allows "
            f"{rules.policy.evidence.max_age_hours} hours",
            "run it again",
        )


def _part_findings(run: Run, *, whole: bool) -> Iterator[Finding]:
    if whole and run.shard:
        yield Finding(
            "error",
            f"the run is shard {run.shard.index} of {run.shard.count}: it says nothing of the rest",
            "judge what `airlock merge` makes of all of them",
        )


def _area_findings(rules: Rules) -> Iterator[Finding]:
    for area in rules.policy.require.areas:
        if area not in rules.proved:
            yield Finding(
                "error",
                f"no check of the required area {area} passed in any cell",
                "add a cell where the area applies, or correct the policy",
            )


def _waiver_findings(rules: Rules) -> Iterator[Finding]:
    level: Level = "fail" if rules.policy.waivers.strict else "note"
    for waiver in rules.waivers.expired:
        yield Finding(
            level,
            f"the waiver of {waiver} expired on {waiver.expires}",
            "mend what it covers, or let its owner renew it",
        )
    for waiver, why in rules.waivers.wide:
        yield Finding(
            level,
            f"the waiver of {waiver} is too wide and waives nothing: {why}",
            "name the check, the cells and a nearer day",
        )
    for waiver in rules.waivers.unused:
        yield Finding(
            level,
            f"the waiver of {waiver} was not needed",
            "remove it; what it covers no longer fails, or is not in this report",
        )
