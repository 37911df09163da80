"""What the device plugin will make of a configuration that somebody wrote, before it is rolled out.

The plugin's own reader is not strict: a key that it does not know, or that stands in another place,
is dropped without a word, and nothing is shared. So what it ignores is an error here. Facts:
NVIDIA/k8s-device-plugin, ``api/config/v1`` (config.go, flags.go, replicas.go, sharing.go), and its
issues 615, 990 and 1433.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import yaml

from harness.k8s.objectnames import is_label_value
from harness.k8s.slicing import FEWEST, NODE_LABEL, PREFIX, SHARED, resource_name
from harness.names import nearest

_UUID = r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"
_DEVICE = re.compile(rf"\d+|\d+:\d+|GPU-{_UUID}|MIG-{_UUID}|MIG-GPU-{_UUID}/\d+/\d+")

Kind = type[bool] | type[int] | type[str] | type[list]  # type: ignore[type-arg]
_REPLICATED: Mapping[str, Any] = {
    "renameByDefault": bool,
    "failRequestsGreaterThanOne": bool,
    "resources": list,
}
#: Every key that the plugin and its feature discovery read, and what it holds (a tuple: one of).
KNOWN: Mapping[str, Any] = {
    "version": ("v1",),
    "flags": {
        "migStrategy": ("none", "single", "mixed"),
        "failOnInitError": bool,
        "restartOnDeviceUnhealthy": bool,
        "mpsRoot": str,
        "nvidiaDriverRoot": str,
        "nvidiaDevRoot": str,
        "gdrcopyEnabled": bool,
        "gdsEnabled": bool,
        "mofedEnabled": bool,
        "useNodeFeatureAPI": bool,
        "deviceDiscoveryStrategy": ("auto", "nvml", "tegra"),
        "plugin": {
            "passDeviceSpecs": bool,
            "deviceListStrategy": (
                "envvar",
                "volume-mounts",
                "cdi-annotations",
                "cdi-cri",
            ),
            "deviceIDStrategy": ("uuid", "index"),
            "cdiAnnotationPrefix": str,
            "nvidiaCTKPath": str,
            "containerDriverRoot": str,
            "sharedDevicesAllocationPolicy": ("distributed", "packed"),
        },
        "gfd": {
            "oneshot": bool,
            "noTimestamp": bool,
            "sleepInterval": str,
            "outputFile": str,
            "machineTypeFile": str,
        },
    },
    "resources": {"gpus": list, "mig": list},
    "sharing": {"timeSlicing": _REPLICATED, "mps": _REPLICATED},
    "imex": {"channelIDs": list, "required": bool},
}
_ROW = ("name", "devices", "replicas", "rename")


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong. ``where`` is a path into the object; ``line`` counts from 1.

    An ``error`` does not do what it says; a ``warning`` does, and probably not what was meant.
    """

    where: str
    what: str
    remedy: str
    severity: Literal["error", "warning"] = "error"
    line: int = 0

    def __str__(self) -> str:
        line = f"line {self.line}: " if self.line else ""
        return f"{self.severity}: {self.where}: {line}{self.what}; {self.remedy}"


def configuration(text: str, where: str) -> list[Problem]:
    """What is wrong with one configuration, the value of one key of the ConfigMap."""
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except (yaml.YAMLError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        said = getattr(error, "problem", None) or str(error)
        line = mark.line + 1 if mark else 0
        return [
            Problem(where, f"is no YAML: {said}", "the plugin does not start with it", line=line)
        ]
    if not isinstance(node, yaml.MappingNode):
        return [Problem(where, "holds no settings", "it needs version and sharing")]
    found = [*_walk(node, KNOWN, where), *_sharing(node, where)]
    return sorted(found, key=lambda problem: (problem.line, problem.where))


def _pairs(node: Any) -> dict[str, tuple[Any, Any]]:
    """Key -> (its node, its value's node); the last of several, as the plugin's reader does it."""
    if not isinstance(node, yaml.MappingNode):
        return {}
    return {str(key.value): (key, value) for key, value in node.value}


def _line(node: Any) -> int:
    return int(node.start_mark.line) + 1


def _plain(node: Any) -> Any:
    """The value of a node. What cannot be built is its text."""
    try:
        loader = yaml.SafeLoader("")
        return loader.construct_object(node, deep=True)
    except yaml.YAMLError:
        return str(node.value)


def _walk(node: Any, known: Mapping[str, Any], where: str) -> Iterator[Problem]:
    seen: set[str] = set()
    for key, value in node.value:
        name = str(key.value)
        path = f"{where}.{name}"
        if name in seen:
            yield Problem(path, "is there twice", "only the last one counts", line=_line(key))
        seen.add(name)
        if name not in known:
            yield Problem(path, "is not read", _way_out(name, known), line=_line(key))
            continue
        yield from _value(value, known[name], path)


def _value(node: Any, wanted: Any, path: str) -> Iterator[Problem]:
    value = _plain(node)
    if isinstance(wanted, Mapping):
        if isinstance(node, yaml.MappingNode):
            yield from _walk(node, wanted, path)
        elif value is not None:
            yield Problem(path, f"is {value!r}", "it must hold settings", line=_line(node))
    elif isinstance(wanted, tuple):
        # deviceListStrategy may be a list of them.
        values = value if isinstance(value, list) else [value]
        for each in values:
            if each not in wanted:
                remedy = f"one of: {', '.join(wanted)}"
                yield Problem(path, f"is {each!r}", remedy, line=_line(node))
    elif not isinstance(value, wanted):
        what = {bool: "true or false", int: "a number", str: "a text", list: "a list"}[wanted]
        yield Problem(path, f"is {value!r}", f"it must be {what}", line=_line(node))


def _way_out(name: str, known: Mapping[str, Any]) -> str:
    """Where a key belongs that stands in the wrong place; else the nearest one here."""
    places = [place for place in _places(KNOWN, "") if place.rpartition(".")[2] == name]
    if places:
        return f"it belongs to {' or '.join(places)}"
    folded = [key for key in known if key.lower() == name.lower()]
    if folded:
        return f"write {folded[0]}"
    return nearest(name, known)


def _places(known: Mapping[str, Any], above: str) -> Iterator[str]:
    for name, inner in known.items():
        path = f"{above}.{name}".lstrip(".")
        yield path
        if isinstance(inner, Mapping):
            yield from _places(inner, path)
    if above.startswith("sharing."):
        yield from (f"{above}.resources[].{name}" for name in _ROW)


def _sharing(node: Any, where: str) -> Iterator[Problem]:
    """What a reader that knows every key does not see: how the settings go together."""
    top = _pairs(node)
    if "resources" in top:
        remedy = "the plugin warns and goes on without it; take it out"
        yield Problem(
            f"{where}.resources", "is ignored", remedy, "warning", _line(top["resources"][0])
        )
    sharing = _pairs(top["sharing"][1]) if "sharing" in top else {}
    if {"timeSlicing", "mps"} <= set(sharing):
        line = _line(sharing["timeSlicing"][0])
        yield Problem(
            f"{where}.sharing", "has timeSlicing and mps: mps wins", "keep one", line=line
        )
    flags = _pairs(top["flags"][1]) if "flags" in top else {}
    if "mps" in sharing and "migStrategy" in flags and _plain(flags["migStrategy"][1]) == "mixed":
        remedy = "the plugin does not start: MPS and mixed MIG exclude each other"
        yield Problem(
            f"{where}.sharing.mps",
            "with migStrategy mixed",
            remedy,
            line=_line(flags["migStrategy"][0]),
        )
    for kind in ("timeSlicing", "mps"):
        if kind in sharing:
            yield from _replicated(sharing[kind], f"{where}.sharing.{kind}")


def _replicated(pair: tuple[Any, Any], where: str) -> Iterator[Problem]:
    key, node = pair
    table = _pairs(node)
    rows = table["resources"][1] if "resources" in table else None
    if not isinstance(rows, yaml.SequenceNode) or not rows.value:
        remedy = "the plugin does not start: name resources and replicas, or take it out"
        yield Problem(f"{where}.resources", "is missing or empty", remedy, line=_line(key))
        return
    if where.endswith("timeSlicing") and "failRequestsGreaterThanOne" not in table:
        yield Problem(
            f"{where}.failRequestsGreaterThanOne",
            "is not set: a pod that asks for two gets two slices, maybe of one card",
            "set it to true",
            "warning",
            _line(key),
        )
    seen: set[str] = set()
    for number, row in enumerate(rows.value):
        yield from _row(row, f"{where}.resources[{number}]", seen)


def _row(node: Any, where: str, seen: set[str]) -> Iterator[Problem]:
    table = _pairs(node)
    line = _line(node)
    for name, (key, _) in table.items():
        if name not in _ROW:
            remedy = _way_out(name, dict.fromkeys(_ROW))
            yield Problem(f"{where}.{name}", "is not read", remedy, line=_line(key))
    if "name" not in table:
        yield Problem(where, "has no name", f"name: {PREFIX}gpu", line=line)
    else:
        try:
            name = resource_name(str(_plain(table["name"][1])))
            if name in seen:
                yield Problem(f"{where}.name", f"{name} is there twice", "keep one", line=line)
            seen.add(name)
        except ValueError as error:
            remedy = f"{PREFIX}gpu or {PREFIX}mig-1g.10gb, for example"
            yield Problem(f"{where}.name", str(error), remedy, line=_line(table["name"][1]))
    many = _plain(table["replicas"][1]) if "replicas" in table else None
    if isinstance(many, bool) or not isinstance(many, int) or many < FEWEST:
        what = "is missing" if "replicas" not in table else f"is {many!r}"
        remedy = f"the plugin does not start: a number from {FEWEST} up"
        yield Problem(f"{where}.replicas", what, remedy, line=line)
    if "rename" in table:
        remedy = f"use renameByDefault: it advertises NAME{SHARED}"
        yield Problem(f"{where}.rename", "is ignored", remedy, "warning", line)
    if "devices" in table:
        yield from _devices(_plain(table["devices"][1]), f"{where}.devices", line)


def _devices(value: Any, where: str, line: int) -> Iterator[Problem]:
    rows = value if isinstance(value, list) else []
    good = value == "all" or (isinstance(value, int) and not isinstance(value, bool) and value > 0)
    if not good and not (rows and all(_DEVICE.fullmatch(str(row)) for row in rows)):
        remedy = "the plugin does not start: all"
        yield Problem(where, f"is {value!r}", remedy, line=line)
    elif value != "all":
        yield Problem(where, "is ignored: every card is sliced", "take it out", "warning", line)


def config_map(item: Mapping[str, Any], namespace: str, where: str) -> list[Problem]:
    """What is wrong with a ConfigMap for the device plugin of the operator in ``namespace``."""
    found: list[Problem] = []
    meta = item.get("metadata") or {}
    there = meta.get("namespace", "")
    if namespace and there and there != namespace:
        remedy = f"the plugin looks into the operator's: {namespace}"
        found.append(Problem(f"{where}.metadata.namespace", f"is {there!r}", remedy))
    data = item.get("data") or {}
    if not data:
        found.append(Problem(f"{where}.data", "is empty", "one key for each way of sharing"))
    for key, text in data.items():
        path = f"{where}.data.{key}"
        if not key or not is_label_value(str(key)):
            allowed = "values of labels have at most 63 of A-Z a-z 0-9 - _ ."
            remedy = f"nodes name it in the label {NODE_LABEL}; {allowed}"
            found.append(Problem(path, "cannot be a label", remedy))
        if not isinstance(text, str):
            found.append(Problem(path, "is no text", "begin its value with |-"))
            continue
        found += configuration(text, path)
    return found


def references(
    policy: Mapping[str, Any] | None,
    maps: Mapping[str, Mapping[str, Any]],
    nodes: Mapping[str, Mapping[str, str]],
) -> list[Problem]:
    """Whether ClusterPolicy, ConfigMaps (name -> object, of its namespace) and nodes' labels meet.

    Neither the CRD nor the API server looks: a name that is not there means that nothing is shared.
    """
    config = ((policy or {}).get("spec", {}).get("devicePlugin") or {}).get("config") or {}
    where = "ClusterPolicy.spec.devicePlugin.config"
    name, default = config.get("name", ""), config.get("default", "")
    if not name:
        remedy = (
            "name the ConfigMap: without it no configuration is read, whatever nodes' labels say"
        )
        return [Problem(f"{where}.name", "is not set", remedy)]
    if name not in maps:
        remedy = f"make it in the operator's namespace; {nearest(name, maps)}"
        return [Problem(f"{where}.name", f"{name!r} is no ConfigMap there", remedy)]
    keys = list(maps[name].get("data") or {})
    found = []
    labelled = {node: labels[NODE_LABEL] for node, labels in nodes.items() if NODE_LABEL in labels}
    if not default:
        bare = sorted(set(nodes) - set(labelled))
        what = "is not set: nothing is shared on a node without the label"
        remedy = f"set it, or label {', '.join(bare[:3]) or 'every node'} with {NODE_LABEL}"
        found.append(Problem(f"{where}.default", what, remedy, "error" if bare else "warning"))
    elif default not in keys:
        found.append(
            Problem(f"{where}.default", f"{default!r} is no key of {name}", nearest(default, keys))
        )
    for node, key in sorted(labelled.items()):
        if key not in keys:
            path = f"Node {node}, label {NODE_LABEL}"
            found.append(Problem(path, f"{key!r} is no key of {name}", nearest(key, keys)))
    return found
