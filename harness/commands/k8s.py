"""``airlock k8s``: the operator on a cluster."""

from __future__ import annotations

import argparse
import importlib

#: what -> what it does. ``harness.k8s.verbs.<what>`` has ``arguments(parser)`` and ``run(args)``.
WHATS = {
    "plan": "what would be deployed, and everything that is wrong with it; changes nothing",
    "render": "values and objects as files, the same bytes on every run",
    "apply": "install or upgrade; goes on where it was cut off; the second time changes nothing",
    "remove": "take away what apply made, however far it came",
}


def arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's own verbs."""
    verbs = parser.add_subparsers(dest="what", required=True, metavar="WHAT")
    for what, about in WHATS.items():
        one = verbs.add_parser(what, help=about, description=about)
        importlib.import_module(f"harness.k8s.verbs.{what}").arguments(one)


def run(args: argparse.Namespace) -> int:
    """One of the verb's verbs; returns the exit code."""
    from harness.k8s.extra import must_be_installed

    must_be_installed()
    return int(importlib.import_module(f"harness.k8s.verbs.{args.what}").run(args))
