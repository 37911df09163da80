"""``airlock plan``."""

from __future__ import annotations

import argparse
import os

from harness.commands import selection
from installers.exits import Exit


def arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    selection.arguments(parser)
    parser.add_argument("-n", type=int, default=0, metavar="N", help="cells at a time")
    parser.add_argument("--json", action="store_true", help="for programs")


def run(args: argparse.Namespace) -> int:
    """Print the plan. Exit 0 whatever it says: a plan is no verdict."""
    from harness.errors import UsageError
    from harness.plan import as_data, plan, render

    if args.n < 0:
        raise UsageError(f"-n {args.n}: must be 1 or more")
    planned = plan(selection.chosen(args).cells)
    if args.json:
        import json

        print(json.dumps(as_data(planned), indent=1))
    else:
        print(render(planned, args.n or os.cpu_count() or 1))
    return Exit.PASS
