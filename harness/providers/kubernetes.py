"""A cluster as something that can be checked: one cell, whose facts the API gives.

Nothing on the cluster is changed. Which cluster it is comes from a kubeconfig, so this provider
takes arguments, and a run is handed it (``Request.providers``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.cells import Cell
from harness.k8s.client import Cluster
from harness.k8s.collect import collect
from harness.k8s.declaration import Declaration
from harness.k8s.retry import Patience
from harness.providers.asis import AsIs, NodeAsIs, cell_as_is
from harness.providers.base import Job
from harness.transports.base import Ran, TransportError

NAME = "kubernetes"
#: Seconds for which an API server that is busy is asked again.
PATIENCE = 30.0


class Kubernetes(AsIs):
    """The provider of one cluster. ``wanted``: what was declared of it, None if nobody said."""

    name = NAME

    def __init__(
        self, kubeconfig: Path | None, context: str, namespace: str, wanted: Declaration | None
    ) -> None:
        self._kubeconfig = kubeconfig
        self._context = context
        self._namespace = namespace
        self._wanted = wanted

    def reasons_not(self, cell: Cell) -> list[str]:
        """Whether it can be reached is seen when it is asked."""
        return ["a cluster that is not ours is not broken on purpose"] if cell.sabotage else []

    def up(self, job: Job) -> ClusterNode:
        """Open it, and see that it answers."""
        with job.phase("connect", self._context or "the current context"):
            cluster = Cluster(self._kubeconfig, self._context, Patience(PATIENCE))
            try:
                cluster.version()
            except BaseException:
                cluster.__exit__(None, None, None)
                raise
        return ClusterNode(cluster, self._namespace, self._wanted)


class ClusterTransport:
    """The cluster's API as a channel: it tells facts, and has no shell."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self.name = cluster.host
        #: Of the last facts: node -> what is known of it.
        self.nodes: Mapping[str, Any] = {}
        self._cluster = cluster
        self._namespace = namespace

    def call(self, op: str, *, timeout: float, **args: Any) -> Any:
        """Nothing but facts can be asked."""
        del args
        if op != "facts":
            raise TransportError(f"{self.name}: a cluster cannot be asked for {op}")
        return self.facts(timeout=timeout)

    def run(self, command: str | Sequence[str], *, stdin: bytes = b"", timeout: float = 60) -> Ran:
        """Always TransportError."""
        del command, stdin, timeout
        raise TransportError(f"{self.name}: a cluster runs no commands")

    def facts(self, nonce: str | None = None, timeout: float = 60) -> dict[str, Any]:
        """See harness.k8s.collect."""
        del timeout  # each request has its own
        found = collect(self._cluster, self._namespace)
        self.nodes = found["cluster"]["nodes"] or {}
        return {**found, "nonce": nonce}

    def capture(self, nonce: str, timeout: float = 120) -> dict[str, Any]:
        """Always TransportError: capsules are of nodes."""
        del nonce, timeout
        raise TransportError(f"{self.name}: a cluster cannot be captured, its nodes can")

    def close(self) -> None:
        """Hang up."""
        self._cluster.__exit__(None, None, None)


class ClusterNode(NodeAsIs):
    """A cluster that was there before us."""

    simulated = False

    def __init__(self, cluster: Cluster, namespace: str, wanted: Declaration | None) -> None:
        self.transport: ClusterTransport = ClusterTransport(cluster, namespace)
        self._wanted = wanted

    @property
    def expect(self) -> Mapping[str, Any]:
        """What was declared, for the nodes that the last facts tell of."""
        return _expected(self._wanted, self.transport.nodes) if self._wanted else {}

    def exercise(self) -> None:
        """Pods that try cards are the operator's validator's; here nothing is started."""


def _expected(wanted: Declaration, nodes: Mapping[str, Any]) -> dict[str, Any]:
    """What checks hold the cluster against."""
    registry = wanted.registry
    allowed = [each for each in (registry.to, *registry.map.values()) if each]
    found: dict[str, Any] = {"registries": allowed, "pull_secrets": list(registry.pull_secrets)}
    if slicing := wanted.slicing:
        found["slicing"] = {
            **slicing.policy(),
            "data": slicing.config_map(wanted.operator.namespace)["data"],
            "nodes": {name: slicing.node_labels(one["labels"]) for name, one in nodes.items()},
        }
    return found


def cluster_cell(name: str) -> Cell:
    """The one cell of a cluster that is checked as it is."""
    return cell_as_is(NAME, name, where="Wherever the cluster is")
