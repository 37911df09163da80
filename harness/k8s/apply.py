"""Bringing a release to what was declared, and taking it away: repeatable, resumable, by Helm.

What Helm leaves half done (a revision that is pending, a hook's Job that never ended) is put right
where it is; nothing that runs is taken down to begin again.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.errors import AirlockError, InfraError
from harness.k8s.client import Cluster
from harness.k8s.errors import ClusterError, NotAllowed
from harness.k8s.evidence import collect
from harness.k8s.helm import Helm, HelmError, Target, hooks_of
from harness.k8s.lease import held
from harness.k8s.live import absent_or_other
from harness.k8s.release import PENDING, Revision, forget, mark_failed, revisions
from harness.k8s.retry import Patience
from harness.k8s.rollout import roll_out, take_back
from harness.k8s.slicing import Slicing
from harness.k8s.yamltext import load_all

Object = dict[str, Any]
MADE_BY = "airlock.dev/release"
_HELMS = "meta.helm.sh/release-name"
#: What every namespace has, or gets by itself.
_NOT_OURS = {"kube-root-ca.crt", "openshift-service-ca.crt"}
_LEASE_SLACK = 120
#: Seconds between two looks at what is going away.
_LOOK = 0.2


@dataclass
class Order:
    """One release on one cluster. ``seconds``: how long Helm may take, hooks with it.

    ``beside``: objects that must be there before (pull secrets, CAs). ``evidence``: where events
    and logs go when something fails. ``slicing``: how cards are shared, rolled out at the end.
    """

    helm: Helm
    cluster: Cluster
    target: Target
    release: str
    seconds: int = 300
    chart: Path | None = None
    chart_id: str = ""
    values: Object = field(default_factory=dict)
    rendered: list[Object] = field(default_factory=list)
    beside: list[Object] = field(default_factory=list)
    evidence: Path | None = None
    patience: Patience = field(default_factory=lambda: Patience(600.0))
    take_over: bool = False
    slicing: Slicing | None = None


@dataclass
class Outcome:
    """``changed``: whether anything was. ``notes``: what was put right, and what was left."""

    changed: bool
    revision: int = 0
    notes: list[str] = field(default_factory=list)


def apply(order: Order) -> Outcome:
    """Install or upgrade; nothing if all is as declared. HelmError, ClusterError, NotAllowed."""
    assert order.chart is not None, "an apply needs a chart"
    outcome = Outcome(_namespace(order))
    with _alone(order) as was_ours:
        found = revisions(order.cluster, order.release, order.target.namespace)
        _no_other_works(order, found, was_ours)
        for item in order.beside:
            outcome.changed |= _put(order, item)
        if _is_done(order, found):
            outcome.revision = found[-1].number
            _roll_out(order, outcome)
            return outcome
        outcome.changed = True
        for attempt in order.patience.attempts():
            try:
                found = _settled(order, outcome)
                verb = order.helm.upgrade if found else order.helm.install
                verb(order.target, order.chart, order.release, order.values, order.seconds)
                outcome.revision = _deployed(order)
                break
            except (HelmError, ClusterError) as error:
                _after_failure(order, outcome)
                attempt.failed(error, retry=_passes(error))
                outcome.notes.append(f"tried again: {error.message}")
        _roll_out(order, outcome)
    return outcome


def _roll_out(order: Order, outcome: Outcome) -> None:
    done = roll_out(order.cluster, order.target.namespace, order.slicing) if order.slicing else []
    outcome.changed |= bool(done)
    outcome.notes += done


def remove(order: Order, *, definitions: bool = False) -> Outcome:
    """Take away the release, what lies beside it, and the namespace if we made it.

    ``definitions``: the chart's CustomResourceDefinitions too, and so every object of their kinds.
    """
    outcome = Outcome(False)
    namespace = order.target.namespace
    if order.cluster.get("v1", "Namespace", namespace) is None:
        return outcome
    with _alone(order):
        found = revisions(order.cluster, order.release, namespace)
        if found:
            outcome.changed = True
            _uninstall(order, outcome)
            _definitions(order, found[-1], outcome, definitions)
        for kind in ("Secret", "ConfigMap"):
            for item in order.cluster.list(
                "v1", kind, namespace, labels=f"{MADE_BY}={order.release}"
            ):
                order.cluster.delete("v1", kind, item["metadata"]["name"], namespace)
                outcome.changed = True
    _remove_namespace(order, outcome)
    labels = take_back(order.cluster)
    outcome.changed |= bool(labels)
    outcome.notes += labels
    return outcome


def _alone(order: Order) -> Any:
    seconds = int(order.seconds + order.patience.seconds) + _LEASE_SLACK
    return held(
        order.cluster, order.release, order.target.namespace, seconds, take_over=order.take_over
    )


def _namespace(order: Order) -> bool:
    """Make it if it is not there, with a word on who did; true if it was made.

    One that is being deleted takes nothing new, and an API server answers that with 403.
    """
    name = order.target.namespace
    live = order.cluster.get("v1", "Namespace", name)
    if live is not None and (live.get("status") or {}).get("phase") != "Terminating":
        return False
    if live is not None and not _gone(order):
        raise InfraError(
            f"namespace {name} is being deleted, and still is after {order.seconds} s",
            hint=f"kubectl get namespace {name} -o yaml: its conditions say what holds it",
        )
    meta = {"name": name, "labels": {MADE_BY: order.release}}
    order.cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": meta})
    return True


def _put(order: Order, item: Object) -> bool:
    """An object beside the release; true if it was another before."""
    meta = item["metadata"]
    labelled = item | {"metadata": meta | {"labels": {MADE_BY: order.release}}}
    at = (item["apiVersion"], item["kind"], meta["name"], meta["namespace"])
    old = order.cluster.get(*at)
    if old is not None and MADE_BY not in (old["metadata"].get("labels") or {}):
        raise InfraError(
            f"{item['kind']} {meta['namespace']}/{meta['name']} is there, and not ours",
            hint="take it away, or give ours another name",
        )
    new = order.cluster.apply(labelled)
    version = "resourceVersion"
    return old is None or old["metadata"][version] != new["metadata"][version]


def _is_done(order: Order, found: list[Revision]) -> bool:
    """Whether the last revision is this chart with these values, and all of it is there."""
    if not found or found[-1].status != "deployed":
        return False
    last, wanted = found[-1], [one for one in order.rendered if not hooks_of(one)]
    same = last.chart == order.chart_id and last.values == order.values
    return same and not absent_or_other(order.cluster, wanted, order.target.namespace)


def _no_other_works(order: Order, found: list[Revision], was_ours: bool) -> None:
    """A revision that is pending may be one that somebody's Helm is at right now."""
    if was_ours or order.take_over or not found or found[-1].status not in PENDING:
        return
    age = found[-1].age(time.time())
    if age < order.seconds:
        raise InfraError(
            f"revision {found[-1].number} of {order.release} is {found[-1].status} since {age:.0f} "
            "s, and not by us: somebody's Helm may be at it",
            hint=f"wait {order.seconds - age:.0f} s; if it is gone for sure, say --take-over",
        )


def _settled(order: Order, outcome: Outcome) -> list[Revision]:
    """The revisions, after what an earlier run left half done was put right."""
    found = revisions(order.cluster, order.release, order.target.namespace)
    if found and found[-1].status in PENDING:
        mark_failed(order.cluster, found[-1], order.target.namespace)
        text = f"revision {found[-1].number} was {found[-1].status}: nobody works on it, marked"
        outcome.notes.append(f"{text} as failed")
    if found and found[-1].status == "uninstalling":
        _uninstall(order, outcome)
        found = []
    _clear_hooks(order, found, outcome)
    return found


def _deployed(order: Order) -> int:
    """The number of the revision that is there now. Helm may have lost the answer to its word."""
    found = revisions(order.cluster, order.release, order.target.namespace)
    if not found or found[-1].status != "deployed":
        status = found[-1].status if found else "not there"
        raise HelmError(f"the revision is {status}: its record timed out")
    return found[-1].number


def _passes(error: AirlockError) -> bool:
    return error.passing if isinstance(error, HelmError) else False


def _after_failure(order: Order, outcome: Outcome) -> None:
    """Keep what tells why, then take the failed hook away. The cluster may be gone: no errors."""
    with suppress(ClusterError, NotAllowed):
        if order.evidence:
            collect(order.cluster, order.target.namespace, order.evidence)
        found = revisions(order.cluster, order.release, order.target.namespace)
        _clear_hooks(order, found, outcome)


def _clear_hooks(order: Order, found: list[Revision], outcome: Outcome) -> None:
    """Delete Jobs and Pods of hooks that did not end well; each would be in the next one's way."""
    known = [one for one in order.rendered if hooks_of(one)]
    known += [hook for one in found[-1:] for hook in one.hooks]
    seen: set[tuple[str, str]] = set()
    for hook in known:
        meta = hook["metadata"]
        if hook["kind"] not in ("Job", "Pod") or (hook["kind"], meta["name"]) in seen:
            continue
        seen.add((hook["kind"], meta["name"]))
        at = (hook["apiVersion"], hook["kind"], meta["name"])
        space = meta.get("namespace") or order.target.namespace
        live = order.cluster.get(*at, space)
        if live is None or not hooks_of(live) or _ended_well(live):
            continue
        order.cluster.delete(*at, space)
        outcome.notes.append(f"hook {hook['kind']} {meta['name']} was left over: deleted")


def _ended_well(item: Object) -> bool:
    status = item.get("status") or {}
    if item["kind"] == "Pod":
        return bool(status.get("phase") == "Succeeded")
    conditions = status.get("conditions") or []
    return any(one["type"] == "Complete" and one["status"] == "True" for one in conditions)


def _uninstall(order: Order, outcome: Outcome) -> None:
    """By Helm; where a hook of its own stops it, without that hook."""
    namespace = order.target.namespace
    for attempt in order.patience.attempts():
        found = revisions(order.cluster, order.release, namespace)
        try:
            _clear_hooks(order, found, outcome)
            order.helm.uninstall(order.target, order.release, order.seconds)
            break
        except HelmError as error:
            _after_failure(order, outcome)
            still = revisions(order.cluster, order.release, namespace)
            if error.passing:
                attempt.failed(error, retry=True)
                continue
            _by_hand(order, still or found)
            outcome.notes.append(f"removed without its hooks: {error.message}")
            break
    left = revisions(order.cluster, order.release, namespace)
    _clear_hooks(order, found, outcome)
    forget(order.cluster, left, namespace)


def _by_hand(order: Order, found: list[Revision]) -> None:
    """Delete what the last revision made and still says so, the last first."""
    for item in reversed(found[-1].objects if found else []):
        meta = item["metadata"]
        space = meta.get("namespace") or order.target.namespace
        at = (item["apiVersion"], item["kind"], meta["name"])
        live = order.cluster.get(*at, space)
        notes = (live or {}).get("metadata", {}).get("annotations") or {}
        if notes.get(_HELMS) == order.release:
            order.cluster.delete(*at, space)


def _definitions(order: Order, last: Revision, outcome: Outcome, wanted: bool) -> None:
    names = sorted(_definition_names(last.document))
    if not wanted and names:
        kept = ", ".join(names)
        outcome.notes.append(f"kept, with all objects of their kinds: {kept} (--definitions)")
        return
    for name in names:
        order.cluster.delete("apiextensions.k8s.io/v1", "CustomResourceDefinition", name)


def _definition_names(document: Object) -> Iterable[str]:
    """Of the chart's own ``crds/``, as Helm keeps it. Those of sub-charts are not in there."""
    for file in document.get("chart", {}).get("files") or []:
        if str(file.get("name", "")).startswith("crds/"):
            text = base64.b64decode(file.get("data") or "").decode(errors="replace")
            for item in load_all(text, str(file["name"])):
                yield item["metadata"]["name"]


def _remove_namespace(order: Order, outcome: Outcome) -> None:
    """Only one that we made, and only with nothing of others in it."""
    name = order.target.namespace
    live = order.cluster.get("v1", "Namespace", name)
    if live is None or (live["metadata"].get("labels") or {}).get(MADE_BY) != order.release:
        return
    others = [
        f"{kind} {item['metadata']['name']}"
        for kind in ("ConfigMap", "Secret", "Pod", "Service")
        for item in order.cluster.list("v1", kind, name)
        if item["metadata"]["name"] not in _NOT_OURS
        and item.get("type") != "kubernetes.io/service-account-token"
        and not item["metadata"].get("ownerReferences")
    ]
    if others:
        outcome.notes.append(f"namespace {name} is kept: it has {', '.join(others[:3])}")
        return
    order.cluster.delete("v1", "Namespace", name)
    outcome.changed = True
    if not _gone(order):
        outcome.notes.append(f"namespace {name} is still being deleted after {order.seconds} s")


def _gone(order: Order) -> bool:
    """Wait for the namespace, which is being deleted; whether it went in the time of the order."""
    end = time.monotonic() + order.seconds
    while order.cluster.get("v1", "Namespace", order.target.namespace) is not None:
        if time.monotonic() > end:
            return False
        time.sleep(_LOOK)
    return True
