"""One at a time: who works on a release holds a Lease, and who was killed is found out."""

from __future__ import annotations

import datetime as dt
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from harness.errors import InfraError
from harness.k8s.client import Cluster, Object
from harness.k8s.errors import ClusterError, NotAllowed
from harness.k8s.retry import Patience
from harness.state import started_at

_API, _KIND = "coordination.k8s.io/v1", "Lease"


@contextmanager
def held(
    cluster: Cluster, release: str, namespace: str, seconds: int, *, take_over: bool = False
) -> Iterator[bool]:
    """Nobody else's airlock works on ``release`` meanwhile; for ``seconds`` at most.

    Yields whether it was taken from one who is gone: what is half done is then an airlock's.

    A lease of a process of this machine that is gone, and one whose time is over, is taken.
    InfraError names who holds it; ``take_over`` takes it all the same.
    """
    name = f"airlock-{release}"
    old = cluster.get(_API, _KIND, name, namespace)
    if old is not None:
        holder, until = old["spec"].get("holderIdentity", ""), _until(old)
        if not (take_over or _is_dead(holder) or until < dt.datetime.now(dt.UTC)):
            raise InfraError(
                f"{holder} works on {namespace}/{release} until {until:%H:%M:%S} UTC",
                hint="wait for it; if it is gone for sure, say --take-over",
            )
        cluster.delete(_API, _KIND, name, namespace)
    now = dt.datetime.now(dt.UTC)
    spec = {
        "holderIdentity": _me(),
        "acquireTime": _text(now),
        "renewTime": _text(now),
        "leaseDurationSeconds": seconds,
    }
    meta = {"name": name, "namespace": namespace}
    lease = {"apiVersion": _API, "kind": _KIND, "metadata": meta, "spec": spec}
    try:
        # Of two who come at once, the second may not change what the first has said.
        cluster.apply(lease, manager=f"airlock-{_me()}"[:128])
    except ClusterError as error:
        if error.code != 409:
            raise
        raise InfraError(f"somebody else began to work on {namespace}/{release} just now") from None
    try:
        yield old is not None
    finally:
        _given_back(cluster, name, namespace)


def _given_back(cluster: Cluster, name: str, namespace: str) -> None:
    """The cluster may be gone; the lease ends by itself, and our next run knows its own."""
    patience, cluster.patience = cluster.patience, Patience(5.0)
    try:
        cluster.delete(_API, _KIND, name, namespace)
    except (ClusterError, NotAllowed) as error:
        print(f"airlock: Lease {namespace}/{name} is left over: {error.message}", file=sys.stderr)
    finally:
        cluster.patience = patience


def _me() -> str:
    return f"{socket.gethostname()}/{os.getpid()}/{started_at(os.getpid())}"


def _is_dead(holder: str) -> bool:
    host, _, rest = holder.partition("/")
    pid, _, began = rest.partition("/")
    return host == socket.gethostname() and pid.isdigit() and str(started_at(int(pid))) != began


def _until(lease: Object) -> dt.datetime:
    spec = lease["spec"]
    try:
        since = dt.datetime.fromisoformat(spec["renewTime"].replace("Z", "+00:00"))
        return since + dt.timedelta(seconds=int(spec["leaseDurationSeconds"]))
    except (KeyError, ValueError, TypeError):
        return dt.datetime.min.replace(tzinfo=dt.UTC)


def _text(when: dt.datetime) -> str:
    return when.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
