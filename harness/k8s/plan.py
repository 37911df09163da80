"""From a declaration to what would go to a cluster, and whether it may."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import UsageError
from harness.k8s.chart import Chart
from harness.k8s.chartsource import fetch_chart, registry_of
from harness.k8s.client import Cluster
from harness.k8s.declaration import Declaration
from harness.k8s.helm import Helm
from harness.k8s.nodes import compare
from harness.k8s.proof import Proof, prove
from harness.k8s.values import Made, leaves, make_values
from harness.k8s.web import Web
from harness.k8s.yamltext import dump, dump_all
from harness.state import cache_dir

Object = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """``made``: values and what lies beside; ``rendered``: the objects; ``proof`` of them."""

    wanted: Declaration
    chart: Chart
    made: Made
    rendered: list[Object]
    proof: Proof
    helm: str

    @property
    def chart_id(self) -> str:
        """As Helm names it in a release."""
        return f"{self.chart.name}-{self.chart.version}"


def make_plan(wanted: Declaration, helm: Helm, *, cluster: Cluster | None, ask: bool) -> Plan:
    """Fetch the chart, make its values, render, prove.

    ``cluster``: who is asked for its version and the API's address; None: nobody. ``ask``: ask the
    registry for every image. UsageError for what cannot be done, with the reason.
    """
    ca = wanted.file(wanted.registry.ca, "registry.ca") if wanted.registry.ca else None
    web = Web(ca)
    chart = fetch_chart(wanted, web, cache_dir("charts"))
    made = make_values(chart, wanted, _service_ip(cluster))
    rendered = helm.render(chart.path, made.values, wanted.release, wanted.operator.namespace)
    if not rendered:
        raise UsageError(f"{chart.path}: nothing was rendered: is it a library chart?")
    version = cluster.version() if cluster else None
    registry = registry_of(wanted, web) if ask else None
    proof = prove(rendered, chart, wanted, registry, version)
    if cluster:
        wrong, unsure = compare(cluster, wanted.nodes.os)
        proof.wrong += wrong
        proof.open += unsure
    return Plan(wanted, chart, made, rendered, proof, helm.version)


def _service_ip(cluster: Cluster | None) -> str:
    service = cluster.get("v1", "Service", "kubernetes", "default") if cluster else None
    return str((service or {}).get("spec", {}).get("clusterIP") or "")


def files(plan: Plan) -> dict[str, str]:
    """What others deploy with (Argo CD, Flux, CDK): the same bytes on every run, no secrets."""
    beside = [one for one in plan.made.objects if one["kind"] != "Secret"]
    texts = sorted({found.reference.text for found in plan.proof.images})
    found = {
        "values.yaml": dump(plan.made.values),
        "manifests.yaml": dump_all(plan.rendered),
        "images.txt": "".join(f"{text}\n" for text in texts),
    }
    return found | ({"beside.yaml": dump_all(beside)} if beside else {})


def write(plan: Plan, directory: Path) -> list[str]:
    """Write the files; names of those that are others than before."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        changed = []
        for name, text in files(plan).items():
            file = directory / name
            if not file.is_file() or file.read_text() != text:
                file.write_text(text)
                changed.append(name)
    except OSError as error:
        raise UsageError(f"--to {directory}: {error}") from error
    return changed


def summary(plan: Plan) -> dict[str, Any]:
    """For programs: everything but secrets."""
    proof = plan.proof
    return {
        "chart": {
            "name": plan.chart.name,
            "version": plan.chart.version,
            "sha256": plan.chart.digest,
        },
        "helm": plan.helm,
        "release": plan.wanted.release,
        "namespace": plan.wanted.operator.namespace,
        "values": plan.made.values,
        "beside": [f"{one['kind']}/{one['metadata']['name']}" for one in plan.made.objects],
        "images": [
            {"image": one.reference.text, "object": one.object, "path": one.path, "form": one.form}
            for one in proof.images
        ],
        "asked": [
            {"image": one.reference.text, "answer": one.answer, "why": one.why}
            for one in proof.asked
        ],
        "notes": plan.made.notes,
        "wrong": proof.wrong,
        "open": proof.open,
    }


def told(plan: Plan) -> list[str]:
    """For people."""
    wanted, proof = plan.wanted, plan.proof
    at = f"{wanted.operator.namespace}/{wanted.release}"
    lines = [f"{plan.chart_id} as {at} ({len(plan.rendered)} objects, Helm {plan.helm})"]
    if wanted.release != wanted.operator.release:
        lines.append(f"release: {wanted.operator.release!r} is too long or no name, so it is this")
    lines.append("values beyond the chart's own:")
    lines += [f"    {path} = {value}" for path, value in leaves(plan.made.values)]
    lines += [f"beside it: {one['kind']} {one['metadata']['name']}" for one in plan.made.objects]
    distinct = {found.reference.text for found in proof.images}
    there = sum(asked.answer == "there" for asked in proof.asked)
    asked = f", {there} of {len(proof.asked)} asked for are there" if proof.asked else ""
    lines.append(f"{len(proof.images)} references to {len(distinct)} images{asked}")
    lines += [f"note: {note}" for note in plan.made.notes]
    lines += [f"open: {line}" for line in proof.open]
    return lines + [f"WRONG: {line}" for line in proof.wrong]
