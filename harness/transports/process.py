"""An agent behind the standard input and output of a process: what local and SSH have in common."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import tempfile
import threading
from collections.abc import Callable, Sequence
from typing import Any

from harness.deadline import Deadline
from harness.transports.base import NodeGone, TransportError
from harness.transports.lines import TICK, Lines, Watch, exchange

#: An agent that was told to end by closing its input has this long, in seconds.
END = 5.0
#: Bytes that may come before a greeting: a login shell's files may print.
NOISE = 1 << 16


class AgentProcess:
    """A running ``agent --stdio`` and the connection to it."""

    def __init__(self, name: str, argv: Sequence[str], *, pulse: float | None = None) -> None:
        """Starts ``argv``; TransportError where that cannot be. ``pulse``: see ``Lines``.

        Either ``start`` follows at once, or ``greeted``, ``feed`` and ``start``.
        """
        self.name = name
        self._pulse = pulse
        self._lines: Lines | None = None
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
        self._streams = (stdin, stdout)

    def greeted(self, mark: str, deadline: Deadline, watch: Watch) -> str | None:
        """What follows ``mark`` on the line that begins with it; None where the process ends.

        Raises DeadlinePassed, and what ``watch`` raises, which is asked while nothing comes.
        """
        fd = self._streams[1].fileno()
        heard = b""
        while len(heard) < NOISE:
            deadline.check()
            if not select.select([fd], [], [], min(TICK, deadline.remaining()))[0]:
                watch()
                continue
            # One byte at a time: what follows the line is the agent's.
            byte = os.read(fd, 1)
            if not byte:
                return None
            heard += byte
            line = heard.splitlines()[-1] if byte == b"\n" else b""
            if line.startswith(mark.encode()):
                return line[len(mark) :].decode(errors="replace").strip()
        return None

    def feed(self, data: bytes, deadline: Deadline) -> None:
        """Writes what the process reads before it is an agent. NodeGone, DeadlinePassed."""
        fd = self._streams[0].fileno()
        os.set_blocking(fd, False)
        left = memoryview(data)
        while left:
            deadline.check(hint="the node does not read what it is sent")
            select.select([], [fd], [], deadline.remaining())
            try:
                left = left[os.write(fd, left) :]
            except BlockingIOError:
                continue
            except OSError as error:
                raise NodeGone(f"{self.name}: {error.strerror}") from error

    def start(self) -> None:
        """From now on an agent is asked."""
        stdin, stdout = self._streams
        self._lines = Lines(
            self.name, stdout.fileno(), stdin.fileno(), self._end, pulse=self._pulse
        )

    @property
    def gone(self) -> bool:
        """Whether this process is of no more use."""
        return self._lines is None or self._lines.gone is not None

    def last_words(self) -> tuple[int | None, str]:
        """(exit status, standard error) of a process that has closed its output."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(END)
        self._said.seek(0)
        return self._process.returncode, self._said.read().decode(errors="replace").strip()

    def call(self, op: str, timeout: float, args: dict[str, Any]) -> Any:
        """See Transport; what the process said on standard error explains its end."""
        assert self._lines is not None
        try:
            return exchange(self._lines, op, timeout, args)
        except NodeGone as error:
            code, said = self.last_words()
            last = " ".join(said.splitlines()[-1:])
            raise NodeGone(f"{error.message}; it exited {code}: {last}") from error

    def close(self) -> None:
        """Ends the process."""
        if self._lines is None:
            # It is no agent yet, and an ssh that connects does not look at its input.
            self._process.terminate()
            self._end()
        else:
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

    def __init__(self, start: Callable[[], AgentProcess]) -> None:
        """``start`` gives an agent that can be asked."""
        self._start = start
        self._agent: AgentProcess | None = None
        self._lock = threading.Lock()

    def get(self) -> AgentProcess:
        """The agent that runs, or a new one."""
        with self._lock:
            if self._agent is not None and self._agent.gone:
                self._agent.close()
                self._agent = None
            if self._agent is None:
                self._agent = self._start()
            return self._agent

    def close(self) -> None:
        """Ends the agent that runs, if any."""
        with self._lock:
            if self._agent is not None:
                self._agent.close()
                self._agent = None
