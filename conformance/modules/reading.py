"""Reading the modules out of a node's facts; shared by the checks of this area."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from harness.checks import fact, not_verified
from harness.node import Node

_KERNEL = re.compile(r"^(?:/usr)?/lib/modules/([^/]+)/")

Module = Mapping[str, Any]


def boot_kernel(node: Node) -> str:
    """The release the node should boot; what it did boot where nobody said."""
    return str(node.expect.get("boot_kernel") or fact(node, "kernel.release"))


def kernel_of(module: Module) -> str:
    """The kernel whose module directory holds the file, or ``""``."""
    match = _KERNEL.match(module["path"])
    return match.group(1) if match else ""


def name_of(module: Module) -> str:
    """The name the kernel gives the module: it knows no hyphens."""
    return str(module["name"]).replace("-", "_")


def nvidia(node: Node, kernel: str | None = None) -> list[Module]:
    """NVIDIA's modules on the node, of one kernel or of every one. May be empty."""
    return [
        module
        for module in fact(node, "modules")
        if name_of(module).startswith("nvidia") and kernel in (None, kernel_of(module))
    ]


def some_nvidia(node: Node) -> list[Module]:
    """As :func:`nvidia`, for checks that would pass on an empty list without having seen one."""
    found = nvidia(node)
    if not found:
        not_verified("the node has no nvidia module to look at; see modules.present")
    return found
