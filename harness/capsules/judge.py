"""A captured node, judged by the checks of today. What they need and it does not hold is open."""

from __future__ import annotations

from pathlib import Path

from harness.capsules.archive import Capsule
from harness.providers.capsule import Captured, captured_cell
from harness.run import Outcome, Request
from harness.run import run as run_cells
from reports import model

_GRAVEST = {"blocker": 0, "major": 1, "minor": 2}


def judged(capsule: Capsule, out: Path, conformance: Path, keyword: str = "") -> Outcome:
    """A run of one cell whose node is a capsule. Raises UsageError, InfraError."""
    facts = capsule.table("facts.json")
    system = facts.get("os") if isinstance(facts.get("os"), dict) else {}
    known = isinstance(system, dict) and system.get("id") and system.get("version_id")
    image = f"{system['id']}-{system['version_id']}" if known and isinstance(system, dict) else "?"
    return run_cells(
        Request(
            cells=[captured_cell(capsule, _name(image))],
            matrix=str(capsule.path),
            out=out,
            keyword=keyword,
            conformance=conformance,
            providers={Captured.name: Captured(capsule)},
        )
    )


def failed(outcome: Outcome) -> list[model.CheckResult]:
    """The checks that failed, the gravest first."""
    (cell,) = outcome.report.cells
    found = [check for check in cell.checks if check.outcome == "fail"]
    return sorted(found, key=lambda check: _GRAVEST[check.severity])


def _name(text: str) -> str:
    """A word of a node's as a part of a path."""
    clean = "".join(c if c.isalnum() or c in ".-" else "-" for c in text.lower() if c.isascii())
    return clean.strip(".-")[:60] or "captured"
