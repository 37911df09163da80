"""Time-slicing, declared once: how the cards of each group of nodes are shared.

From one declaration come the device plugin's configuration (a ConfigMap with a key for each
group), what the ClusterPolicy must say of it, the label that each node of a group gets, and the
numbers that the nodes must then advertise. Facts: NVIDIA/k8s-device-plugin, ``api/config/v1``
(replicas.go, resources.go, consts.go); NVIDIA/gpu-operator, "Time-Slicing GPUs in Kubernetes".

What slicing does not give is said wherever it is planned: see :data:`NOT_GIVEN`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from harness.catalog import check_keys, line_of
from harness.errors import UsageError
from harness.k8s.objectnames import SUBDOMAIN, is_label_value

#: The label by which a node chooses its key of the ConfigMap.
NODE_LABEL = "nvidia.com/device-plugin.config"
PREFIX = "nvidia.com/"
GPU_RESOURCE = PREFIX + "gpu"
SHARED = ".shared"
#: A fully qualified resource name has no more characters (consts.go, MaxResourceNameLength).
NAME_LENGTH = 63
FEWEST = 2
NOT_GIVEN = (
    "Slices share a card's memory and its faults: one container can take all of the memory, and one"
    " that breaks the card breaks it for all. Two slices are no more compute than one. Metrics of"
    " the card cannot be told apart by container. Where that matters, use MIG."
)
_MIG = re.compile(r"mig-\d+g\.\d+gb(\.[a-z0-9.]+)?")


def resource_name(text: str) -> str:
    """``text`` as the plugin reads it, with its prefix. ValueError: what is wrong with it."""
    name = text if text.startswith(PREFIX) else PREFIX + text
    short = name.removeprefix(PREFIX)
    if len(name) > NAME_LENGTH:
        raise ValueError(f"{name} has {len(name)} characters, more than {NAME_LENGTH}")
    if not SUBDOMAIN.fullmatch(short):
        raise ValueError(f"{text!r} is no name of a resource of the device plugin")
    if short != "gpu" and not _MIG.fullmatch(short):
        raise ValueError(f"{name} cannot be sliced: {PREFIX}gpu and {PREFIX}mig-… can")
    return name


@dataclass(frozen=True)
class Group:
    """Nodes whose cards are shared in one way; ``name`` is the ConfigMap's key and their label.

    ``resources``: name -> slices of each (2 or more). ``rename``: they are advertised as
    ``NAME.shared``, so that no pod gets a slice that asked for a card.
    ``fail_requests_greater_than_one``: a pod that asks for two is refused, since two slices are no
    more than one. ``nodes``: a selector of labels; empty for the group that is the default.
    """

    name: str
    resources: Mapping[str, int]
    rename: bool = False
    fail_requests_greater_than_one: bool = True
    nodes: Mapping[str, str] = field(default_factory=dict)

    def configuration(self) -> dict[str, Any]:
        """What the device plugin reads."""
        rows = [{"name": name, "replicas": many} for name, many in sorted(self.resources.items())]
        return {
            "version": "v1",
            "sharing": {
                "timeSlicing": {
                    "renameByDefault": self.rename,
                    "failRequestsGreaterThanOne": self.fail_requests_greater_than_one,
                    "resources": rows,
                }
            },
        }

    def advertised(self, cards: Mapping[str, int]) -> dict[str, int]:
        """What a node with so many ``cards`` (resource -> count) must offer: resource -> count."""
        found = dict(cards)
        for name, many in self.resources.items():
            count = cards.get(name, 0)
            if self.rename:
                found |= {name: 0, name + SHARED: count * many}
            else:
                found[name] = count * many
        return found

    def labels(self, count: int, product: str) -> dict[str, str]:
        """What feature discovery must say of a node with ``count`` whole cards that are sliced."""
        many = self.resources.get(GPU_RESOURCE)
        if many is None:
            return {}
        shared = "" if self.rename else "-SHARED"
        return {
            PREFIX + "gpu.count": str(count),
            PREFIX + "gpu.replicas": str(many),
            PREFIX + "gpu.sharing-strategy": "time-slicing",
            PREFIX + "gpu.product": product.removesuffix("-SHARED") + shared,
        }


@dataclass(frozen=True)
class Slicing:
    """The declaration of a cluster. ``default`` is the group of nodes that have no label.

    ``default`` may be empty: then nothing is shared on a node until it is labelled.
    """

    groups: tuple[Group, ...]
    default: str = ""
    name: str = "airlock-time-slicing"

    def config_map(self, namespace: str) -> dict[str, Any]:
        """The ConfigMap, which must be in the operator's namespace."""
        data = {
            group.name: yaml.safe_dump(group.configuration(), sort_keys=True)
            for group in sorted(self.groups, key=lambda group: group.name)
        }
        return {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": self.name, "namespace": namespace},
            "data": data,
        }

    def policy(self) -> dict[str, Any]:
        """``spec.devicePlugin.config`` of the ClusterPolicy; also the chart's own value."""
        return {"name": self.name, "default": self.default}

    def group_of(self, labels: Mapping[str, str]) -> Group | None:
        """The group that a node with these labels belongs to, by selector, else the default."""
        for group in self.groups:
            if group.nodes and group.nodes.items() <= labels.items():
                return group
        return next((group for group in self.groups if group.name == self.default), None)

    def node_labels(self, labels: Mapping[str, str]) -> dict[str, str]:
        """The labels that a node with ``labels`` must get from us; {} where the default does."""
        group = self.group_of(labels)
        return {NODE_LABEL: group.name} if group and group.name != self.default else {}


def read_slicing(path: Path, text: str, table: Any) -> Slicing:
    """A declaration from the table ``[slicing]`` of the file ``path``. UsageError with the line."""
    if not isinstance(table, dict):
        raise UsageError(f"{path}:{line_of(text, 'slicing')}: slicing is not a table")
    check_keys(path, text, table, {"name", "default", "group"}, "[slicing]")
    where, rows = str(path), table.get("group", [])
    if not isinstance(rows, list) or not rows:
        raise UsageError(f"{where}: [slicing] has no [[slicing.group]]")
    for number, row in enumerate(rows):
        if not isinstance(row, dict):
            line = line_of(text, "group", "[slicing]")
            raise UsageError(f"{where}:{line}: group = {row!r}", hint="write [[slicing.group]]")
        check_keys(path, text, row, _KEYS, "[[slicing.group]]", number)
    groups = tuple(_group(row, f"{where}: [[slicing.group]] {n}") for n, row in enumerate(rows, 1))
    names = [group.name for group in groups]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"{where}: two groups are called {name}", hint="name each once")
    default = table.get("default", "")
    if default and default not in names:
        hint = f"one of: {', '.join(names)}; or leave it out, and label every node"
        raise UsageError(f"{where}: [slicing] default = {default!r} is no group", hint=hint)
    for group in groups:
        if group.name != default and not group.nodes:
            raise UsageError(
                f"{where}: group {group.name} has no nodes",
                hint="give it nodes = {label = value}, or make it the default",
            )
    return Slicing(groups, default, table.get("name", Slicing.name))


def _group(row: Mapping[str, Any], where: str) -> Group:
    name = row.get("name", "")
    if not isinstance(name, str) or not name or not is_label_value(name):
        raise UsageError(
            f"{where}: name = {name!r} cannot be a label",
            hint="at most 63 letters, digits, - _ or ., the first and last a letter or digit",
        )
    replicas = row.get("replicas")
    if isinstance(replicas, bool) or not isinstance(replicas, int) or replicas < FEWEST:
        raise UsageError(f"{where}: replicas = {replicas!r}", hint=f"a number from {FEWEST} up")
    resources: dict[str, int] = {}
    for each in row.get("resources", [GPU_RESOURCE]):
        try:
            resources[resource_name(str(each))] = replicas
        except ValueError as error:
            raise UsageError(f"{where}: resources: {error}") from None
    if not resources:
        raise UsageError(f"{where}: resources is empty", hint=f'resources = ["{PREFIX}gpu"]')
    flags = {key: row.get(key, default) for key, default in (("rename", False), (_FAIL, True))}
    for key, value in flags.items():
        if not isinstance(value, bool):
            raise UsageError(f"{where}: {key} = {value!r}", hint="true or false")
    nodes = row.get("nodes", {})
    if not isinstance(nodes, dict) or not all(isinstance(v, str) for v in nodes.values()):
        raise UsageError(f"{where}: nodes = {nodes!r}", hint="a table of labels and their values")
    return Group(name, resources, flags["rename"], flags[_FAIL], nodes)


_FAIL = "fail-requests-greater-than-one"
_KEYS = ("name", "resources", "replicas", "rename", _FAIL, "nodes")


def group_from(name: str, text: str) -> Group | None:
    """The group of a configuration that the plugin reads, None where it shares nothing."""
    try:
        sharing = (yaml.safe_load(text) or {})["sharing"]["timeSlicing"]
        resources = {
            resource_name(str(r["name"])): int(r["replicas"]) for r in sharing["resources"]
        }
        fails = sharing.get("failRequestsGreaterThanOne", False)
        return Group(name, resources, bool(sharing.get("renameByDefault", False)), bool(fails))
    except (yaml.YAMLError, KeyError, TypeError, ValueError, AttributeError):
        return None
