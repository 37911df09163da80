"""Cards shared by time: what was declared is what the nodes offer.

A slice is no wall: it gives neither memory nor faults of its own (see harness.k8s.slicing).
"""

from __future__ import annotations

from typing import Any

from harness.checks import check, fact, fail, not_verified, slicing
from harness.k8s import pluginrules
from harness.k8s.slicing import GPU_RESOURCE, NODE_LABEL, PREFIX, SHARED, Group, group_from
from harness.node import Node

COUNT = PREFIX + "gpu.count"


def groups(node: Node) -> dict[str, tuple[dict[str, Any], Group | None]]:
    """GPU node -> what is known of it, and the group that its configuration is for."""
    found = {}
    for name, one in fact(node, "cluster.nodes").items():
        key = _key(node, one["labels"])
        text = _data(node).get(key) if key else None
        found[name] = (one, group_from(key, text) if key and text else None)
    if not found:
        not_verified("no node has an NVIDIA card")
    return found


def _config(node: Node) -> dict[str, str]:
    policies = fact(node, "cluster.policies")
    plugin = (policies[0]["spec"].get("devicePlugin") if policies else None) or {}
    found: dict[str, str] = plugin.get("config") or {}
    return found


def _data(node: Node) -> dict[str, str]:
    maps = fact(node, "cluster.config_maps")
    found: dict[str, str] = maps.get(_config(node).get("name"), {}).get("data", {})
    return found


def _key(node: Node, labels: dict[str, str]) -> str:
    return labels.get(NODE_LABEL) or _config(node).get("default", "")


@check(
    id="kubernetes.slicing-configuration",
    severity="blocker",
    title="The device plugin reads the whole of its configuration",
    remedy="airlock k8s lint cluster shows each line, and where what is ignored belongs.",
    requires=slicing,
    source="NVIDIA/k8s-device-plugin, api/config/v1; its issues 615 and 1433",
)
def test_slicing_configuration(node: Node) -> None:
    """What it does not know it drops without a word; then nothing is shared."""
    problems = [
        problem
        for key, text in _data(node).items()
        for problem in pluginrules.configuration(text, f"data.{key}")
        if problem.severity == "error"
    ]
    if problems:
        fail(str(problems[0]), problems)


@check(
    id="kubernetes.slicing-references",
    severity="blocker",
    title="Policy, configuration and the nodes' labels name each other",
    remedy="airlock k8s lint cluster names what is not there; kubectl label node NAME "
    "nvidia.com/device-plugin.config=KEY.",
    requires=slicing,
    source="NVIDIA/gpu-operator, Time-Slicing GPUs in Kubernetes",
)
def test_slicing_references(node: Node) -> None:
    """Neither the API server nor the operator looks whether a name leads anywhere."""
    policies = fact(node, "cluster.policies")
    labels = {name: one["labels"] for name, one in fact(node, "cluster.nodes").items()}
    maps = fact(node, "cluster.config_maps")
    found = pluginrules.references(policies[0] if policies else None, maps, labels)
    errors = [problem for problem in found if problem.severity == "error"]
    if errors:
        fail(str(errors[0]), errors)


@check(
    id="kubernetes.slicing-declared",
    severity="blocker",
    title="The cluster shares its cards as it was declared",
    remedy="Run airlock k8s apply DECLARATION.",
    requires=slicing,
    source="what somebody changed by hand is gone with the next apply",
)
def test_slicing_declared(node: Node) -> None:
    """Every group's configuration is the declared one; so are the default and the labels."""
    declared = node.expect.get("slicing")
    if not declared:
        return
    config, data = _config(node), _data(node)
    wrong = [
        f"{key} is {config.get(key)!r}, and {declared[key]!r} was declared"
        for key in ("name", "default")
        if config.get(key, "") != declared[key]
    ]
    for key, text in sorted(declared["data"].items()):
        there = group_from(key, data[key]) if key in data else None
        if there != group_from(key, text):
            wrong.append(f"{key}: {'is not there' if key not in data else 'is another one'}")
    for name, one in sorted(fact(node, "cluster.nodes").items()):
        should = declared["nodes"].get(name, {})
        wrong += [
            f"{name}: label {label} is {one['labels'].get(label)!r}, not {value!r}"
            for label, value in should.items()
            if one["labels"].get(label) != value
        ]
    if wrong:
        fail(wrong[0], wrong)


@check(
    id="kubernetes.slicing-capacity",
    severity="blocker",
    title="Every node offers its cards times the slices of its group",
    remedy="The operator does not watch the ConfigMap: kubectl -n gpu-operator rollout restart "
    "ds/nvidia-device-plugin-daemonset; then look at the plugin's log.",
    requires=slicing,
    depends=("kubernetes.slicing-configuration", "kubernetes.slicing-references"),
    source="NVIDIA/k8s-device-plugin, README, With CUDA Time-Slicing",
)
def test_slicing_capacity(node: Node) -> None:
    """Renamed, the cards themselves are offered no more."""
    wrong = []
    for name, (one, group) in sorted(groups(node).items()):
        if group is None or GPU_RESOURCE not in group.resources:
            continue
        if COUNT not in one["labels"]:
            not_verified(f"{name} does not say how many cards it has (label {COUNT})")
        should = group.advertised({GPU_RESOURCE: int(one["labels"][COUNT])})
        for resource in (GPU_RESOURCE, GPU_RESOURCE + SHARED):
            there, many = one["capacity"].get(resource, 0), should.get(resource, 0)
            if there != many:
                wrong.append(f"{name}: {resource} is {there}, not {many}")
    if wrong:
        fail(wrong[0], wrong)


@check(
    id="kubernetes.slicing-labels",
    severity="major",
    title="Labels say that a card is shared, and in how many slices",
    remedy="Run kubectl -n gpu-operator rollout restart ds/gpu-feature-discovery.",
    requires=slicing,
    depends=(
        "kubernetes.slicing-configuration",
        "kubernetes.slicing-references",
        "kubernetes.labels",
    ),
    source="NVIDIA/k8s-device-plugin, docs/gpu-feature-discovery, With CUDA Time-Slicing",
)
def test_slicing_labels(node: Node) -> None:
    """Whoever needs a whole card chooses by them."""
    wrong = []
    for name, (one, group) in sorted(groups(node).items()):
        labels = one["labels"]
        if group is None or COUNT not in labels:
            continue
        product = labels.get(PREFIX + "gpu.product", "")
        for label, value in group.labels(int(labels[COUNT]), product).items():
            if labels.get(label) != value:
                wrong.append(f"{name}: {label} is {labels.get(label)!r}, not {value!r}")
    if wrong:
        fail(wrong[0], wrong)


@check(
    id="kubernetes.slicing-equal",
    severity="major",
    title="All nodes of a group offer the same",
    remedy="Compare the nodes' pods of the device plugin: one of them read an older configuration.",
    requires=slicing,
    depends=("kubernetes.slicing-capacity",),
    source="a pool whose nodes differ places pods by chance",
)
def test_slicing_equal(node: Node) -> None:
    """Nodes of one group with as many cards of one product."""
    kinds: dict[tuple[str, str, str], dict[str, str]] = {}
    for name, one in sorted(fact(node, "cluster.nodes").items()):
        labels = one["labels"]
        product = labels.get(PREFIX + "gpu.product", "").removesuffix("-SHARED")
        pool = (_key(node, labels), product, labels.get(COUNT, ""))
        kinds.setdefault(pool, {})[name] = ", ".join(
            f"{resource}={many}" for resource, many in sorted(one["capacity"].items())
        )
    for (key, product, _), offers in sorted(kinds.items()):
        if len(set(offers.values())) > 1:
            lines = [f"{name}: {offer}" for name, offer in offers.items()]
            fail(f"nodes of {key or 'no group'} with {product} differ: {lines[0]}", lines)


@check(
    id="kubernetes.slicing-fresh",
    severity="blocker",
    title="Every device plugin was started after its configuration had last changed",
    remedy="Run kubectl -n gpu-operator rollout restart ds/nvidia-device-plugin-daemonset.",
    requires=slicing,
    source="NVIDIA/gpu-operator, Time-Slicing GPUs in Kubernetes, Updating Configuration",
)
def test_slicing_fresh(node: Node) -> None:
    """The operator does not watch the ConfigMap."""
    name = _config(node).get("name")
    there = fact(node, "cluster.config_maps").get(name)
    if there is None:
        not_verified(f"there is no ConfigMap {name}")
    plugins = [
        p for p in fact(node, "cluster.pods") if p["app"] == "nvidia-device-plugin-daemonset"
    ]
    if not plugins:
        not_verified("no device plugin runs")
    # Both in the API's form, RFC 3339 in UTC: they compare as text.
    old = [f"{p['name']}: {p['started']}" for p in plugins if str(p["started"]) < there["changed"]]
    if old:
        fail(f"{len(old)} device plugins are older than {name} ({there['changed']})", old)


@check(
    id="kubernetes.slicing-refuses-two",
    severity="major",
    title="A pod that asks for two slices is refused",
    remedy="failRequestsGreaterThanOne: true in every configuration that shares cards.",
    requires=slicing,
    depends=("kubernetes.slicing-configuration",),
    source="NVIDIA/k8s-device-plugin, README: two slices are no more compute than one",
)
def test_slicing_refuses_two(node: Node) -> None:
    """Else its user believes to have two cards."""
    declared = (node.expect.get("slicing") or {}).get("data", {})
    lax = []
    for key, text in sorted(_data(node).items()):
        group = group_from(key, text)
        asked = group_from(key, declared[key]) if key in declared else None
        if (
            group
            and not group.fail_requests_greater_than_one
            and not (asked and not asked.fail_requests_greater_than_one)
        ):
            lax.append(key)
    if lax:
        fail(f"{', '.join(lax)} lets a pod have several slices", lax)
