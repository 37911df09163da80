"""``airlock check``."""

from __future__ import annotations

import argparse
from pathlib import Path

from harness.commands import selection
from harness.targets import FORMS


def arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    parser.add_argument("target", metavar="TARGET", help=FORMS)
    parser.add_argument("-k", default="", metavar="EXPR", dest="keyword", help="pytest's -k")
    parser.add_argument("--out", type=Path, default=Path("out"), help="where runs are written")
    selection.checks_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Check the machine as it is; the exit code is the gate's verdict."""
    from harness.catalog import CONFORMANCE
    from harness.providers.host import host_cell
    from harness.run import Request
    from harness.run import run as run_cells
    from harness.verdict import print_outcome

    outcome = run_cells(
        Request(
            cells=[host_cell(args.target)],
            matrix=args.target,
            out=args.out,
            keyword=args.keyword,
            conformance=args.checks or CONFORMANCE,
        )
    )
    return print_outcome(outcome)
