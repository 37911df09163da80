"""``airlock k8s check``: conformance of a cluster; changes nothing."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from harness.k8s.verbs.common import cluster_options


def arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    parser.add_argument(
        "file", type=Path, nargs="?", metavar="FILE", help="the declaration to hold it against"
    )
    cluster_options(parser)
    parser.add_argument(
        "--namespace", default="", metavar="NS", help="the operator's (gpu-operator)"
    )
    parser.add_argument("-k", default="", metavar="EXPR", dest="keyword", help="pytest's -k")
    parser.add_argument("--out", type=Path, default=Path("out"), help="where runs are written")


def run(args: argparse.Namespace) -> int:
    """Check the cluster as it is; the exit code is the gate's verdict."""
    from harness.catalog import CONFORMANCE
    from harness.k8s.declaration import read_declaration
    from harness.providers.kubernetes import NAME, Kubernetes, cluster_cell
    from harness.run import Request
    from harness.run import run as run_cells
    from harness.verdict import print_outcome

    wanted = read_declaration(args.file) if args.file else None
    namespace = args.namespace or (wanted.operator.namespace if wanted else "gpu-operator")
    # Names of contexts may hold anything (an ARN), and become a part of paths.
    name = re.sub(r"[^\w.-]+", "-", args.context or "cluster").strip("-")
    outcome = run_cells(
        Request(
            cells=[cluster_cell(name)],
            matrix=str(args.file or NAME),
            out=args.out,
            keyword=args.keyword,
            conformance=CONFORMANCE / "kubernetes",
            providers={NAME: Kubernetes(args.kubeconfig, args.context, namespace, wanted)},
        )
    )
    return print_outcome(outcome)
