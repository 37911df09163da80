"""A release as Helm keeps it in the cluster: read without Helm, and set free where it hangs."""

from __future__ import annotations

import base64
import gzip
import json
from dataclasses import dataclass
from typing import Any

from harness.k8s.client import Cluster, Object
from harness.k8s.errors import ClusterError
from harness.k8s.yamltext import load_all

_TYPE = "helm.sh/release.v1"
PENDING = ("pending-install", "pending-upgrade", "pending-rollback")


@dataclass(frozen=True)
class Revision:
    """One revision of a release. ``status`` is Helm's word; ``document`` the whole of it.

    ``changed``: when Helm wrote it last, in seconds since 1970; 0 if it does not say.
    """

    secret: str
    number: int
    status: str
    document: Object
    changed: float = 0.0

    def age(self, now: float) -> float:
        """Seconds since Helm wrote it last; ``now`` in seconds since 1970."""
        return now - self.changed

    @property
    def chart(self) -> str:
        """``name-version`` of the chart."""
        meta = self.document.get("chart", {}).get("metadata", {})
        return f"{meta.get('name')}-{meta.get('version')}"

    @property
    def values(self) -> Object:
        """What was said beyond the chart's own."""
        found = self.document.get("config")
        return found if isinstance(found, dict) else {}

    @property
    def objects(self) -> list[Object]:
        """What it made, hooks not among it."""
        return [one for one in load_all(self.document.get("manifest", ""), "release") if one]

    @property
    def hooks(self) -> list[Object]:
        """Objects of its hooks."""
        texts = [hook.get("manifest", "") for hook in self.document.get("hooks") or []]
        return [one for text in texts for one in load_all(text, "release's hook") if one]


def revisions(cluster: Cluster, release: str, namespace: str) -> list[Revision]:
    """All that Helm keeps of a release, oldest first; [] where there is none."""
    found = cluster.list("v1", "Secret", namespace, labels=f"owner=helm,name={release}")
    kept = [_revision(one) for one in found if one.get("type") == _TYPE]
    return sorted(kept, key=lambda one: one.number)


def _revision(secret: Object) -> Revision:
    meta = secret["metadata"]
    labels = meta.get("labels", {})
    try:
        packed = base64.b64decode(base64.b64decode(secret["data"]["release"]))
        document: Any = json.loads(gzip.decompress(packed))
    except (KeyError, ValueError, OSError, EOFError) as error:
        raise ClusterError(f"Secret {meta['name']}: is no release of Helm: {error}") from error
    number = int(labels.get("version", 0))
    stamp = str(labels.get("modifiedAt") or labels.get("createdAt") or "")
    changed = float(stamp) if stamp.isdigit() else 0.0
    return Revision(meta["name"], number, labels.get("status", ""), document, changed)


def mark_failed(cluster: Cluster, revision: Revision, namespace: str) -> None:
    """A revision that nobody works on any more is one that failed: Helm can go on from there."""
    document = revision.document
    document.setdefault("info", {})["status"] = "failed"
    document["info"]["description"] = "left over; marked as failed by airlock"
    packed = base64.b64encode(gzip.compress(json.dumps(document).encode(), mtime=0))
    data = {"release": base64.b64encode(packed).decode()}
    change = {"metadata": {"labels": {"status": "failed"}}, "data": data}
    cluster.merge("v1", "Secret", revision.secret, change, namespace)


def forget(cluster: Cluster, found: list[Revision], namespace: str) -> None:
    """Take away what Helm keeps of a release."""
    for one in found:
        cluster.delete("v1", "Secret", one.secret, namespace)
