"""Whether what is on a cluster is what was rendered."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from harness.k8s.client import Cluster

Object = dict[str, Any]


def absent_or_other(cluster: Cluster, wanted: Iterable[Object], namespace: str) -> list[str]:
    """One line for each object that is not there, or not as rendered; with the first difference."""
    found = []
    for item in wanted:
        meta = item["metadata"]
        space = meta.get("namespace") or namespace
        live = cluster.get(item["apiVersion"], item["kind"], meta["name"], space)
        label = f"{item['kind']}/{meta['name']}"
        if live is None:
            found.append(f"{label} is not there")
        elif where := _differs(item, live, ""):
            found.append(f"{label}{where} is not as rendered")
    return found


def _differs(wanted: Any, live: Any, path: str) -> str:
    """Where ``live`` lacks something of ``wanted``; empty if nowhere.

    Fields that the server adds are no difference, nor are quantities it writes otherwise, nor what
    is empty and was left away.
    """
    if path.endswith((".resources", ".apiVersion")) or wanted in (None, {}, []):
        return ""
    if isinstance(wanted, dict):
        if not isinstance(live, dict):
            return path
        parts = (_differs(value, live.get(key), f"{path}.{key}") for key, value in wanted.items())
        return next((part for part in parts if part), "")
    if isinstance(wanted, list):
        if not isinstance(live, list) or len(live) != len(wanted):
            return path
        pairs = zip(wanted, live, strict=True)
        found = (_differs(one, two, f"{path}[{n}]") for n, (one, two) in enumerate(pairs))
        return next((part for part in found if part), "")
    if wanted == live or (wanted == "" and live is None) or str(wanted) == str(live):
        return ""
    return path
