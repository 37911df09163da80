"""Whether a kubeconfig's user may do all that an installation takes, asked before it begins."""

from __future__ import annotations

from typing import Any

from harness.k8s.client import Cluster
from harness.k8s.errors import NotAllowed
from harness.k8s.yamltext import load_all

Object = dict[str, Any]
_VERBS = ("create", "patch")
#: What Helm keeps its record in, and what holds our lock.
_ALWAYS = (("v1", "Secret"), ("coordination.k8s.io/v1", "Lease"))
_DEFINITION = ("apiextensions.k8s.io/v1", "CustomResourceDefinition")
_SHOWN = 6


def must_be_allowed(
    cluster: Cluster, rendered: list[Object], definitions: tuple[str, ...], namespace: str
) -> None:
    """NotAllowed (exit 2) that names what the user may not; nothing was changed then.

    ``definitions``: texts of the chart's CustomResourceDefinitions, whose kinds the cluster may
    not know yet.
    """
    if cluster.allowed("*", "*.*"):
        return
    plurals = _plurals(definitions)
    wanted = {(one["apiVersion"], one["kind"]) for one in rendered} | set(_ALWAYS)
    wanted |= {_DEFINITION} if definitions else set()
    lacking = []
    for version, kind in sorted(wanted):
        resource = cluster.resource(version, kind)
        plural = resource.plural if resource else plurals.get(kind)
        if plural is None:
            continue  # Helm will say that nobody knows this kind.
        group = version.rpartition("/")[0]
        name = f"{plural}.{group}" if group else plural
        space = namespace if resource and resource.namespaced else ""
        lacking += [f"{verb} {name}" for verb in _VERBS if not cluster.allowed(verb, name, space)]
    if lacking:
        more = f" and {len(lacking) - _SHOWN} more" if len(lacking) > _SHOWN else ""
        raise NotAllowed(
            f"{cluster.host}: this user may not {', '.join(lacking[:_SHOWN])}{more}",
            hint="nothing was changed; installing an operator takes the rights of an administrator",
        )


def _plurals(definitions: tuple[str, ...]) -> dict[str, str]:
    names = [
        one["spec"]["names"]
        for text in definitions
        for one in load_all(text, "crds/")
        if isinstance(one, dict) and one.get("kind") == _DEFINITION[1]
    ]
    return {one["kind"]: one["plural"] for one in names}
