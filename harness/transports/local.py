"""This machine as a node: the same node file, run by the same kind of process as elsewhere."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from harness.transports.base import AgentOperations, TransportError
from harness.transports.process import Restarting


class LocalTransport(AgentOperations):
    """The machine we run on. May be used by several threads."""

    def __init__(self, node_file: Path, *, name: str = "local", python: str = "python3") -> None:
        """``node_file`` is the ``.pyz``; ``python`` a name in PATH, or a path."""
        self.name = name
        self._agent = Restarting(name)
        found = shutil.which(python)
        if found is None:
            raise TransportError(f"{name}: there is no {python} here", hint="install python3")
        self._argv = [found, str(node_file), "agent", "--stdio"]

    def call(self, op: str, *, timeout: float, **args: Any) -> Any:
        """See Transport."""
        return self._agent.get(self._argv).call(op, timeout, args)

    def close(self) -> None:
        """See Transport."""
        self._agent.close()
