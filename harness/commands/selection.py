"""The options by which ``run`` and ``plan`` choose cells."""

from __future__ import annotations

import argparse
from pathlib import Path

from harness.cells import Cell


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add them."""
    parser.add_argument(
        "matrix", nargs="?", metavar="MATRIX", help="a matrix file, or the name of one that ships"
    )
    for axis in ("image", "scenario", "profile"):
        parser.add_argument(
            f"--{axis}",
            action="append",
            default=[],
            metavar=axis[0].upper(),
            help=f"only this {axis}; may be given again",
        )
    parser.add_argument(
        "--inherit",
        action="store_true",
        help="show the earlier result of a green cell of which nothing has changed",
    )
    parser.add_argument(
        "--force", action="store_true", help="run every cell, whatever the matrix may inherit"
    )
    parser.add_argument("--provider", metavar="P", help="make every node with this provider")


def chosen(args: argparse.Namespace) -> tuple[Path, list[Cell]]:
    """The matrix file and the cells that the command line means."""
    from dataclasses import replace

    from harness.catalog import load_catalog
    from harness.errors import UsageError
    from harness.matrix import Selection, find_matrix, load_matrix, select

    path = find_matrix(args.matrix)
    catalog = load_catalog(path.parent)
    selection = Selection(
        tuple(args.image), tuple(args.scenario), tuple(args.profile), args.provider
    )
    if args.inherit and args.force:
        raise UsageError("--inherit and --force exclude each other")
    cells = select(load_matrix(path, catalog), selection, catalog)
    if args.inherit or args.force:
        cells = [replace(cell, inherit=args.inherit) for cell in cells]
    return path, cells
