"""What has to be true of rendered objects before they go to a cluster, and whether it is."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from harness.k8s.chart import Chart
from harness.k8s.constraint import admits
from harness.k8s.declaration import Declaration
from harness.k8s.drivers import driver_tag_suffix
from harness.k8s.inventory import Found, inventory
from harness.k8s.objectnames import breaches
from harness.k8s.references import Reference, parse
from harness.k8s.registry import Asked, Registry

Object = dict[str, Any]


@dataclass
class Proof:
    """``wrong``: what must be mended first. ``open``: what could not be told. ``images``: all."""

    wrong: list[str] = field(default_factory=list)
    open: list[str] = field(default_factory=list)
    images: list[Found] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)


def prove(
    objects: list[Object],
    chart: Chart,
    wanted: Declaration,
    registry: Registry | None = None,
    cluster_version: tuple[int, int] | None = None,
) -> Proof:
    """Images on allowed registries and there, pull secrets, names, and the cluster's version.

    Without ``registry`` no registry is asked; without ``cluster_version`` that is left open.
    """
    proof = Proof(images=inventory(objects))
    proof.wrong += _where(proof.images, wanted)
    proof.wrong += [f"{one.object}: {one.where} {one.why}" for one in breaches(objects)]
    if wanted.registry.pull_secrets:
        proof.wrong += _without_secret(objects, set(wanted.registry.pull_secrets))
    _versions(chart, cluster_version, proof)
    if registry:
        _ask(proof, registry, wanted, objects)
    return proof


def _where(images: Iterable[Found], wanted: Declaration) -> list[str]:
    wrong = []
    allowed = [one for one in (wanted.registry.to, *wanted.registry.map.values()) if one]
    for found in images:
        text, at = found.reference.text, f"{found.object} at {found.path}"
        if found.reference.wrong:
            wrong.append(f"{text} ({at}): {found.reference.wrong}")
        elif allowed and not any(text.startswith(f"{place}/") for place in allowed):
            wrong.append(f"{text} ({at}): is not below {' or '.join(sorted(set(allowed)))}")
    return wrong


def _without_secret(objects: Iterable[Object], names: set[str]) -> list[str]:
    """Pods, and parts of custom resources with an image, that lack one of the pull secrets."""
    wrong = []
    for item in objects:
        label = f"{item['kind']}/{item['metadata'].get('name')}"
        for path, part in _pullers(item, ""):
            given = part.get("imagePullSecrets") or []
            have = {one.get("name") if isinstance(one, dict) else one for one in given}
            if lacks := names - have:
                wrong.append(f"{label} at {path}: lacks the pull secret {', '.join(sorted(lacks))}")
    return wrong


def _pullers(value: Any, path: str) -> Iterable[tuple[str, Object]]:
    if isinstance(value, dict):
        part = "repository" in value and value.get("image") and "imagePullSecrets" in value
        if part or isinstance(value.get("containers"), list):
            yield path, value
        for key, inner in value.items():
            yield from _pullers(inner, f"{path}.{key}")
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _pullers(inner, f"{path}[{number}]")


def _versions(chart: Chart, version: tuple[int, int] | None, proof: Proof) -> None:
    for name, constraint in chart.kube_versions.items():
        if version is None:
            proof.open.append(f"{name} is for Kubernetes {constraint}; no cluster was asked")
            continue
        try:
            fine = admits(constraint, (*version, 0))
        except ValueError as error:
            proof.wrong.append(f"{name}: kubeVersion = {constraint!r}: {error}")
            continue
        if not fine:
            major, minor = version
            proof.wrong.append(f"{name} is for Kubernetes {constraint}; it is {major}.{minor}")


def _ask(proof: Proof, registry: Registry, wanted: Declaration, objects: list[Object]) -> None:
    """Every image once; those of parts that are switched off are not pulled, so not asked for."""
    off = _switched_off(objects)
    wants: dict[str, Reference] = {}
    for found in proof.images:
        if not found.reference.wrong and (found.object, found.path) not in off:
            reference = _at_run_time(found, wanted)
            wants[reference.text] = reference
    proof.asked = registry.have(wants.values())
    for asked in proof.asked:
        line = f"{asked.reference.text}: {asked.why}"
        if asked.answer in ("missing", "refused"):
            proof.wrong.append(line)
        elif asked.answer == "unknown":
            proof.open.append(line)


def _at_run_time(found: Found, wanted: Declaration) -> Reference:
    """The operator puts the nodes' system behind the driver's tag; no rendering shows that."""
    of_driver = found.form == "parts" and found.path in (".spec.driver", ".spec.vgpuManager")
    suffix = driver_tag_suffix(wanted.nodes.os)
    if not of_driver or found.reference.digest or not suffix:
        return found.reference
    return parse(found.reference.text + suffix)


def _switched_off(objects: Iterable[Object]) -> set[tuple[str, str]]:
    found: set[tuple[str, str]] = set()
    for item in objects:
        label = f"{item['kind']}/{item['metadata'].get('name')}"
        found |= {(label, path) for path in _off(item, "", False)}
    return found


def _off(value: Any, path: str, inherited: bool) -> Iterable[str]:
    if isinstance(value, dict):
        off = inherited or value.get("enabled") is False
        if off:
            yield path
        for key, inner in value.items():
            yield from _off(inner, f"{path}.{key}", off)
