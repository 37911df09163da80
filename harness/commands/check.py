"""``airlock check``."""

from __future__ import annotations

import argparse
from pathlib import Path

from harness.commands import selection
from harness.targets import FORMS


def arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    parser.add_argument(
        "target",
        metavar="TARGET|CAPSULE",
        help=f"{FORMS}; or the file of a capsule (airlock capture)",
    )
    parser.add_argument("-k", default="", metavar="EXPR", dest="keyword", help="pytest's -k")
    parser.add_argument("--out", type=Path, default=Path("out"), help="where runs are written")
    selection.checks_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Check the machine as it is, or as it was; the exit code is the gate's verdict."""
    from harness.capsules.archive import SUFFIX, read
    from harness.catalog import CONFORMANCE
    from harness.providers.host import host_cell
    from harness.run import Request
    from harness.run import run as run_cells
    from harness.targets import LOCAL
    from harness.verdict import print_outcome

    conformance = args.checks or CONFORMANCE
    is_file = args.target.endswith(SUFFIX) or Path(args.target).exists()
    if args.target != LOCAL and is_file:
        from harness.capsules.judge import judged

        return print_outcome(judged(read(Path(args.target)), args.out, conformance, args.keyword))
    outcome = run_cells(
        Request(
            cells=[host_cell(args.target)],
            matrix=args.target,
            out=args.out,
            keyword=args.keyword,
            conformance=conformance,
        )
    )
    return print_outcome(outcome)
