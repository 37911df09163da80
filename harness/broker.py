"""The pool's door: a unix socket that pytest's processes talk to, one JSON line each way.

Requests are ``{"do": ..., ...}``; answers are ``{"ok": true, "result": ...}`` or
``{"ok": false, "kind": ..., "message": ..., "hint": ...}``. A request that is only told
(``"quiet": true``) has no answer; one that cannot be done is a loss of the run. The socket lies in
a directory that only its owner can enter. A connection that closes gives up the cells it held.
"""

from __future__ import annotations

import socket
import socketserver
import threading
from pathlib import Path
from typing import Any

import msgspec

from harness.errors import AirlockError, InfraError
from harness.pool import Pool
from harness.station import Unavailable
from harness.transports.base import NodeAbsent, RemoteError

#: Backlog: every worker connects at once, and a run may have hundreds.
BACKLOG = 512


class _Door(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    # Handlers wait in provider code; closing must not wait for them.
    block_on_close = False
    request_queue_size = BACKLOG
    pool: Pool


class _Handler(socketserver.StreamRequestHandler):
    server: _Door

    def handle(self) -> None:
        held: set[str] = set()
        try:
            for line in self.rfile:
                ask = msgspec.json.decode(line)
                try:
                    answer = {"ok": True, "result": self._answer(ask, held)}
                except Exception as error:  # a bug here must not end the run
                    answer = failed(error)
                if ask.get("quiet"):
                    if not answer["ok"]:
                        self.server.pool.lose(f"{ask['do']}: {answer['message']}")
                    continue
                self.wfile.write(msgspec.json.encode(answer) + b"\n")
        except (BrokenPipeError, ConnectionResetError):
            pass
        finally:
            for cell in held:
                self.server.pool.abandon(cell)

    def _answer(self, ask: dict[str, Any], held: set[str]) -> Any:
        pool = self.server.pool
        match ask["do"]:
            case "hello":
                return [
                    {
                        "id": station.cell.id,
                        "image": station.cell.image.name,
                        "scenario": station.cell.scenario.name,
                        "profile": station.cell.profile.name,
                        "provider": station.cell.provider,
                    }
                    for station in pool.stations.values()
                ]
            case "acquire":
                station = pool.acquire(ask["cell"])
                held.add(ask["cell"])
                return {
                    "facts": str(station.capsule / "facts.json"),
                    "expect": dict(station.expect),
                    "ledger": station.ledger,
                    "simulated": station.simulated,
                    "recorded": getattr(station.running, "recorded", False),
                }
            case "call":
                return pool.call(ask["cell"], ask["op"], ask["timeout"], ask["args"])
            case "release":
                held.discard(ask["cell"])
                return pool.release(ask["cell"])
            case "ssh":
                return pool.ssh(ask["cell"])
            case "evidence":
                from harness.capsules.lab import evidence_of  # workers never ask for it

                return evidence_of(pool.stations[ask["cell"]])
            case "end":
                return pool.end(ask["cell"])
            case "collected":
                return pool.collected(ask["items"], ask["checks"])
            case "checked":
                return pool.checked(ask["nodeid"], ask["record"])
            case "lost":
                return pool.lose(ask["what"])
            case "losses":
                return pool.lost
        raise InfraError(f"the broker does not know {ask['do']!r}")


def failed(error: Exception) -> dict[str, Any]:
    """The answer to a request that failed. ``kind`` is Unavailable's, or remote, or error."""
    if not isinstance(error, AirlockError):
        message = f"{type(error).__name__}: {error}"
        return {"ok": False, "kind": "error", "message": message, "hint": ""}
    kind = "remote" if isinstance(error, RemoteError) else "error"
    if isinstance(error, NodeAbsent):
        kind = "absent"
    if isinstance(error, Unavailable):
        kind = error.kind
    return {"ok": False, "kind": kind, "message": error.message, "hint": error.hint}


class Broker:
    """Serves a pool on a socket, in threads. A context manager."""

    def __init__(self, pool: Pool, path: Path) -> None:
        self.path = path
        self._door = _Door(str(path), _Handler)
        self._door.pool = pool
        self._thread = threading.Thread(
            target=self._door.serve_forever, args=(0.1,), name="broker", daemon=True
        )

    def __enter__(self) -> Broker:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._door.shutdown()
        self._door.server_close()
        self.path.unlink(missing_ok=True)


class Client:
    """One connection to a broker. Not for use by several threads at once."""

    def __init__(self, path: str, *, timeout: float | None = None) -> None:
        """``timeout`` is for one answer; without it a request waits as long as the run lives."""
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(timeout)
        try:
            self._socket.connect(path)
        except OSError as error:
            raise InfraError(f"cannot reach the run at {path}: {error}") from error
        self._stream = self._socket.makefile("rwb")

    def ask(self, do: str, **values: Any) -> Any:
        """One request. Raises ``Unavailable`` with the broker's kind, message and hint."""
        try:
            self._stream.write(msgspec.json.encode({"do": do, **values}) + b"\n")
            self._stream.flush()
            line = self._stream.readline()
        except OSError as error:
            raise InfraError(f"the run has gone away: {error}") from error
        if not line:
            raise InfraError("the run has gone away")
        answer = msgspec.json.decode(line)
        if answer["ok"]:
            return answer["result"]
        raise Unavailable(answer["kind"], answer["message"], answer["hint"])

    def tell(self, do: str, **values: Any) -> None:
        """One request that is done in its turn and has no answer."""
        try:
            self._stream.write(msgspec.json.encode({"do": do, **values, "quiet": True}) + b"\n")
            self._stream.flush()
        except OSError as error:
            raise InfraError(f"the run has gone away: {error}") from error

    def close(self) -> None:
        """Hang up; cells still held are given up."""
        self._stream.close()
        self._socket.close()
