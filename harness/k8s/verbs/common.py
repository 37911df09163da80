"""Options and steps that several of the verbs have."""

from __future__ import annotations

import argparse
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from harness.k8s.client import Cluster
from harness.k8s.plan import Plan
from installers.exits import Exit


def declaration(parser: argparse.ArgumentParser) -> None:
    """The file that says what is wanted."""
    parser.add_argument("file", type=Path, metavar="FILE", help="the declaration (TOML)")


def cluster_options(parser: argparse.ArgumentParser) -> None:
    """Which cluster."""
    parser.add_argument("--kubeconfig", type=Path, metavar="FILE", help="default: as for kubectl")
    parser.add_argument("--context", default="", metavar="NAME", help="default: the current one")


def ask_option(parser: argparse.ArgumentParser) -> None:
    """Whether the registry is asked."""
    parser.add_argument(
        "--no-ask", action="store_true", help="do not ask the registry whether it has the images"
    )


def cluster_of(args: argparse.Namespace, *, needed: bool) -> AbstractContextManager[Cluster | None]:
    """The cluster; None where none was named and none is needed."""
    if needed or args.kubeconfig or args.context:
        return Cluster(args.kubeconfig, args.context)
    return nullcontext(None)


def judged(plan: Plan) -> Exit:
    """The exit code that a proof deserves; says why on stderr if it is not 0."""
    if plan.proof.wrong:
        print(f"airlock: {len(plan.proof.wrong)} things are wrong", file=sys.stderr)
        return Exit.FAIL
    unknown = [one for one in plan.proof.asked if one.answer == "unknown"]
    if unknown:
        text = f"airlock: the registry could not be asked for {len(unknown)} images"
        print(text, file=sys.stderr)
        return Exit.UNKNOWN
    return Exit.PASS
