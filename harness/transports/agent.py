"""Virtio-serial: the agent of a machine we made, behind a unix socket of QEMU's."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from pathlib import Path
from typing import Any

from harness.deadline import Deadline, DeadlinePassed
from harness.transports.base import AgentOperations, TransportError
from harness.transports.lines import Lines, Watch, exchange

#: QEMU makes its socket a moment after it starts; connecting is the only way to see it.
CONNECT_PAUSE = 0.02
#: Bytes of sun_path in sockaddr_un, less the final zero (unix(7)).
LONGEST_PATH = 107


class AgentTransport(AgentOperations):
    """A node whose agent serves a virtio-serial port. Connects when first used, and again.

    May be used by several threads: the agent answers them side by side.
    """

    def __init__(self, path: Path, *, name: str = "node") -> None:
        """``path`` is the socket of the chardev (``-chardev socket,path=...,server=on``)."""
        self.name = name
        self.path = path
        self._lines: Lines | None = None
        self._lock = threading.Lock()

    def call(self, op: str, *, timeout: float, **args: Any) -> Any:
        """See Transport."""
        lines = self._connected(Deadline(timeout, f"{self.name}: {op}"), lambda: None)
        return exchange(lines, op, timeout, args)

    def connect(self, timeout: float = 20) -> None:
        """Connects now, and not when first used."""
        self._connected(Deadline(timeout, f"{self.name}: the channel"), lambda: None)

    def wait_ready(
        self,
        *,
        timeout: float,
        alive: Watch = lambda: None,
        check: Watch = lambda: None,
        after: str = "",
    ) -> dict[str, Any]:
        """Waits for the agent's event that the node has booted; returns it.

        ``alive`` and ``check`` are called while waiting and may raise (machine died, run stopped).
        ``after`` is a boot id: then the event must be of another boot, that is of a reboot.
        """

        def watch() -> None:
            alive()
            check()

        deadline = Deadline(timeout, f"{self.name}: the event 'ready'")
        lines = self._connected(deadline, watch)
        try:
            event: dict[str, Any] = lines.event("ready", deadline, watch, after=after)
        except DeadlinePassed as error:
            said = lines.heard()
            hint = f"the agent said {said!r} last" if said else "the agent was not heard at all"
            raise DeadlinePassed(error.what, timeout, hint=hint) from error
        deadline.done()
        return event

    @property
    def heard(self) -> bool:
        """Whether the agent has said anything yet; before that nothing it is asked is answered."""
        return self._lines is not None and bool(self._lines.heard())

    def close(self) -> None:
        """See Transport."""
        with self._lock:
            if self._lines is not None:
                self._lines.close()
                self._lines = None

    def _connected(self, deadline: Deadline, watch: Watch) -> Lines:
        with self._lock:
            if self._lines is not None and self._lines.gone is not None:
                self._lines.close()
                self._lines = None
            if self._lines is None:
                self._lines = self._connect(deadline, watch)
                # Who is there, and since when: what was said before we came is repeated for us.
                self._lines.send({"id": None, "op": "hello"}, deadline)
            return self._lines

    def _connect(self, deadline: Deadline, watch: Watch) -> Lines:
        if len(bytes(self.path)) > LONGEST_PATH:
            raise TransportError(
                f"{self.name}: {self.path} is too long for a socket",
                hint=f"a socket's path has at most {LONGEST_PATH} bytes",
            )
        while True:
            link = socket.socket(socket.AF_UNIX)
            with contextlib.ExitStack() as stack:
                stack.callback(link.close)
                try:
                    link.connect(str(self.path))
                except (FileNotFoundError, ConnectionRefusedError) as error:
                    watch()
                    deadline.check(hint=f"{self.path}: {error.strerror}")
                    time.sleep(CONNECT_PAUSE)
                    continue
                except OSError as error:
                    raise TransportError(f"{self.name}: {self.path}: {error.strerror}") from error
                stack.pop_all()
            return Lines(self.name, link.fileno(), link.fileno(), link.close)
