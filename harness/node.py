"""A node as checks see it: what is known of it, and a way to ask for what facts cannot hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from harness.transports.base import (
    CommandTimeout,
    NodeAbsent,
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
    "NodeAbsent",
    "NodeGone",
    "Ran",
    "Recorded",
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


class Recorded(Mapping[str, Any]):
    """The facts of a capsule. What it does not hold was never said: to ask for it is NodeAbsent.

    A check of a later day asks for areas that no node of an earlier day knew; to find nothing there
    must not be taken for finding nothing wrong.
    """

    def __init__(self, facts: Mapping[str, Any]) -> None:
        self._facts = facts

    def __getitem__(self, key: str) -> Any:
        if key not in self._facts:
            raise NodeAbsent(f"the capsule does not hold {key}")
        return self._facts[key]

    def __contains__(self, key: object) -> bool:
        return key in self._facts

    def __iter__(self) -> Iterator[str]:
        return iter(self._facts)

    def __len__(self) -> int:
        return len(self._facts)


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
