"""What a run says at its end: a line per cell, what the gate found, where the report is."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

from installers.exits import Exit
from reports.findings import Judgement
from reports.gate import judge
from reports.render.words import mark, verdict_words
from reports.summary import count_checks
from reports.text import count, plain

if TYPE_CHECKING:
    from harness.run import Outcome

#: The exit code of a verdict; under strict rules a waived pass has another.
EXITS = {"pass": Exit.PASS, "fail": Exit.FAIL, "error": Exit.UNKNOWN, "nothing": Exit.NOTHING}


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
        print(f"  {plain(str(finding))}")

    if judgement.left_out:
        print(f"  and {count(judgement.left_out, 'finding')} more")


def print_verdict(run: str, judgement: Judgement) -> None:
    """Print a judgement for people."""
    print(f"{run}: {judgement.verdict}")
    print_judgement(judgement)
    if judgement.blames:
        print(f"  holds it up: {_counted(judgement.blames)}")
    if judgement.excused:
        print(f"  does not: {_counted(judgement.excused)}")


def print_json(run: str, judgement: Judgement, exit_code: int) -> None:
    """Print a judgement for programs."""
    said = {
        "run": run,
        "verdict": judgement.verdict,
        "exit": int(exit_code),
        "blames": dict(judgement.blames),
        "excused": dict(judgement.excused),
        "left_out": judgement.left_out,
        "findings": [dataclasses.asdict(finding) for finding in judgement.findings],
    }
    print(json.dumps(said, indent=1))


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{number} {word}" for word, number in sorted(counts.items()))
