"""This machine as a node: the same node file, run by the same kind of process as elsewhere."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from harness.transports.base import AgentOperations, TransportError
from harness.transports.process import AgentProcess, Restarting


class LocalTransport(AgentOperations):
    """The machine we run on. May be used by several threads."""

    def __init__(self, node_file: Path, *, name: str = "local", python: str = "python3") -> None:
        """``node_file`` is the ``.pyz``; ``python`` a name in PATH, or a path."""
        self.name = name
        self._agent = Restarting(self._started)
        found = shutil.which(python)
        if found is None:
            raise TransportError(f"{name}: there is no {python} here", hint="install python3")
        # -B: the machine is not changed, not even by what Python remembers.
        self._argv = [found, "-B", str(node_file), "agent", "--stdio"]

    def call(self, op: str, *, timeout: float, **args: Any) -> Any:
        """See Transport."""
        return self._agent.get().call(op, timeout, args)

    def close(self) -> None:
        """See Transport."""
        self._agent.close()

    def _started(self) -> AgentProcess:
        agent = AgentProcess(self.name, self._argv)
        agent.start()
        return agent
