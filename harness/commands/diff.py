"""``airlock diff``."""

from __future__ import annotations

import argparse
import sys

from installers.exits import Exit


def arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    what = "a run's directory, out/latest, report.json"
    parser.add_argument("before", metavar="BEFORE", help=what)
    parser.add_argument("after", metavar="AFTER", help=what)
    parser.add_argument("--json", action="store_true", help="for programs")


def run(args: argparse.Namespace) -> int:
    """Print what is otherwise in AFTER. 0: nothing got worse; 1: something did; 3: cannot tell."""
    import msgspec

    from harness.errors import UsageError
    from reports.diff import diff_runs
    from reports.errors import ReportError
    from reports.render.diff import render_diff

    exits = {"worse": Exit.FAIL, "unknown": Exit.UNKNOWN, "nothing": Exit.NOTHING}
    try:
        diff = diff_runs(args.before, args.after)
    except ReportError as error:
        raise UsageError(error.message, hint=error.hint) from error
    if args.json:
        sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(diff), indent=1) + b"\n")
    else:
        sys.stdout.write(render_diff(diff))
    return exits.get(diff.verdict, Exit.PASS)
