"""``airlock k8s render``: values and objects as files, for Argo CD, Flux, CDK, or kubectl."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from harness.k8s.declaration import read_declaration
from harness.k8s.helm import find_helm
from harness.k8s.plan import files, make_plan, write
from harness.k8s.verbs.common import cluster_of, cluster_options, declaration, judged


def arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    declaration(parser)
    cluster_options(parser)
    parser.add_argument(
        "--to", type=Path, metavar="DIR", help="write files there (default: print the objects)"
    )


def run(args: argparse.Namespace) -> int:
    """Render; what is wrong is told, and nothing is written then."""
    wanted = read_declaration(args.file)
    with cluster_of(args, needed=False) as cluster:
        plan = make_plan(wanted, find_helm(), cluster=cluster, ask=False)
    code = judged(plan)
    for line in plan.proof.wrong:
        print(f"WRONG: {line}", file=sys.stderr)
    if code:
        return code
    if args.to is None:
        print(files(plan)["manifests.yaml"], end="")
        return code
    changed = write(plan, args.to)
    print(f"{args.to}: {', '.join(changed) if changed else 'nothing changed'}")
    left = [one["metadata"]["name"] for one in plan.made.objects if one["kind"] == "Secret"]
    for name in left:
        print(f"not written, because it is secret: Secret {name}")
    return code
