"""What belongs to one machine or one cluster, and must not be in an image that many are made of."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from harness.checks import build_ledger, check, fail, not_verified
from harness.node import Node

# Properties that a node's own cards, or its own cluster, decide.
OF_A_NODE = re.compile(
    r"yarn\.nodemanager\.(resource-plugins|linux-container-executor\.cgroups|hostname|address)"
    r"|yarn\.resource-types|yarn\.resourcemanager\.([\w.-]*address|hostname)"
    r"|spark\.(executor|driver|task|worker)\.resource\.gpu\."
    r"|spark\.(driver\.host|yarn\.historyServer\.address)"
)


@check(
    id="hygiene.baked-in",
    severity="blocker",
    title="Nothing in the image belongs to the machine or the cluster that it was built on",
    remedy="With invocation-type=custom-images write no configuration that a node's cards, name or "
    "cluster decide: install a unit that does it at boot, as the installer deferred does.",
    requires=build_ledger,
    source="the builder's name, host name and id (its metadata server's), looked for in every byte "
    "of the disk; the properties of YARN and Spark at the end of the build",
)
def test_baked_in(node: Node) -> None:
    """An image is made once, on one machine; what it says of that is wrong on every other."""
    left = ((node.ledger or {}).get("build") or {}).get("left")
    if not left or "builder" not in left:
        not_verified("the build ended without a look at what it left")
    found = [
        f"{hit['path'] or 'the disk'}: the builder's {hit['name']} at byte {hit['offset']}"
        for hit in left["builder"]
    ]
    found += _configured(left["gpu_config"] or {})
    torn = [path for path, v in ((left["gpu_config"] or {}).get("yarn") or {}).items() if v is None]
    if torn and not found:
        not_verified(f"{torn[0]} could not be read at the end of the build")
    if found:
        fail(f"{len(found)} things in the image are of its builder: {found[0]}", found)


def _configured(found: Mapping[str, Any]) -> Iterator[str]:
    """What of YARN and Spark was configured on the builder; see installers.collect.gpuconfig."""
    for name in ("stamp", "result"):
        if found.get(name):
            yield f"/var/lib/airlock/gpu-config-{name}.json: a configuration's {name}"
    files = {**(found.get("yarn") or {}), "/etc/spark/conf/spark-defaults.conf": found.get("spark")}
    for path, properties in files.items():
        for key, value in sorted((properties or {}).items()):
            if OF_A_NODE.match(key):
                yield f"{path}: {key} is {value!r}"
