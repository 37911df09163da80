"""The gate: may what this report is about be released?

It trusts no verdict that the rest of the report does not support: a cell that passed with an
egress violation in its ledger, or over a capture that saw nothing, is not let through.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from reports.causes import fold
from reports.model import Cell, Egress, Report, RunVerdict
from reports.summary import Standing, count_checks, run_verdict, standing, unproved
from reports.text import count

Level = Literal["fail", "error", "note"]


@dataclass(frozen=True)
class Finding:
    """One reason, in words. ``note`` findings are said and do not change the verdict.

    ``cell`` and ``check`` are ids, empty when the finding is about more than one.
    """

    level: Level
    message: str
    remedy: str = ""
    cell: str = ""
    check: str = ""

    def __str__(self) -> str:
        where = f"{self.cell}: " if self.cell else ""
        remedy = f"; {self.remedy}" if self.remedy else ""
        return f"{self.level}: {where}{self.message}{remedy}"


@dataclass(frozen=True)
class Judgement:
    """The gate's answer; ``findings`` come worst first."""

    verdict: RunVerdict
    findings: tuple[Finding, ...]


def judge(report: Report) -> Judgement:
    """Judge a report: every cell must be what its matrix expects, and be supported by evidence."""
    findings: list[Finding] = []
    standings: list[Standing] = []
    for cell in report.cells:
        mine = list(_judge_cell(cell))
        findings += mine
        standings.append(_worst(standing(cell), mine))
    if report.run.finished is None:
        findings.append(
            Finding("error", "the run was cut off before its end", "run it again to the end")
        )
    verdict = run_verdict(standings)
    if verdict == "nothing":
        findings.append(Finding("error", "no cell ran, so nothing was proved"))
    elif verdict == "pass" and report.run.finished is None:
        verdict = "error"
    order = ("fail", "error", "note")
    return Judgement(verdict, tuple(sorted(findings, key=lambda item: order.index(item.level))))


def _worst(now: Standing, findings: list[Finding]) -> Standing:
    if now == "not-run":
        return now
    levels = {finding.level for finding in findings}
    if now == "fail" or "fail" in levels:
        return "fail"
    return "error" if "error" in levels else now


def _judge_cell(cell: Cell) -> Iterator[Finding]:
    """Yield what speaks against a cell, or must be said about it."""
    yield from _verdict_findings(cell)
    if cell.verdict == "pass":
        yield from _ledger_findings(cell)
    counts = count_checks(cell.checks)
    if counts.not_verified:
        yield Finding(
            "note", f"{count(counts.not_verified, 'check')} could not be verified", cell=cell.id
        )
    if cell.inherited:
        yield Finding(
            "note",
            f"did not run again: unchanged since run {cell.inherited.run} of "
            f"{cell.inherited.finished:%Y-%m-%d %H:%M %Z}",
            cell=cell.id,
        )
    if cell.simulated:
        yield Finding("note", "is simulated: it says nothing about a real machine", cell=cell.id)
    elif counts.simulated:
        yield Finding(
            "note",
            f"{count(counts.simulated, 'check rests', 'checks rest')} on a double",
            cell=cell.id,
        )


def _verdict_findings(cell: Cell) -> Iterator[Finding]:
    match standing(cell):
        case "not-run":
            yield Finding("error", f"did not run: {_reason(cell)}", cell.remedy, cell.id)
        case "error" if cell.verdict == "pass":
            yield Finding("error", f"says pass, but {unproved(cell)}", cell=cell.id)
        case "error":
            yield Finding("error", f"could not be judged: {_reason(cell)}", cell.remedy, cell.id)
        case "fail" if cell.expected == "named":
            yield Finding(
                "fail",
                f"{cell.named_by} should have named the cause: its verdict is {cell.verdict}",
                "the scenario says what names its cause; correct the check or the scenario",
                cell.id,
            )
        case "fail" if cell.verdict == "refused":
            yield Finding("fail", f"was refused: {_reason(cell)}", cell.remedy, cell.id)
        case "fail" if cell.expected == "refused":
            yield Finding(
                "fail",
                f"should have been refused and was not: its verdict is {cell.verdict}",
                "the matrix names the expected refusal; correct the installer or the matrix",
                cell.id,
            )
        case "fail":
            roots = [tree.check for tree in fold(cell.checks) if tree.check.outcome == "fail"]
            for check in roots:
                why = f": {check.message}" if check.message else ""
                yield Finding("fail", f"{check.id} failed{why}", check.remedy, cell.id, check.id)
            if not roots:
                yield Finding("fail", f"failed: {_reason(cell)}", cell.remedy, cell.id)


def _ledger_findings(cell: Cell) -> Iterator[Finding]:
    if cell.ledger is None:
        if not cell.simulated:
            yield Finding("note", "has no ledger: its egress was not watched", cell=cell.id)
        return
    yield from _egress_findings(cell, "", cell.ledger)
    if cell.ledger.build:
        yield from _egress_findings(cell, " during the build", cell.ledger.build)


def _egress_findings(cell: Cell, when: str, seen: Egress) -> Iterator[Finding]:
    if seen.violations:
        yield Finding(
            "fail",
            f"passed, but not everything left through the proxy{when}: {seen.violations[0].text}",
            cell=cell.id,
        )
    if seen.metadata_via_proxy:
        yield Finding(
            "fail",
            f"passed, but sent {count(seen.metadata_via_proxy, 'metadata request')} to the "
            f"proxy{when}",
            "put 169.254.169.254 and metadata.google.internal into no-proxy",
            cell.id,
        )
    if seen.missing_probes or not seen.probes:
        missing = ", ".join(seen.missing_probes) or "all"
        yield Finding(
            "error",
            f"passed, but its capture{when} lacks probes that were sent out ({missing}), "
            "so it would not have seen a violation either",
            cell=cell.id,
        )
    if seen.truncated:
        yield Finding("error", f"passed, but its capture{when} was cut off", cell=cell.id)


def _reason(cell: Cell) -> str:
    return cell.reason or "no reason was given"
