"""``airlock sabotage``: break good nodes on purpose, and see whether the right checks fail."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from harness.commands import selection

if TYPE_CHECKING:
    from harness.cells import Cell
    from harness.sabotage import Sabotage


def arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    selection.arguments(parser)
    parser.add_argument(
        "--only", action="append", default=[], metavar="NAME", help="this sabotage; may be repeated"
    )
    parser.add_argument(
        "--area", action="append", default=[], metavar="AREA", help="those of this area of checks"
    )
    parser.add_argument(
        "--apply", type=Path, metavar="FILE", help="a break of your own: shell for the node"
    )
    parser.add_argument(
        "--expect", action="append", default=[], metavar="ID", help="the check that must then fail"
    )
    parser.add_argument("--list", action="store_true", help="print them and what they kill")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    selection.run_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """One cell a sabotage, in one run; the exit code says whether each was found."""
    import json
    from dataclasses import replace

    from harness import kills
    from harness.errors import NothingToDo, UsageError
    from harness.run import Request
    from harness.run import run as run_cells
    from installers.exits import Exit

    conformance = selection.conformance(args)
    sabotages = _chosen(args, conformance)
    if args.list:
        for one in sabotages:
            print(f"{one.name:32} {one.stops or ' '.join(one.kills):40} {one.title}")
        return Exit.PASS
    chosen = selection.chosen(args)
    if any(cell.target for cell in chosen.cells):
        raise UsageError("a machine that is there already is not broken on purpose")
    _, catalog = selection.catalog(args.matrix)
    good = _good(chosen.cells, args)
    request = Request(
        cells=good, matrix=chosen.matrix, out=args.out, workers=args.n, conformance=conformance
    )
    # The control: a sabotage of a node that was not right before shows nothing.
    applies = kills.applying(run_cells(request).report.cells)
    cells = [
        one.cell(cell, catalog)
        for cell in good
        for one in sabotages
        if one.scenario or one.stops or applies[cell.id] & set(one.kills)
    ]
    if not cells:
        raise NothingToDo("none of these checks applies to these cells: there is nothing to break")
    outcome = run_cells(replace(request, cells=cells))
    known = frozenset().union(*applies.values())
    tally = kills.tally(outcome.report.cells, cells, known)
    if args.json:
        print(json.dumps(tally.as_json() | {"report": str(outcome.directory)}, indent=1))
        return tally.exit
    for judged in tally.judged:
        print(judged.line)
    print(f"\n{tally.summary()}")
    if tally.alive and not (args.only or args.area or args.apply):
        print(f"no sabotage killed: {', '.join(tally.alive)}")
    if left := len(sabotages) * len(good) - len(cells):
        print(f"{left} sabotages are left out: their checks do not apply to these cells")
    print(f"report: {outcome.directory / 'index.html'}")
    return tally.exit


def _good(offered: list[Cell], args: argparse.Namespace) -> list[Cell]:
    """Cells that pass while nobody breaks them; without a choice of axes the first one alone."""
    from harness.cells import Expected
    from harness.errors import UsageError

    good = [cell for cell in offered if cell.expected is Expected.PASS]
    if not good:
        raise UsageError("no cell of these is expected to pass, and a broken one cannot be broken")
    return good if args.image or args.scenario or args.profile else good[:1]


def _chosen(args: argparse.Namespace, conformance: Path) -> list[Sabotage]:
    from harness.errors import UsageError
    from harness.names import nearest
    from harness.sabotage import find_sabotage, load_sabotages, of_file

    if bool(args.apply) != bool(args.expect):
        raise UsageError("--apply FILE and --expect ID belong together")
    if args.apply:
        if args.only or args.area:
            raise UsageError("--apply excludes --only and --area")
        return [of_file(args.apply, args.expect)]
    areas = sorted(path.parent.name for path in conformance.glob("*/sabotage.toml"))
    for area in args.area:
        if area not in areas:
            raise UsageError(f"--area: there is no area {area!r}", hint=nearest(area, areas))
    found = {name: find_sabotage(conformance, name) for name in args.only}
    for area in args.area:
        found |= load_sabotages(conformance, area)
    return list((found or load_sabotages(conformance)).values())
