"""``airlock k8s apply``: install or upgrade; the second time changes nothing."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from harness.errors import AirlockError
from harness.k8s.apply import Order, Outcome, apply
from harness.k8s.declaration import read_declaration
from harness.k8s.helm import Target, find_helm
from harness.k8s.plan import make_plan
from harness.k8s.rights import must_be_allowed
from harness.k8s.verbs.common import ask_option, cluster_of, cluster_options, declaration, judged
from installers.exits import Exit


def arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    declaration(parser)
    cluster_options(parser)
    ask_option(parser)
    release_options(parser)


def release_options(parser: argparse.ArgumentParser) -> None:
    """Of what changes a release."""
    parser.add_argument(
        "--timeout", type=int, default=300, metavar="S", help="of Helm and its hooks (300)"
    )
    parser.add_argument(
        "--patience",
        type=int,
        default=600,
        metavar="S",
        help="for how long what fails in passing is tried again (600)",
    )
    parser.add_argument(
        "--take-over", action="store_true", help="who held the release is gone for sure"
    )
    parser.add_argument(
        "--capsule",
        type=Path,
        metavar="DIR",
        help="when something fails, events and logs go here",
    )


def run(args: argparse.Namespace) -> int:
    """Prove, then apply."""
    wanted = read_declaration(args.file)
    helm = find_helm()
    with cluster_of(args, needed=True) as cluster:
        assert cluster is not None
        ask = bool(wanted.registry.to) and not args.no_ask
        plan = make_plan(wanted, helm, cluster=cluster, ask=ask)
        if code := judged(plan):
            for line in [*plan.proof.wrong, *plan.proof.open]:
                print(f"    {line}", file=sys.stderr)
            return code
        must_be_allowed(cluster, plan.rendered, plan.chart.definitions, wanted.operator.namespace)
        order = Order(
            helm,
            cluster,
            Target(wanted.operator.namespace, args.kubeconfig, args.context),
            wanted.release,
            args.timeout,
            chart=plan.chart.path,
            chart_id=plan.chart_id,
            values=plan.made.values,
            rendered=plan.rendered,
            beside=plan.made.objects,
            evidence=args.capsule,
            take_over=args.take_over,
        )
        order.patience.seconds = args.patience
        outcome = carried_out(order, lambda: apply(order))
    done = "changed" if outcome.changed else "nothing to change"
    print(f"{wanted.operator.namespace}/{wanted.release}: {done}, revision {outcome.revision}")
    return Exit.PASS


def carried_out(order: Order, act: Callable[[], Outcome]) -> Outcome:
    """Do it and tell the notes; an error says what to do next."""
    try:
        outcome = act()
    except AirlockError as error:
        next_time = "run it again to go on from here, or airlock k8s remove to take all away"
        error.hint = f"{error.hint}; {next_time}" if error.hint else next_time
        if order.evidence and order.evidence.is_dir():
            print(f"events and logs: {order.evidence}", file=sys.stderr)
        raise
    for note in outcome.notes:
        print(f"note: {note}")
    return outcome
