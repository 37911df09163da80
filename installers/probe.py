"""Tries the ways out that a locked-down node must not have: TCP over v4 and v6, and DNS.

The probes prove that the capture of the node's network card sees what leaves it, so each sends its
packet and then waits a moment only; what comes back is recorded and judged elsewhere. The targets
are addresses and a name that belong to nobody (RFC 5737, RFC 3849, RFC 2606).
"""

from __future__ import annotations

import errno
import json
import os
import select
import socket
import struct
import time
from typing import Any, Optional

from installers.collect.network import resolvers
from installers.collect.reader import Reader
from installers.errors import ConfigError
from installers.exits import Exit

TCP_TARGETS = ((socket.AF_INET, "192.0.2.1", 443), (socket.AF_INET6, "2001:db8::1", 443))
NAME = "probe.invalid"
LIMIT = 1.5
# systemd-resolved's stub answers .invalid itself: nothing would leave the machine.
STUB = "127.0.0.53"
UPSTREAM = "/run/systemd/resolve/resolv.conf"


def query(name: str, number: int) -> bytes:
    """A DNS question for the A record of ``name`` (RFC 1035, section 4)."""
    labels = b"".join(bytes([len(part)]) + part.encode() for part in name.split("."))
    return (
        struct.pack(">6H", number, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack(">2H", 1, 1)
    )


def nameserver(reader: Reader) -> Optional[str]:
    """The server a question has to be sent to for it to leave the machine."""
    servers = resolvers(reader.text("/etc/resolv.conf") or "")
    if STUB in servers:
        servers = resolvers(reader.text(UPSTREAM) or "")
    return servers[0] if servers else None


class _Attempt:
    """One probe on its way: a non-blocking socket and what became of it."""

    def __init__(self, target: str, tcp: bool) -> None:
        self.target = target
        self.tcp = tcp
        self.outcome: Optional[str] = None
        self.socket: Optional[socket.socket] = None

    def start(self, family: int, address: tuple[str, int], payload: bytes) -> None:
        """Sends the first packet; an error at once is an outcome, not an exception."""
        try:
            kind = socket.SOCK_STREAM if self.tcp else socket.SOCK_DGRAM
            self.socket = socket.socket(family, kind)
            self.socket.setblocking(False)
            code = self.socket.connect_ex(address)
            if code not in (0, errno.EINPROGRESS):
                self.finish(code)
            elif payload:
                self.socket.send(payload)
        except OSError as error:
            self.finish(error.errno or 0)

    def finish(self, code: int) -> None:
        """Records an errno; 0 means that somebody answered."""
        self.outcome = errno.errorcode.get(code, str(code)) if code else "answered"
        self.close()

    def close(self) -> None:
        if self.socket is not None:
            self.socket.close()
            self.socket = None

    def ready(self) -> None:
        """The socket has news: connected, refused, or an answer to read."""
        if self.socket is None:
            return
        code = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if not code and not self.tcp:
            try:
                self.socket.recv(512)
            except OSError as error:
                code = error.errno or 0
        self.finish(code)


def _start(server: Optional[str]) -> list[_Attempt]:
    """All attempts on their way, at the same time."""
    attempts = []
    for family, address, port in TCP_TARGETS:
        shown = f"[{address}]" if family == socket.AF_INET6 else address
        attempt = _Attempt(f"tcp {shown}:{port}", tcp=True)
        attempt.start(family, (address, port), b"")
        attempts.append(attempt)
    dns = _Attempt(f"dns {NAME}", tcp=False)
    if server is None:
        dns.outcome = "no-nameserver"
    else:
        family = socket.AF_INET6 if ":" in server else socket.AF_INET
        number = int.from_bytes(os.urandom(2), "big")
        dns.start(family, (server, 53), query(NAME, number))
    return [*attempts, dns]


def run(limit: float = LIMIT, reader: Optional[Reader] = None) -> list[dict[str, Any]]:
    """[{"target", "outcome", "seconds"}] of every probe, within ``limit`` seconds.

    ``outcome`` is "answered", "timeout" (nothing came back), "no-nameserver", or the name of the
    errno (ENETUNREACH, ECONNREFUSED, ...).
    """
    started = time.monotonic()
    attempts = _start(nameserver(reader or Reader()))
    poller = select.poll()
    waiting = {}
    for attempt in attempts:
        if attempt.socket is not None:
            wanted = select.POLLOUT if attempt.tcp else select.POLLIN
            poller.register(attempt.socket, wanted)
            waiting[attempt.socket.fileno()] = attempt
    seconds = {attempt.target: time.monotonic() - started for attempt in attempts}
    while waiting:
        left = limit - (time.monotonic() - started)
        if left <= 0:
            break
        for number, _event in poller.poll(left * 1000):
            poller.unregister(number)
            attempt = waiting.pop(number)
            attempt.ready()
            seconds[attempt.target] = time.monotonic() - started
    for attempt in waiting.values():
        attempt.outcome = "timeout"
        attempt.close()
        seconds[attempt.target] = time.monotonic() - started
    return [
        {"target": a.target, "outcome": a.outcome, "seconds": round(seconds[a.target], 3)}
        for a in attempts
    ]


def main(args: list[str]) -> int:
    """``airlock-node.pyz probe``: run the probes and print what became of them, as JSON."""
    if args:
        raise ConfigError("probe takes no arguments", where=" ".join(args), remedy="leave them out")
    print(json.dumps(run()))
    return int(Exit.PASS)
