"""testinfra's ``host`` over any transport of ours."""

from __future__ import annotations

from typing import Any

import testinfra.host
from testinfra.backend.base import BaseBackend, CommandResult

from harness.transports.base import Transport

#: Seconds a command of a check may take; an emulated machine is slow.
TIMEOUT = 120.0


class TransportBackend(BaseBackend):  # type: ignore[misc]  # testinfra is not typed
    """What testinfra asks for: one shell command, its exit code and its output."""

    NAME = "airlock"

    def __init__(self, transport: Transport) -> None:
        super().__init__(transport.name)
        self._transport = transport
        # Commands run in C.UTF-8 over every transport; testinfra would ask the node by Python.
        self._encoding = "utf-8"

    def run(self, command: str, *args: str, **_options: Any) -> CommandResult:
        """Runs a command by the node's /bin/sh; ``args`` are quoted into it, as testinfra does.

        Raises the transport's errors: a node that cannot be asked is not a failed check.
        """
        line = self.get_command(command, *args)
        ran = self._transport.run(line, timeout=TIMEOUT)
        return self.result(ran.code, line.encode(), ran.out, ran.err)


def make_host(transport: Transport) -> testinfra.host.Host:
    """A host of its own for this transport, outside testinfra's cache of hosts by name."""
    backend = TransportBackend(transport)
    host = testinfra.host.Host(backend)
    backend.set_host(host)
    return host
