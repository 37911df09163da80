"""What the search of the whole node for secrets found."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from harness.checks import fact, not_verified
from harness.node import Node

# Where programs keep settings. On a node behind an authenticating proxy some of these files hold
# the password, or nothing there would reach the network.
CONFIGURATION = ("/etc/", "/root/", "/run/")


def searched(node: Node) -> Sequence[Mapping[str, Any]]:
    """Every hit, ``{"path", "offset", ...}``; without a search there is nothing to judge."""
    if not fact(node, "hygiene").get("files"):
        not_verified("the node was not searched for secrets")
    hits: Sequence[Mapping[str, Any]] = fact(node, "hygiene.secrets")
    return hits


def configuration(node: Node, paths: Iterable[str]) -> set[str]:
    """Those that may hold a credential if they are listed: /etc, and what tools keep elsewhere."""
    tools = {told["path"] for told in fact(node, "proxy.tools").values()}
    return {path for path in paths if path.startswith(CONFIGURATION) or path in tools}
