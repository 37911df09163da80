"""``airlock plan``."""

from __future__ import annotations

import argparse
import os

from harness.commands import selection
from installers.exits import Exit

#: What ``--emit`` knows; all but the last are engines (see harness.ci.emit).
EMITTED = ("github", "gitlab", "cloudbuild", "kubernetes", "durations")


def arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    selection.arguments(parser)
    selection.shard_arguments(parser)
    parser.add_argument("-n", type=int, default=0, metavar="N", help="cells at a time")
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.add_argument(
        "--emit",
        choices=EMITTED,
        help="print the file that runs the matrix in shards there; or how long its cells took here",
    )
    parser.add_argument("--shards", type=int, default=0, metavar="N", help="how many, for --emit")
    parser.add_argument("--bucket", default="", metavar="gs://B", help="where shards put reports")
    parser.add_argument(
        "--container", default="", metavar="IMAGE", help="what shards run in: it holds Airlock"
    )


def run(args: argparse.Namespace) -> int:
    """Print the plan. Exit 0 whatever it says: a plan is no verdict."""
    from harness.errors import UsageError
    from harness.plan import as_data, plan, render

    if args.n < 0:
        raise UsageError(f"-n {args.n}: must be 1 or more")
    if args.shards < 0:
        raise UsageError(f"--shards {args.shards}: must be 1 or more")
    _consistent(args)
    chosen = selection.chosen(args)
    if args.emit:
        print(_emitted(args, chosen), end="")
        return Exit.PASS
    planned = plan(chosen.cells)
    if args.json:
        import json

        print(json.dumps(as_data(planned), indent=1))
    else:
        print(render(planned, args.n or os.cpu_count() or 1))
    return Exit.PASS


def _consistent(args: argparse.Namespace) -> None:
    from harness.errors import UsageError

    engine = args.emit not in (None, "durations")
    for name in ("shards", "bucket", "container"):
        if getattr(args, name) and not engine:
            raise UsageError(f"--{name}: needs --emit", hint="--emit github, gitlab, ...")
    if args.durations and not (args.shard or engine):
        raise UsageError("--durations: needs --shard or --emit", hint="it divides into shards")
    if args.emit and (args.shard or args.json):
        raise UsageError("--emit: is for all shards, and is no JSON of the plan")


def _emitted(args: argparse.Namespace, chosen: selection.Chosen) -> str:
    if args.emit == "durations":
        from harness.durations import durations_file

        return durations_file((cell.provider, cell.id) for cell in chosen.cells)
    from harness.ci.emit import Request, emit

    return emit(
        Request(
            engine=args.emit,
            cells=chosen.cells,
            words=selection.words(args),
            shards=args.shards,
            durations=selection.durations(args),
            bucket=args.bucket,
            container=args.container,
        )
    )
