"""``airlock run``."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from harness.commands import selection


def arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    selection.arguments(parser)
    selection.shard_arguments(parser)
    parser.add_argument(
        "-k", default="", metavar="EXPR", dest="keyword", help="pytest's -k, over cells and checks"
    )
    parser.add_argument("--fresh", action="store_true", help="new keys and a new CA")
    parser.add_argument(
        "--boot-anew", action="store_true", help="boot every machine instead of forking frozen ones"
    )
    parser.add_argument(
        "--keep",
        choices=("never", "on-failure", "always"),
        default="never",
        help="which nodes stay up; the end of the run says how to get in",
    )
    parser.add_argument(
        "--bind", action="store_true", help="record the disks' SHA-256, for a release (minutes)"
    )
    selection.run_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Run the cells; the exit code is the gate's verdict on the report."""
    if args.keep == "never":
        return _run(args)[0]
    from harness.kept import hold

    return hold(lambda: _run(args))


def _run(args: argparse.Namespace) -> tuple[int, Callable[[], None] | None]:
    """The exit code, and what serves the nodes that are kept."""
    from harness.errors import UsageError
    from harness.providers.base import Keep, Options
    from harness.run import Request
    from harness.run import run as run_cells
    from harness.verdict import print_outcome

    chosen = selection.chosen(args)
    if args.durations and not chosen.shard:
        raise UsageError("--durations: needs --shard", hint="it decides which cells a shard has")
    if args.keyword and chosen.shard:
        raise UsageError(
            "-k and --shard exclude each other: what -k leaves of a shard is not known beforehand",
            hint="choose cells with --image, --scenario and --profile",
        )
    conformance = selection.conformance(args)
    outcome = run_cells(
        Request(
            cells=chosen.cells,
            matrix=chosen.matrix,
            shard=chosen.shard,
            out=args.out,
            workers=args.n,
            options=Options(
                fresh=args.fresh,
                boot_anew=args.boot_anew,
                keep=Keep(args.keep),
                bind=args.bind,
            ),
            keyword=args.keyword,
            conformance=conformance,
        )
    )
    return print_outcome(outcome), outcome.hold
