"""The options that verbs share: which cells, how many at a time, whereto, and which checks."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.cells import Cell

if TYPE_CHECKING:
    from harness.shards import Durations, Shard


@dataclass(frozen=True)
class Chosen:
    """The matrix file and its cells that are meant; ``shard`` if they are a part of the choice."""

    matrix: Path
    cells: list[Cell]
    shard: Shard | None = None


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


def shard_arguments(parser: argparse.ArgumentParser) -> None:
    """Add those by which a verb means a part of the choice."""
    parser.add_argument(
        "--shard", metavar="I/N", help="only part I of N; airlock merge makes them one report"
    )
    parser.add_argument(
        "--durations",
        type=Path,
        metavar="FILE",
        help="how long cells take, for equal shards: a report, or what --emit durations prints",
    )


def durations(args: argparse.Namespace) -> Durations:
    """What ``--durations`` says; nothing without it. UsageError."""
    from harness.durations import read_durations

    return read_durations(args.durations) if args.durations else {}


def words(args: argparse.Namespace) -> list[str]:
    """The words of a command line that choose the same cells, but for ``--shard``."""
    said = [args.matrix] if args.matrix else []
    for axis in ("image", "scenario", "profile"):
        for name in getattr(args, axis):
            said += [f"--{axis}", name]
    said += [flag for flag in ("--inherit", "--force") if getattr(args, flag.strip("-"))]
    if args.provider:
        said += ["--provider", args.provider]
    if args.durations:
        said += ["--durations", str(args.durations)]
    return said


def run_arguments(parser: argparse.ArgumentParser) -> None:
    """Add those of a verb that runs cells: how many at a time, whereto, and which checks."""
    parser.add_argument("-n", type=int, default=0, metavar="N", help="cells at a time")
    parser.add_argument("--out", type=Path, default=Path("out"), help="where runs are written")
    checks_argument(parser)


def checks_argument(parser: argparse.ArgumentParser) -> None:
    """Add ``--checks``."""
    parser.add_argument(
        "--checks", type=Path, metavar="DIR", help="other checks than those that ship"
    )


def conformance(args: argparse.Namespace) -> Path:
    """The directory of the checks that a run is told to make. UsageError for -n as well."""
    from harness.catalog import CONFORMANCE
    from harness.errors import UsageError

    found: Path = args.checks or CONFORMANCE
    if not found.is_dir():
        raise UsageError(f"--checks: there is no directory {found}")
    if args.n < 0:
        raise UsageError(f"-n {args.n}: must be 1 or more")
    return found


def chosen(args: argparse.Namespace) -> Chosen:
    """What the command line means. UsageError, NothingToDo."""
    from dataclasses import replace

    from harness.catalog import load_catalog
    from harness.errors import UsageError
    from harness.matrix import Selection, find_matrix, load_matrix, select
    from harness.shards import parse_shard, shard_of

    shard = getattr(args, "shard", None)
    part = None if shard is None else parse_shard(shard)
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
    if part:
        return Chosen(path, *shard_of(cells, *part, durations(args)))
    return Chosen(path, cells)
