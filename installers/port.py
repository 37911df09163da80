"""JSON lines over a pair of file descriptors: a virtio-serial port, a terminal, or two pipes.

A virtio-serial port has no connection: the host comes and goes. While it is away, reading gives
end of file at once and writing would wait forever, so both look at POLLHUP. A line that was cut by
the host's leaving is ended by the newline that starts the next one.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import select
import signal
import stat
import threading
import time
import tty
from collections.abc import Iterator
from typing import Any, Optional

# Longer lines are not a request of ours; files travel in parts.
MAX_LINE = 32 << 20
READ_SIZE = 1 << 16
# A host that reads nothing for this long, in seconds, has gone, whatever the port says.
STUCK = 60.0
AWAY_POLL = 0.5


class HostGone(Exception):
    """Nobody reads at the other end; what was to be written is lost."""


class Port:
    """One channel to the host. ``send`` may be called by several threads, ``lines`` by one."""

    def __init__(
        self, read_fd: int, write_fd: int, *, returns: bool, patience: Optional[float] = None
    ) -> None:
        """``returns`` says that the host may come back after end of file (no pipe does).

        ``patience``: a host that was not heard for so many seconds has gone, as at end of file.
        """
        self._read_fd, self._write_fd = read_fd, write_fd
        self._returns = returns
        self._patience = None if patience is None else patience * 1000
        self._lock = threading.Lock()
        self._closed = False
        self._wake: Optional[int] = None
        os.set_blocking(read_fd, False)
        os.set_blocking(write_fd, False)

    @classmethod
    def open(cls, path: str) -> Port:
        """A character device; raises OSError where there is none."""
        fd = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
        if os.isatty(fd):
            tty.setraw(fd)
        port = cls(fd, fd, returns=True)
        if stat.S_ISCHR(os.fstat(fd).st_mode):
            port._notify()
        return port

    @classmethod
    def stdio(cls, patience: Optional[float]) -> Port:
        """Standard input and output; whatever prints from now on goes to standard error."""
        read_fd, write_fd = os.dup(0), os.dup(1)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.close(null)
        os.dup2(2, 1)
        return cls(read_fd, write_fd, returns=False, patience=patience)

    def _notify(self) -> None:
        """Lets the kernel tell by SIGIO that the host came, instead of asking twice a second."""
        self._wake, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.signal(signal.SIGIO, lambda *_: None)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        with contextlib.suppress(OSError):  # no such signal on this device: the poll is enough
            fcntl.fcntl(self._read_fd, fcntl.F_SETOWN, os.getpid())
            flags = fcntl.fcntl(self._read_fd, fcntl.F_GETFL)
            fcntl.fcntl(self._read_fd, fcntl.F_SETFL, flags | os.O_ASYNC)

    def _rest(self) -> None:
        """Waits until the host may have come."""
        if self._wake is None:
            time.sleep(AWAY_POLL)
            return
        ready, _, _ = select.select([self._wake], [], [], AWAY_POLL)
        if ready:
            os.read(self._wake, 512)

    def _read(self) -> Optional[bytes]:
        """Some bytes; None while the host is away or has nothing to say, b"" at the end."""
        poller = select.poll()
        poller.register(self._read_fd, select.POLLIN)
        ready = dict(poller.poll(self._patience))
        if not ready:
            return b""
        flags = ready.get(self._read_fd, 0)
        try:
            data = os.read(self._read_fd, READ_SIZE)
        except BlockingIOError:
            data = None
        except OSError as error:
            # EIO is a terminal whose other end was closed.
            if error.errno not in (errno.EIO, errno.ECONNRESET):
                raise
            data = b""
        if data or not self._returns:
            return data
        if data == b"" or flags & select.POLLHUP:
            self._rest()
        return None

    def lines(self) -> Iterator[Optional[bytes]]:
        """Every line the host sends, until a channel that cannot return ends.

        None stands for a line longer than MAX_LINE, whose bytes were thrown away; empty lines,
        which only separate, are left out.
        """
        buffer = bytearray()
        skipping = False
        while True:
            data = self._read()
            if data is None:
                continue
            if not data:
                return
            buffer += data
            while True:
                end = buffer.find(b"\n")
                if end < 0:
                    break
                line = bytes(buffer[:end])
                del buffer[: end + 1]
                if skipping:
                    skipping = False
                    yield None
                elif line.strip():
                    yield line
            if len(buffer) > MAX_LINE:
                skipping = True
                buffer.clear()

    def send(self, message: dict[str, Any]) -> None:
        """Writes one message as a line; raises HostGone where nobody reads it."""
        data = b"\n" + json.dumps(message, separators=(",", ":")).encode() + b"\n"
        with self._lock:
            if self._closed:
                raise HostGone("the channel was closed")
            self._write(memoryview(data))

    def close(self) -> None:
        """Whoever still wants to send gets HostGone; the descriptors are the caller's again."""
        with self._lock:
            self._closed = True

    def _write(self, left: memoryview) -> None:
        poller = select.poll()
        poller.register(self._write_fd, select.POLLOUT)
        deadline = time.monotonic() + STUCK
        while left:
            try:
                written = os.write(self._write_fd, left)
                left = left[written:]
                deadline = time.monotonic() + STUCK
                continue
            except BlockingIOError:
                pass
            except OSError as error:
                raise HostGone(str(error)) from error
            events = dict(poller.poll(1000))
            if events.get(self._write_fd, 0) & (select.POLLHUP | select.POLLERR):
                raise HostGone("the host closed the channel")
            if time.monotonic() > deadline:
                raise HostGone(f"the host read nothing for {STUCK:.0f} s")
