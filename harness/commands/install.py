"""``airlock install``."""

from __future__ import annotations

import argparse
from pathlib import Path

from harness.targets import FORMS


def arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    parser.add_argument("target", nargs="?", metavar="TARGET", help=FORMS)
    parser.add_argument("--root", type=Path, metavar="DIR", help="an image mounted at DIR")
    parser.add_argument(
        "--metadata",
        default="",
        metavar="FILE.json|URL",
        help="where the attributes are (default: the machine's metadata server)",
    )
    parser.add_argument("--only", default="", metavar="NAME,...", help="only these installers")
    verb = parser.add_mutually_exclusive_group()
    for name, what in (
        ("plan", "print what would change, and what it takes; change nothing"),
        ("verify", "see whether everything is right; change nothing"),
        ("remove", "undo what was installed"),
    ):
        verb.add_argument(
            f"--{name}", dest="verb", action="store_const", const=name, default="apply", help=what
        )
    parser.add_argument("--json", action="store_true", help="for programs")


def run(args: argparse.Namespace) -> int:
    """Run the installers; the exit code is the node file's own."""
    from harness.errors import UsageError
    from harness.install import Order, install_here, install_there
    from harness.targets import parse_target

    if (args.target is None) == (args.root is None):
        raise UsageError("name a TARGET or --root DIR, and not both")
    order = Order(args.verb, args.metadata, args.only, args.json)
    if args.root is not None or not parse_target(args.target).host:
        return install_here(order, args.root)
    return install_there(order, args.target)
