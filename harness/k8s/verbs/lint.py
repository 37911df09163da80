"""``airlock k8s lint``: what the device plugin will make of a configuration somebody wrote."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from harness.errors import UsageError
from harness.k8s import pluginrules
from harness.k8s.pluginrules import Problem
from harness.k8s.verbs.common import cluster_of, cluster_options
from harness.k8s.yamltext import load_all
from installers.exits import Exit

CLUSTER = "cluster"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    parser.add_argument(
        "source",
        metavar="FILE|cluster",
        help="YAML of a ConfigMap, a ClusterPolicy, or of the plugin itself; or the live ones",
    )
    cluster_options(parser)
    parser.add_argument("--namespace", default="gpu-operator", metavar="NS", help="the operator's")
    parser.add_argument("--json", action="store_true", help="print the problems as JSON")


def run(args: argparse.Namespace) -> int:
    """Print each problem; 1 if one of them is an error."""
    found = _cluster(args) if args.source == CLUSTER else _file(Path(args.source), args.namespace)
    if args.json:
        print(json.dumps([asdict(problem) for problem in found], indent=1))
    else:
        for problem in found:
            print(problem)
        print(f"{args.source}: {len(found)} problems" if found else f"{args.source}: no problem")
    return Exit.FAIL if any(problem.severity == "error" for problem in found) else Exit.PASS


def _file(path: Path, namespace: str) -> list[Problem]:
    """Of whatever the file holds; UsageError if that is nothing of ours."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read: {error}", hint="a file, or: cluster") from error
    items = [item for item in load_all(text, str(path)) if isinstance(item, dict)]
    if len(items) == 1 and "kind" not in items[0]:
        return pluginrules.configuration(text, path.name)
    maps = [item for item in items if item.get("kind") == "ConfigMap"]
    policies = [item for item in items if item.get("kind") == "ClusterPolicy"]
    if not maps and not policies:
        raise UsageError(
            f"{path}: holds no ConfigMap and no ClusterPolicy",
            hint="the plugin's configuration alone is read too",
        )
    found = []
    for item in maps:
        where = f"ConfigMap {item.get('metadata', {}).get('name', '')}".strip()
        found += pluginrules.config_map(item, namespace, where)
    named = {str(item.get("metadata", {}).get("name", "")): item for item in maps}
    for policy in policies if maps else ():
        found += pluginrules.references(policy, named, {})
    return found


def _cluster(args: argparse.Namespace) -> list[Problem]:
    from harness.k8s.collect import collect

    with cluster_of(args, needed=True) as cluster:
        assert cluster is not None
        parts = ("policies", "config_maps", "nodes")
        known = collect(cluster, args.namespace, parts)["cluster"]
    policies: list[Mapping[str, Any]] = known["policies"] or []
    if not policies:
        raise UsageError("the cluster has no ClusterPolicy", hint="airlock k8s apply makes one")
    maps: Mapping[str, Mapping[str, Any]] = known["config_maps"] or {}
    labels = {name: node["labels"] for name, node in (known["nodes"] or {}).items()}
    found = pluginrules.references(policies[0], maps, labels)
    for name, item in maps.items():
        found += pluginrules.config_map(item, args.namespace, f"ConfigMap {name}")
    return found
