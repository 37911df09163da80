"""What a run's cells add up to.

The rules, in one place: a cell is fine when its verdict is the one the matrix expects, so an
expected refusal is fine and an unexpected one is a failure; what did not run has not passed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Literal

from reports.model import (
    SCHEMA_VERSION,
    Cell,
    CellCounts,
    CellVerdict,
    CheckCounts,
    CheckResult,
    Phase,
    Report,
    Run,
    RunVerdict,
    Summary,
)

Standing = Literal["fine", "fail", "error", "not-run"]


def cell_verdict(checks: Iterable[CheckResult]) -> CellVerdict:
    """Return the verdict that a node's checks give its cell.

    A failure outweighs an error: it is known, whatever else could not be told.
    Checks of which none passed prove nothing: ``not-run``.
    """
    outcomes = {check.outcome for check in checks}
    if "fail" in outcomes:
        return "fail"
    if "error" in outcomes:
        return "error"
    return "pass" if "pass" in outcomes else "not-run"


def standing(cell: Cell) -> Standing:
    """Return how a cell counts in the run's verdict, given what the matrix expects of it."""
    if cell.verdict in ("error", "not-run"):
        return cell.verdict
    if cell.expected == "named":
        return "fine" if is_named(cell) else "fail"
    if cell.verdict != cell.expected:
        return "fail"
    return "error" if unproved(cell) else "fine"


def is_named(cell: Cell) -> bool:
    """Say whether what is wrong with a cell's environment was named, by a check or an installer."""
    failed = (check.id for check in cell.checks if check.outcome == "fail")
    return bool(cell.named_by) and cell.named_by in (cell.cause, *failed)


def unproved(cell: Cell) -> str:
    """Say why a cell that says pass has not shown it; empty when it has, or says otherwise.

    A double cannot answer everything, so its blockers may stay open: its cell is marked instead.
    """
    if cell.verdict != "pass":
        return ""
    if not any(check.outcome == "pass" for check in cell.checks):
        return "none of its checks passed"
    blockers = {
        check.id
        for check in cell.checks
        if check.outcome == "not-verified" and check.severity == "blocker"
    }
    if blockers and not cell.simulated:
        return f"blockers are not verified: {', '.join(sorted(blockers))}"
    return ""


def run_verdict(standings: Iterable[Standing]) -> RunVerdict:
    """Return the verdict of a run from how its cells count.

    ``nothing`` when no cell ran. A cell that did not run beside others that did leaves the
    question open: ``error``.
    """
    seen = set(standings)
    if not seen - {"not-run"}:
        return "nothing"
    if "fail" in seen:
        return "fail"
    return "pass" if seen == {"fine"} else "error"


def count_checks(checks: Iterable[CheckResult]) -> CheckCounts:
    """Count checks by outcome."""
    outcomes: Counter[str] = Counter()
    simulated = 0
    for check in checks:
        outcomes[check.outcome] += 1
        simulated += check.simulated
    return CheckCounts(
        total=outcomes.total(),
        passed=outcomes["pass"],
        failed=outcomes["fail"],
        error=outcomes["error"],
        skipped=outcomes["skip"],
        not_verified=outcomes["not-verified"],
        simulated=simulated,
    )


def summarise(cells: Sequence[Cell]) -> Summary:
    """Compute the summary of these cells."""
    verdicts = Counter(cell.verdict for cell in cells)
    standings = [standing(cell) for cell in cells]
    return Summary(
        verdict=run_verdict(standings),
        cells=CellCounts(
            total=len(cells),
            passed=verdicts["pass"],
            failed=verdicts["fail"],
            error=verdicts["error"],
            refused=verdicts["refused"],
            not_run=verdicts["not-run"],
            fine=standings.count("fine"),
            simulated=sum(cell.simulated for cell in cells),
            inherited=sum(cell.inherited is not None for cell in cells),
        ),
        checks=count_checks(check for cell in cells for check in cell.checks),
        violations=sum(violations(cell) for cell in cells),
    )


def violations(cell: Cell) -> int:
    """Count the packets of a cell that left another way, the build stage's included."""
    stages = [cell.ledger, cell.ledger.build] if cell.ledger else []
    return sum(violation.count for stage in stages if stage for violation in stage.violations)


def unwatched(cell: Cell) -> bool:
    """Say whether nobody saw the packets of a cell, so that no violation of it could be counted."""
    stages = [cell.ledger, cell.ledger.build] if cell.ledger else []
    return not any(stage and stage.captured for stage in stages)


def elapsed(cell: Cell) -> float:
    """Return the seconds from a cell's start to the end of its last phase."""
    return max((begin + phase.seconds for phase, begin in placed(cell.phases)), default=0.0)


def placed(phases: Iterable[Phase]) -> list[tuple[Phase, float]]:
    """Return each phase with its begin, in seconds from the cell's start."""
    found: list[tuple[Phase, float]] = []
    now = 0.0
    for phase in phases:
        begin = now if phase.started is None else phase.started
        found.append((phase, begin))
        now = begin + phase.seconds
    return found


def build_report(run: Run, cells: Sequence[Cell]) -> Report:
    """Put a report together; the only way to one whose summary is true."""
    return Report(
        schema_version=SCHEMA_VERSION, run=run, summary=summarise(cells), cells=list(cells)
    )
