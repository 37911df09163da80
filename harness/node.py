"""A node as checks see it: what is known of it, and a way to ask for what facts cannot hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from harness.transports.base import (
    CommandTimeout,
    NodeGone,
    Ran,
    RemoteError,
    Transport,
    TransportError,
)

if TYPE_CHECKING:
    import testinfra.host

__all__ = [
    "CellNames",
    "CommandTimeout",
    "Node",
    "NodeGone",
    "Ran",
    "RemoteError",
    "Transport",
    "TransportError",
]


@dataclass(frozen=True)
class CellNames:
    """The names of what a node is an instance of."""

    image: str
    scenario: str
    profile: str
    provider: str


@dataclass
class Node:
    """One machine under test.

    ``facts``: what one exchange collected (see installers.facts). ``expect``: what the lab knows
    that must be true. ``ledger``: every request and packet seen, None where nobody recorded them.
    ``simulated``: the evidence comes from a double.
    """

    name: str
    cell: CellNames
    facts: Mapping[str, Any]
    transport: Transport
    expect: Mapping[str, Any] = field(default_factory=dict)
    ledger: Mapping[str, Any] | None = None
    simulated: bool = False

    @cached_property
    def host(self) -> testinfra.host.Host:
        """testinfra's host over the node's own transport; made when first used."""
        # Importing testinfra costs more than most checks, which read facts only.
        from harness.testinfra_host import make_host

        return make_host(self.transport)
