"""``airlock reap``."""

from __future__ import annotations

import argparse

from installers.exits import Exit


def arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    parser.add_argument(
        "--project",
        action="append",
        default=[],
        metavar="P",
        help="Google Cloud projects to look in (the one of gce.toml, if there is that file)",
    )
    parser.add_argument(
        "--all", action="store_true", help="those of other machines too whose time is not up"
    )
    parser.add_argument("--dry-run", action="store_true", help="only say what would be ended")


def run(args: argparse.Namespace) -> int:
    """End what dead runs left, here and in the cloud. Exit 3 if something refuses to die."""
    from harness.providers.gce_config import config_path, read_config
    from harness.providers.gce_reap import Ledger, reap
    from harness.sweep import Swept, sweep

    projects = list(args.project)
    if not projects and config_path().is_file():
        projects = [read_config().project]
    here = Swept() if args.dry_run else sweep()
    there = reap(projects, everything=args.all, dry=args.dry_run)
    for line in [*here.ended, *there.ended]:
        print(f"ended: {line}")
    for line in there.spared:
        print(f"stays: {line}")
    refused = [*here.refused, *there.refused]
    for line in refused:
        print(f"REFUSED TO DIE: {line}")
    left = Ledger().all()
    for item in left:
        print(f"left: {item.place.text}, tried {item.tries} times: {item.why}")
    if not (projects or left):
        print("no project was looked in: --project names one, or gce.toml")
    return Exit.UNKNOWN if refused or left else Exit.PASS
