"""``airlock k8s remove``: take away what ``apply`` made, however far it came."""

from __future__ import annotations

import argparse

from harness.k8s.apply import Order, remove
from harness.k8s.declaration import read_declaration
from harness.k8s.helm import Target, find_helm
from harness.k8s.verbs.apply import carried_out, release_options
from harness.k8s.verbs.common import cluster_of, cluster_options, declaration
from installers.exits import Exit


def arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    declaration(parser)
    cluster_options(parser)
    release_options(parser)
    parser.add_argument(
        "--definitions",
        action="store_true",
        help="the CustomResourceDefinitions too, and with them every object of their kinds",
    )


def run(args: argparse.Namespace) -> int:
    """Remove the release of the declaration."""
    wanted = read_declaration(args.file)
    with cluster_of(args, needed=True) as cluster:
        assert cluster is not None
        order = Order(
            find_helm(),
            cluster,
            Target(wanted.operator.namespace, args.kubeconfig, args.context),
            wanted.release,
            args.timeout,
            evidence=args.capsule,
            take_over=args.take_over,
        )
        order.patience.seconds = args.patience
        outcome = carried_out(order, lambda: remove(order, definitions=args.definitions))
    done = "removed" if outcome.changed else "there was nothing"
    print(f"{wanted.operator.namespace}/{wanted.release}: {done}")
    return Exit.PASS
