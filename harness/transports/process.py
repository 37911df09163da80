"""An agent behind the standard input and output of a process: what local and SSH have in common."""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
import threading
from collections.abc import Sequence
from typing import Any

from harness.transports.base import NodeGone, TransportError
from harness.transports.lines import Lines, exchange

#: An agent that was told to end by closing its input has this long, in seconds.
END = 5.0


class AgentProcess:
    """A running ``agent --stdio`` and the connection to it."""

    def __init__(self, name: str, argv: Sequence[str]) -> None:
        """Starts ``argv``; TransportError where that cannot be."""
        self.name = name
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        try:
            self._process = subprocess.Popen(
                list(argv),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._said,
                # Ctrl-C is for us to handle; the agent ends when we close its input.
                start_new_session=True,
            )
        except OSError as error:
            self._said.close()
            raise TransportError(f"{name}: {argv[0]}: {error.strerror}") from error
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        self._lines = Lines(name, stdout.fileno(), stdin.fileno(), self._end)
        self._streams = (stdin, stdout)

    @property
    def gone(self) -> bool:
        """Whether this process is of no more use."""
        return self._lines.gone is not None

    def call(self, op: str, timeout: float, args: dict[str, Any]) -> Any:
        """See Transport; what the process said on standard error explains its end."""
        try:
            return exchange(self._lines, op, timeout, args)
        except NodeGone as error:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(END)
            self._said.seek(0)
            said = self._said.read().decode(errors="replace").strip().splitlines()[-1:]
            code = self._process.returncode
            raise NodeGone(f"{error.message}; it exited {code}: {' '.join(said)}") from error

    def close(self) -> None:
        """Ends the process."""
        self._lines.close()

    def _end(self) -> None:
        for stream in self._streams:
            with contextlib.suppress(OSError):
                stream.close()
        try:
            self._process.wait(END)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._said.close()


class Restarting:
    """Starts an agent when it is first asked, and anew after one has gone. Thread-safe."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._agent: AgentProcess | None = None
        self._lock = threading.Lock()

    def get(self, argv: Sequence[str]) -> AgentProcess:
        """The agent that runs, or a new one started by ``argv``."""
        with self._lock:
            if self._agent is not None and self._agent.gone:
                self._agent.close()
                self._agent = None
            if self._agent is None:
                self._agent = AgentProcess(self.name, argv)
            return self._agent

    def close(self) -> None:
        """Ends the agent that runs, if any."""
        with self._lock:
            if self._agent is not None:
                self._agent.close()
                self._agent = None
