"""The options that verbs share: which cells, how many at a time, whereto, and which checks."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.cells import Cell
from harness.targets import FORMS

if TYPE_CHECKING:
    from harness.catalog import Catalog
    from harness.shards import Durations, Shard


#: The provider of machines that are there (harness.providers.host, whose import is not cheap).
HOST = "host"


@dataclass(frozen=True)
class Chosen:
    """The matrix and its cells that are meant; ``shard`` if they are a part of the choice.

    ``matrix`` is what to call it: its file, or the targets.
    """

    matrix: str
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
    parser.add_argument(
        "--target",
        action="append",
        default=[],
        metavar="T",
        help=f"instead of a matrix, a machine that is there: {FORMS}; may be given again",
    )


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
    for target in args.target:
        said += ["--target", target]
    if args.durations:
        said += ["--durations", str(args.durations)]
    return said


def matrix_argument(parser: argparse.ArgumentParser) -> None:
    """Add ``--matrix``, for a verb that makes one cell of no matrix."""
    parser.add_argument(
        "--matrix",
        metavar="MATRIX",
        help="names may be those of images.toml and profiles.toml beside this matrix, too",
    )


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

    from harness.errors import UsageError
    from harness.matrix import Selection, load_matrix, select
    from harness.shards import parse_shard, shard_of

    shard = getattr(args, "shard", None)
    part = None if shard is None else parse_shard(shard)
    if args.inherit and args.force:
        raise UsageError("--inherit and --force exclude each other")
    if args.target or args.provider == HOST:
        matrix, found = " ".join(args.target), _targets(args)
    else:
        path, names = catalog(args.matrix)
        axes = (tuple(args.image), tuple(args.scenario), tuple(args.profile))
        matrix, found = str(path), load_matrix(path, names)
        found = select(found, Selection(*axes, args.provider), names)
    if args.inherit or args.force:
        found = [replace(cell, inherit=args.inherit) for cell in found]
    if part:
        return Chosen(matrix, *shard_of(found, *part, durations(args)))
    return Chosen(matrix, found)


def catalog(matrix: str | None) -> tuple[Path, Catalog]:
    """The matrix that is meant, and what it may name: what ships, and what lies beside it."""
    from harness.catalog import load_catalog
    from harness.matrix import find_matrix

    path = find_matrix(matrix)
    return path, load_catalog(path.parent)


def _targets(args: argparse.Namespace) -> list[Cell]:
    """The cells of machines that are there already. UsageError."""
    from harness.errors import UsageError
    from harness.providers.host import host_cell

    if not args.target:
        raise UsageError(
            f"--provider {HOST}: which machine?",
            hint="--target local, or --target ssh://HOST; may be given again",
        )
    if args.provider not in (None, HOST):
        raise UsageError(f"--target is for --provider {HOST}, and not for {args.provider}")
    if args.matrix or args.image or args.scenario or args.profile:
        raise UsageError(
            "--target excludes a matrix and its axes: a machine that is there is checked as it is"
        )
    cells = {cell.id: cell for cell in map(host_cell, args.target)}
    if len(cells) < len(args.target):
        raise UsageError("--target: the same machine is named twice")
    return list(cells.values())
