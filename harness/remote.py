"""A node as a test worker has it: facts from the capsule, calls relayed by the run's broker."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from harness.broker import Client
from harness.node import CellNames, Node, Recorded
from harness.station import Unavailable
from harness.transports.base import AgentOperations, NodeAbsent, RemoteError, TransportError

#: A broker's word for an error of the node's -> what a check sees.
KINDS: Mapping[str, type[TransportError]] = {"remote": RemoteError, "absent": NodeAbsent}


class BrokerTransport(AgentOperations):
    """Asks a node through the broker of the run, which alone holds the channel to it."""

    def __init__(self, client: Client, cell: str) -> None:
        self.name = cell
        #: A call was not answered: the node may be gone, and the run knows.
        self.failed = False
        self._client = client

    def call(self, op: str, *, timeout: float, **args: Any) -> Any:
        """See Transport. The broker adds nothing but its own wait."""
        try:
            return self._client.ask("call", cell=self.name, op=op, timeout=timeout, args=args)
        except Unavailable as error:
            kind = KINDS.get(error.kind, TransportError)
            self.failed = self.failed or kind is TransportError
            raise kind(error.message, hint=error.hint) from error

    def close(self) -> None:
        """The connection is the worker's; the node is the run's."""


def remote_node(client: Client, cell: Mapping[str, str], lease: Mapping[str, Any]) -> Node:
    """The node that checks see, from the answer to ``acquire``."""
    facts: Mapping[str, Any] = msgspec.json.decode(Path(lease["facts"]).read_bytes())
    return Node(
        name=cell["id"],
        cell=CellNames(cell["image"], cell["scenario"], cell["profile"], cell["provider"]),
        facts=Recorded(facts) if lease.get("recorded") else facts,
        transport=BrokerTransport(client, cell["id"]),
        expect=lease["expect"],
        ledger=lease["ledger"],
        simulated=lease["simulated"],
    )
