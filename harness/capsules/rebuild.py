"""A captured node's environment in the lab: derived, told, built, and held against the capsule."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from harness.capsules.archive import read
from harness.capsules.derive import Derived, derive, scenario_text
from harness.capsules.judge import failed, judged
from harness.catalog import CONFORMANCE, load_catalog
from installers.exits import Exit
from reports.text import plain

if TYPE_CHECKING:
    from reports import model

#: ``show(args)``: makes the node of a scenario and prints what it shows.
Show = Callable[[argparse.Namespace], "tuple[model.Cell, bool]"]


def rebuild(args: argparse.Namespace, show: Show) -> Exit:
    """``airlock reproduce CAPSULE``: 0 if a check that failed there fails here (or none did)."""
    capsule = read(Path(args.scenario))
    images = load_catalog().images
    found = derive(capsule, images)
    outcome = judged(capsule, args.out, CONFORMANCE)
    there = failed(outcome)
    # Beside the runs, where it can be looked at, changed, and given to the same command.
    path = args.out / f"capsule-{capsule.digest[:12]}.toml"
    title = f"As {capsule.path.name} tells it"
    path.write_text(scenario_text(found, title, [check.id for check in there]), encoding="utf-8")
    print(plain("\n".join(_derived(found, there, path))), flush=True)
    args.scenario = str(path)
    args.image, args.profile = args.image or found.image, args.profile or found.profile
    cell, finished = show(args)
    here = {check.id for check in cell.checks if check.outcome == "fail"}
    here |= {cell.cause} - {""}
    print(plain("\n".join(_compared([check.id for check in there], here, cell))))
    if not finished or cell.verdict in ("error", "not-run"):
        return Exit.UNKNOWN
    same = here & {check.id for check in there} or {cell.cause} & {*found.explains}
    return Exit.PASS if same or (not there and not here) else Exit.FAIL


def _derived(found: Derived, there: Sequence[model.CheckResult], path: Path) -> list[str]:
    lines = ["rebuilt from the capsule:"]
    lines += [f"    {what}: {value}" for what, value in found.known]
    lines.append("not rebuilt:")
    lines += [f"    {what}: {why}" for what, why in found.lost]
    lines.append("failed on the node:" if there else "no check failed on the node")
    lines += [f"    {check.id}: {check.message}" for check in there]
    return [*lines, f"scenario: {path}"]


def _compared(there: Sequence[str], here: set[str], cell: model.Cell) -> list[str]:
    checked = {check.id: check.outcome for check in cell.checks}
    lines = []
    for check in there:
        outcome = "failed here too" if check in here else checked.get(check, "did not run")
        lines.append(f"{check}: {outcome if outcome != 'pass' else 'passed here'}")
    return lines
