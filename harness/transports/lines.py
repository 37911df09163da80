"""The host's side of the agent's protocol, over any pair of file descriptors.

A thread reads; callers wait on a condition, each for the answer with its own id. Answers nobody
waits for any more (their deadline passed) are dropped, events are kept.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import secrets
import select
import threading
import time
from collections.abc import Callable
from typing import Any

from harness.deadline import Deadline
from harness.transports.base import NodeGone, RemoteError

READ_SIZE = 1 << 18
#: An answer that is longer is not one of the agent's.
MAX_LINE = 64 << 20
#: While waiting, how often the caller's own conditions (process alive, Ctrl-C) are asked.
TICK = 0.5
#: What the agent gets to end a program by itself and to tell, before we stop listening.
GRACE = 10.0
#: Operations that run programs, which the agent ends at the caller's timeout.
TIMED = ("exec", "apply")
#: An agent far away ends when it has not heard its host for PATIENCE seconds (a cable was pulled,
#: a machine fell asleep: nothing else would tell it), so the host is heard once in PULSE.
PATIENCE, PULSE = 120.0, 20.0

Watch = Callable[[], object]


class Lines:
    """One connection to an agent. ``call`` may be used by several threads."""

    def __init__(
        self,
        name: str,
        read_fd: int,
        write_fd: int,
        close: Callable[[], object],
        *,
        pulse: float | None = None,
    ) -> None:
        """Takes over the descriptors; ``close`` gives them back. ``pulse``: see PULSE."""
        self.name = name
        self._pulse = pulse
        self._beat_due = time.monotonic() + (pulse or 0.0)
        self._read_fd, self._write_fd, self._close = read_fd, write_fd, close
        # A new host must not take an answer that the last one left in the channel.
        self._ids = itertools.count(secrets.randbits(32) << 16)
        self._changed = threading.Condition()
        self._waiting: dict[int, str] = {}
        self._answers: dict[int, dict[str, Any]] = {}
        self._events: dict[str, dict[str, Any]] = {}
        self._speaker: tuple[Any, Any] | None = None
        self._lost = ""
        self._gone: str | None = None
        self._sending = threading.Lock()
        self._stop_fd, self._stop_write = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(read_fd, False)
        os.set_blocking(write_fd, False)
        self._thread = threading.Thread(target=self._read, name=f"agent {name}", daemon=True)
        self._thread.start()

    @property
    def gone(self) -> str | None:
        """Why the connection ended; None while it is open."""
        return self._gone

    def close(self) -> None:
        """Ends the connection; whoever waits gets NodeGone."""
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            os.write(self._stop_write, b".")
            self._thread.join()
        with self._changed:
            if self._stop_fd >= 0:
                for fd in (self._stop_fd, self._stop_write):
                    os.close(fd)
                self._stop_fd = -1
                self._close()

    def call(self, op: str, deadline: Deadline, args: dict[str, Any]) -> Any:
        """The result of one operation; raises RemoteError, NodeGone or a deadline's error."""
        number = next(self._ids)
        request = {"id": number, "op": op, **args}
        with self._changed:
            self._waiting[number] = op
        try:
            self.send(request, deadline)
            answer = self._wait(lambda: self._answers.pop(number, None), deadline, number)
        finally:
            with self._changed:
                self._waiting.pop(number, None)
                self._answers.pop(number, None)
        deadline.done()
        if not answer.get("ok"):
            raise RemoteError(f"{self.name}: {answer.get('error', 'no reason given')}")
        return answer.get("result")

    def event(self, name: str, deadline: Deadline, watch: Watch, *, after: str = "") -> Any:
        """Waits for an event, of another boot than ``after``; ``watch`` may end it by raising."""

        def found() -> dict[str, Any] | None:
            event = self._events.get(name)
            return None if event is None or (after and event.get("boot_id") == after) else event

        return self._wait(found, deadline, None, watch)

    def heard(self) -> str:
        """The name of the last event, "" where none came."""
        with self._changed:
            return list(self._events)[-1] if self._events else ""

    def _wait(
        self,
        found: Callable[[], dict[str, Any] | None],
        deadline: Deadline,
        number: int | None,
        watch: Watch = lambda: None,
    ) -> dict[str, Any]:
        while True:
            with self._changed:
                value = found()
                if value is not None:
                    return value
                if self._gone is not None:
                    raise NodeGone(f"{deadline.what}: {self._gone}")
                if number is not None and number not in self._waiting:
                    raise NodeGone(f"{deadline.what}: {self._lost}")
                deadline.check()
                self._changed.wait(min(TICK, deadline.remaining()))
            watch()

    def send(self, request: dict[str, Any], deadline: Deadline) -> None:
        """Writes one request; a node that reads nothing until the deadline is an error."""
        # The leading newline ends whatever a host before us left unfinished.
        left = memoryview(b"\n" + json.dumps(request, separators=(",", ":")).encode() + b"\n")
        with self._sending:
            while left:
                if self._gone is not None:
                    raise NodeGone(f"{deadline.what}: {self._gone}")
                try:
                    left = left[os.write(self._write_fd, left) :]
                except BlockingIOError:
                    deadline.check(hint="the node does not read what it is sent")
                    select.select([], [self._write_fd], [], min(TICK, deadline.remaining()))
                except OSError as error:
                    raise NodeGone(f"{deadline.what}: {error.strerror}") from error

    def _until_beat(self) -> float | None:
        """Milliseconds until the agent has to hear us again, which it just did if it had to.

        An empty line only separates, so one more does no harm; None if nobody listens for it.
        """
        if self._pulse is None:
            return None
        if time.monotonic() >= self._beat_due and self._sending.acquire(blocking=False):
            try:
                with contextlib.suppress(OSError):
                    os.write(self._write_fd, b"\n")
            finally:
                self._sending.release()
            self._beat_due = time.monotonic() + self._pulse
        return max(1.0, (self._beat_due - time.monotonic()) * 1000)

    def _read(self) -> None:
        """The thread: cuts what comes into lines until the connection ends."""
        buffer = bytearray()
        poller = select.poll()
        poller.register(self._read_fd, select.POLLIN)
        poller.register(self._stop_fd, select.POLLIN)
        why = "closed by us"
        with contextlib.suppress(_Stopped):
            try:
                while True:
                    ready = dict(poller.poll(self._until_beat()))
                    if self._stop_fd in ready:
                        raise _Stopped
                    if not ready:
                        continue
                    data = os.read(self._read_fd, READ_SIZE)
                    if not data:
                        why = "the node closed the connection"
                        break
                    buffer += data
                    if b"\n" in data:
                        *lines, buffer = buffer.split(b"\n")
                        for line in lines:
                            self._take(line)
                    elif len(buffer) > MAX_LINE:
                        why = f"the node sent more than {MAX_LINE} bytes without a newline"
                        break
            except OSError as error:
                why = f"the connection broke: {error.strerror}"
        with self._changed:
            self._gone = why
            self._changed.notify_all()

    def _take(self, line: bytearray) -> None:
        """One line: an answer, an event, or noise from a line that was cut off."""
        try:
            message = json.loads(line)
        except ValueError:
            return
        if not isinstance(message, dict):
            return
        with self._changed:
            if "event" in message:
                self._event(message)
            elif isinstance(message.get("id"), int) and message["id"] in self._waiting:
                self._answers[message["id"]] = message
            self._changed.notify_all()

    def _event(self, message: dict[str, Any]) -> None:
        speaker = (message.get("boot_id"), message.get("agent"))
        if self._speaker is not None and speaker != self._speaker:
            # Whoever was asked before will not answer any more.
            rebooted = speaker[0] != self._speaker[0]
            self._lost = "the node has rebooted" if rebooted else "its agent was started anew"
            self._waiting.clear()
            self._events.clear()
        self._speaker = speaker
        self._events[str(message["event"])] = message


class _Stopped(Exception):
    """The reading thread was told to end."""


def exchange(lines: Lines, op: str, timeout: float, args: dict[str, Any]) -> Any:
    """One operation with its deadline, as every transport does it."""
    what = f"{lines.name}: {op}"
    if op in TIMED:
        deadline = Deadline(timeout + GRACE, what)
        return lines.call(op, deadline, {**args, "timeout": timeout})
    return lines.call(op, Deadline(timeout, what), args)
