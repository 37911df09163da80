"""``airlock k8s plan``: what would be deployed, and everything that is wrong with it."""

from __future__ import annotations

import argparse
import json

from harness.k8s.declaration import read_declaration
from harness.k8s.helm import find_helm
from harness.k8s.plan import make_plan, summary, told
from harness.k8s.verbs.common import ask_option, cluster_of, cluster_options, declaration, judged


def arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    declaration(parser)
    cluster_options(parser)
    ask_option(parser)
    parser.add_argument("--json", action="store_true", help="for programs")


def run(args: argparse.Namespace) -> int:
    """Print the plan; 0 if nothing is wrong with it."""
    wanted = read_declaration(args.file)
    ask = bool(wanted.registry.to) and not args.no_ask
    with cluster_of(args, needed=False) as cluster:
        plan = make_plan(wanted, find_helm(), cluster=cluster, ask=ask)
    print(
        json.dumps(summary(plan), indent=1, sort_keys=True) if args.json else "\n".join(told(plan))
    )
    return judged(plan)
