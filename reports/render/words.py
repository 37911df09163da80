"""The words and marks that every rendering uses, so that all of them say the same."""

from __future__ import annotations

from pathlib import PurePath

from reports.model import Cell, Report, Run
from reports.summary import is_named, unproved
from reports.text import count

_MARKS = {
    "pass": "✓",
    "fine": "✓",
    "ok": "✓",
    "fail": "✗",
    "failed": "✗",
    "error": "!",
    "refused": "⊘",
    "not-run": "–",
    "nothing": "–",
    "skip": "–",
    "skipped": "–",
    "not-verified": "?",
    "cached": "↺",
    "unchanged": "=",
}


def mark(word: str) -> str:
    """Return the sign that stands beside a verdict or outcome (never alone)."""
    return _MARKS[word]


def verdict_words(cell: Cell) -> str:
    """Say a cell's verdict against what was expected of it."""
    if cell.verdict == "not-run":
        return "not run"
    if cell.expected == "named":
        named = "named" if is_named(cell) else "not named"
        return f"{cell.verdict}, and the cause was {named}: {cell.named_by}"
    if cell.verdict == "refused":
        return "refused, as expected" if cell.expected == "refused" else "refused, not expected"
    if cell.expected == "refused":
        return f"{cell.verdict}, a refusal was expected"
    if unproved(cell):
        return "pass, not proved"
    since = f", inherited from {cell.inherited.finished:%Y-%m-%d}" if cell.inherited else ""
    return f"{cell.verdict}{since}"


def matrix_name(run: Run) -> str:
    """Name what was run: a matrix file without its directories, anything else as it is."""
    return PurePath(run.matrix).name if run.matrix.endswith(".toml") else run.matrix


def headline(report: Report) -> str:
    """Say what a run came to, in one or two sentences."""
    cells, checks = report.summary.cells, report.summary.checks
    if not cells.total:
        return "No cells were selected, so nothing was proved."
    expected = sum(cell.verdict == cell.expected == "refused" for cell in report.cells)
    parts = [
        f"{number} {words}"
        for number, words in (
            (cells.passed, "passed"),
            (expected, "refused as expected"),
            (cells.failed, "failed"),
            (cells.refused - expected, "refused unexpectedly"),
            (cells.error, "could not be judged"),
            (cells.not_run, "did not run"),
        )
        if number
    ]
    text = f"{count(cells.total, 'cell')}: {', '.join(parts)}."
    if checks.total:
        text += f" {count(checks.passed, 'check')} passed, {checks.failed:,} failed"
        if checks.error:
            text += f", {checks.error:,} could not run"
        text += f", {checks.not_verified:,} not verified."
    if report.summary.violations:
        text += f" {count(report.summary.violations, 'packet')} left another way than the proxy."
    if cells.inherited:
        text += f" {count(cells.inherited, 'cell is', 'cells are')} inherited from earlier runs."
    if cells.simulated:
        text += f" {count(cells.simulated, 'cell is', 'cells are')} simulated."
    return text


def part_of(run: Run) -> str:
    """What a run has to do with others: it is a shard, or was merged; with a comma before it."""
    if run.shard:
        return f", shard {run.shard.index} of {run.shard.count}"
    return f", merged from {count(len(run.merged), 'run')}" if run.merged else ""
