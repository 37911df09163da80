"""Rehearsing what happens to deployments: doubles of a cluster and a registry, and real Helm.

Each rehearsal shows what a customer sees who deploys as the manuals say, and then what ours makes
of the same.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fixtures
from fixtures.faultproxy import FaultProxy
from fixtures.kubeapi import KubeApi
from fixtures.ociregistry import OciRegistry, packed
from fixtures.pki import Authority
from fixtures.scenarios.clusters import Breaks, ClusterScenario
from fixtures.scenarios.tables import Fault
from harness.errors import AirlockError
from harness.k8s.apply import Order, apply
from harness.k8s.chart import read_chart
from harness.k8s.chartsource import fetch_chart
from harness.k8s.client import Cluster
from harness.k8s.declaration import Declaration, read_declaration
from harness.k8s.helm import Helm, HelmError, Target, find_helm
from harness.k8s.objectnames import breaches, release_name
from harness.k8s.pluginrules import configuration
from harness.k8s.proof import prove
from harness.k8s.references import parse
from harness.k8s.registry import Registry
from harness.k8s.retry import Patience
from harness.k8s.slicing import GPU_RESOURCE, group_from
from harness.k8s.web import Web

CHART = Path(fixtures.__file__).parent / "charts/gpu-operator"
#: A name as tools make them; Helm takes it.
_GENERATED = "mycorp-prod-eks-gpu-operator-chart-7f2a91c3"
_SPACE = "gpu-operator"
_MISPLACED = f"""\
version: v1
sharing:
  resources:
  - name: {GPU_RESOURCE}
    replicas: 4
"""
_QUICK = 20


@dataclass(frozen=True)
class Rehearsed:
    """``seen``: the symptom. ``by``: what named the cause, or dealt with it; empty if nothing."""

    seen: str
    by: str
    told: tuple[str, ...]


def _slicing(helm: Helm, directory: Path) -> Rehearsed:
    """The resources stand beside timeSlicing; what the plugin makes of it is by our reading."""
    del helm
    text = _MISPLACED
    shared = group_from("any", text)
    with _cluster(directory) as (api, cluster, _):
        cards = {GPU_RESOURCE: 1}
        offered = shared.advertised(cards) if shared else cards
        status = {"capacity": {name: str(many) for name, many in offered.items()}}
        node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "gpu-1"}}
        api.put(node | {"status": status})
        live = cluster.get("v1", "Node", "gpu-1") or {}
    seen = "".join(f"{name}: {many}" for name, many in live["status"]["capacity"].items())
    problems = [one for one in configuration(text, "any") if one.severity == "error"]
    named = any("timeSlicing" in one.remedy for one in problems)
    return Rehearsed(seen, "k8s.slicing" if named else "", tuple(str(one) for one in problems))


def rehearse(scenario: ClusterScenario) -> Rehearsed:
    """Play it through. UsageError, InfraError where Helm or a double is missing."""
    with tempfile.TemporaryDirectory(prefix="airlock-k8s-") as directory:
        return _REHEARSALS[scenario.breaks](find_helm(), Path(directory))


def _images(helm: Helm, directory: Path) -> Rehearsed:
    """One value set by hand; the rest is pulled past the company's registry, and refused."""
    text = f'[operator]\nchart = "{CHART}"\n[registry]\nto = "registry.corp.example/proxy"\n'
    wanted, chart = _declared(directory, text), read_chart(CHART)
    by_hand = {"operator": {"repository": "registry.corp.example/proxy/nvidia"}}
    proof = prove(helm.render(CHART, by_hand, _SPACE, _SPACE), chart, wanted)
    refusal = Fault(do="status", code=403)
    with FaultProxy(directory, Authority(directory / "keys"), [refusal]) as proxy:
        web = Web(patience=Patience(0.0), proxy=f"http://127.0.0.1:{proxy.port}")
        seen = Registry(web).has(parse("nvcr.io/nvidia/driver:595.91.07-ubuntu22.04"))
    outside = [line for line in proof.wrong if "is not below" in line]
    told = (f"{len(outside)} of {len(proof.images)} references are not on it, as", *outside[:2])
    return Rehearsed(f"{seen.reference.text}: {seen.why}", "k8s.images" if outside else "", told)


def _source(helm: Helm, directory: Path) -> Rehearsed:
    """503 from the source, then from the API server, in the middle of an installation."""
    with OciRegistry() as registry, _cluster(directory) as (api, cluster, target):
        registry.add_chart("gpu-operator", "v26.7.0", packed(CHART))
        registry.fail("GET", "/charts/", status=503, times=3)
        (directory / "password").write_text(registry.login.partition(":")[2])
        text = f'[operator]\nchart = "gpu-operator"\nrepo = "https://{registry.host}/charts"\n'
        text += 'version = "v26.7.0"\nusername = "robot"\npassword-file = "password"\n'
        wanted = _declared(directory, text)
        ca = registry.ca_file(directory / "ca.pem")
        seen = ""
        try:
            fetch_chart(wanted, Web(ca, Patience(0.0)), directory / "charts")
        except AirlockError as error:
            seen = error.message
        web = Web(ca, Patience(30.0, first=0.05))
        chart = fetch_chart(wanted, web, directory / "charts")
        api.fail("PATCH", "deployments", status=503, times=2)
        order = _order(helm, cluster, target, chart=chart.path)
        outcome = apply(order)
    told = tuple(f"tried again: {text}" for text in web.patience.tried) + tuple(outcome.notes)
    retried = bool(web.patience.tried) and any("tried again" in one for one in outcome.notes)
    return Rehearsed(seen, "k8s.retried" if retried and outcome.revision else "", told)


def _names(helm: Helm, directory: Path) -> Rehearsed:
    """It installs; the end comes when it is removed."""
    with _cluster(directory) as (api, _, target):
        api.put({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": _SPACE}})
        helm.install(target, CHART, _GENERATED, {}, _QUICK)
        seen = ""
        try:
            helm.uninstall(target, _GENERATED, _QUICK)
        except HelmError as error:
            seen = error.message
    found = breaches(helm.render(CHART, {}, _GENERATED, _SPACE))
    ours = release_name(_GENERATED)
    clean = not breaches(helm.render(CHART, {}, ours, _SPACE))
    told = (*(f"{one.object}: {one.where} {one.why}" for one in found), f"ours is {ours}")
    return Rehearsed(seen, "k8s.names" if found and clean else "", told)


def _hook(helm: Helm, directory: Path) -> Rehearsed:
    """Removing hangs in its hook; installing again is refused; ours goes on."""
    with _cluster(directory) as (api, cluster, target):
        apply(_order(helm, cluster, target))
        api.job = lambda _: ""
        seen = ""
        acts: list[Callable[[], None]] = [
            lambda: helm.uninstall(target, _SPACE, 2),
            lambda: helm.install(target, CHART, _SPACE, {}, 2),
        ]
        for act in acts:
            try:
                act()
            except HelmError as error:
                seen += f"{error.message}\n"
        stuck = api.names("jobs.batch")
        outcome = apply(_order(helm, cluster, target, seconds=2))
        gone = bool(stuck) and not api.names("jobs.batch")
    by = "k8s.hook-cleared" if gone and outcome.revision else ""
    return Rehearsed(seen, by, tuple(outcome.notes))


_REHEARSALS: dict[Breaks, Callable[[Helm, Path], Rehearsed]] = {
    "images": _images,
    "source": _source,
    "names": _names,
    "hook": _hook,
    "slicing": _slicing,
}


@contextmanager
def _cluster(directory: Path) -> Iterator[tuple[KubeApi, Cluster, Target]]:
    with KubeApi() as api:
        file = api.kubeconfig(directory / "kubeconfig")
        with Cluster(file, patience=Patience(30.0, first=0.05)) as cluster:
            yield api, cluster, Target(_SPACE, file)


def _order(helm: Helm, cluster: Cluster, target: Target, **more: Any) -> Order:
    rendered = helm.render(CHART, {}, _SPACE, _SPACE)
    patience = Patience(60.0, first=0.05)
    given: dict[str, Any] = {"chart": CHART, "seconds": _QUICK} | more
    name = "gpu-operator-v26.7.0"
    return Order(
        helm, cluster, target, _SPACE, chart_id=name, rendered=rendered, patience=patience, **given
    )


def _declared(directory: Path, text: str) -> Declaration:
    file = directory / "cluster.toml"
    file.write_text(text)
    return read_declaration(file)
