"""What a run says at its end: a line per cell, what the gate found, where the report is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from installers.exits import Exit
from reports.gate import Judgement, judge
from reports.render.words import mark, verdict_words
from reports.summary import count_checks

if TYPE_CHECKING:
    from harness.run import Outcome


def print_outcome(outcome: Outcome) -> Exit:
    """Print the end of a run; returns its exit code."""
    for cell in outcome.report.cells:
        counts = count_checks(cell.checks)
        ran = f", {counts.passed} of {counts.total} checks passed" if counts.total else ""
        print(f"{mark(cell.verdict)} {cell.id}: {verdict_words(cell)}{ran}")
    print_judgement(judge(outcome.report))
    for kept in outcome.kept:
        print(f"kept: {kept.cell} ({kept.why})")
        print(f"  get in: {kept.way_in}    end it: {kept.way_out}")
    print(f"\nreport: {outcome.directory / 'index.html'}")
    return outcome.exit


def print_judgement(judgement: Judgement) -> None:
    """Print what the gate found, worst first."""
    for finding in judgement.findings:
        print(f"  {finding}")
