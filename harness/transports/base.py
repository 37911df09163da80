"""What every way to a node can do, and how it fails.

A failure of a transport is the lab's or the network's and never a failed check; each error says
what was asked, of which node, and what came back.
"""

from __future__ import annotations

import base64
import hashlib
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from harness.errors import InfraError

#: Bytes of a file in one message.
PART = 1 << 20


class TransportError(InfraError):
    """The node could not be asked, or its answer makes no sense."""


class NodeGone(TransportError):
    """The connection ended: the node went down, rebooted, or closed the channel."""


class NoPython(TransportError):
    """The node has no Python that will do; the message says which there is."""


class RemoteError(TransportError):
    """The node answered that the operation failed; the message is the node's own."""


class CommandTimeout(TransportError):
    """A command on the node was ended at its timeout; ``out`` and ``err`` are what it had said."""

    def __init__(self, message: str, out: bytes, err: bytes) -> None:
        super().__init__(message)
        self.out = out
        self.err = err


@dataclass(frozen=True)
class Ran:
    """What a command on the node did: its exit code (negative for a signal) and its output."""

    code: int
    out: bytes
    err: bytes


@runtime_checkable
class Transport(Protocol):
    """A node that can be asked. ``name`` is the node's, for messages. Timeouts are in seconds.

    Not for several threads at once, unless the class says so.
    """

    name: str

    def call(self, op: str, *, timeout: float, **args: Any) -> Any:
        """One operation of the agent. Raises TransportError or a deadline's error."""

    def run(self, command: str | Sequence[str], *, stdin: bytes = b"", timeout: float = 60) -> Ran:
        """A command: a list is run as it is, a string by /bin/sh. Raises CommandTimeout."""

    def facts(self, nonce: str | None = None, timeout: float = 60) -> dict[str, Any]:
        """Everything one exchange tells of the node."""

    def close(self) -> None:
        """Gives up the connection; the node stays as it is."""


class AgentOperations(ABC):
    """The operations of the node's agent, in terms of ``call``."""

    name: str

    @abstractmethod
    def call(self, op: str, *, timeout: float, **args: Any) -> Any:
        """See Transport."""

    @abstractmethod
    def close(self) -> None:
        """See Transport."""

    def run(self, command: str | Sequence[str], *, stdin: bytes = b"", timeout: float = 60) -> Ran:
        """See Transport."""
        args: dict[str, Any] = {"stdin_b64": base64.b64encode(stdin).decode()}
        if isinstance(command, str):
            args["sh"] = command
        else:
            args["argv"] = list(command)
        done = self.call("exec", timeout=timeout, **args)
        out, err = base64.b64decode(done["out_b64"]), base64.b64decode(done["err_b64"])
        shown = command if isinstance(command, str) else " ".join(command)
        if done["timed_out"]:
            said = (err or out).decode(errors="replace").strip()[-300:]
            message = f"{self.name}: {shown[:200]!r} ran longer than {timeout:g} s"
            raise CommandTimeout(
                f"{message}; its last words: {said}" if said else message, out, err
            )
        if done["truncated"]:
            raise TransportError(f"{self.name}: {shown[:200]!r} printed more than fits a message")
        return Ran(done["code"], out, err)

    def facts(
        self, nonce: str | None = None, timeout: float = 60, only: Sequence[str] | None = None
    ) -> dict[str, Any]:
        """See Transport. An answer to another question is an error, not facts.

        ``only`` names areas (``installers.facts.AREAS``); no others are then read.
        """
        asked = {} if only is None else {"only": list(only)}
        facts: dict[str, Any] = self.call("facts", timeout=timeout, nonce=nonce, **asked)
        if facts.get("nonce") != nonce:
            raise TransportError(f"{self.name}: the facts are the answer to another question")
        return facts

    def identity(self, nonce: str | None = None, timeout: float = 30) -> dict[str, Any]:
        """Which machine answers, at which time: machine_id, hostname, boot_id, clock, nonce."""
        found: dict[str, Any] = self.call("identity", timeout=timeout, nonce=nonce)
        return found

    def probe(self, timeout: float = 60) -> list[dict[str, Any]]:
        """Tries the ways out that must not exist; see installers.probe."""
        found: list[dict[str, Any]] = self.call("probe", timeout=timeout)
        return found

    def controls(
        self, *, stranger: bytes | None = None, module: str = "nvidia", timeout: float = 600
    ) -> list[dict[str, Any]]:
        """The three module loads; ``stranger`` is a detached CMS of somebody else, in DER."""
        args = {"module": module}
        if stranger is not None:
            args["stranger_b64"] = base64.b64encode(stranger).decode()
        found: list[dict[str, Any]] = self.call("controls", timeout=timeout, **args)
        return found

    def hygiene(
        self, secrets: Sequence[bytes], *, paths: Sequence[str] | None = None, timeout: float = 900
    ) -> dict[str, Any]:
        """Searches the node's files for secrets; see installers.collect.search."""
        coded = [base64.b64encode(secret).decode() for secret in secrets]
        chosen = None if paths is None else list(paths)
        found: dict[str, Any] = self.call(
            "hygiene", timeout=timeout, secrets_b64=coded, paths=chosen
        )
        return found

    def cards(self, timeout: float = 1000) -> dict[str, Any]:
        """Has the node try its cards, for its facts; see installers.collect.cards."""
        found: dict[str, Any] = self.call("cards", timeout=timeout)
        return found

    def thaw(self, name: str, mac: str, timeout: float = 30) -> dict[str, Any]:
        """Makes a fork of a frozen machine one of its own; see installers.thaw."""
        entropy = base64.b64encode(os.urandom(64)).decode()
        done: dict[str, Any] = self.call(
            "thaw", timeout=timeout, clock=time.time(), entropy_b64=entropy, name=name, mac=mac
        )
        return done

    def apply(
        self,
        metadata: str | dict[str, Any] | None = None,
        *,
        only: Sequence[str] = (),
        timeout: float = 3600,
    ) -> dict[str, Any]:
        """Runs installers: {"code", "summary"}; ``metadata`` is a URL or the object itself."""
        done: dict[str, Any] = self.call(
            "apply", timeout=timeout, metadata=metadata, only=list(only)
        )
        return done

    def put(self, data: bytes, path: str, *, mode: int = 0o644, timeout: float = 120) -> None:
        """Writes a file; it appears under its name when all of it is there, verified by digest."""
        starts = range(0, max(1, len(data)), PART)
        for start in starts:
            done = self.call(
                "put",
                timeout=timeout,
                path=path,
                data_b64=base64.b64encode(data[start : start + PART]).decode(),
                append=start > 0,
                last=start + PART >= len(data),
                mode=mode,
            )
        if done["sha256"] != hashlib.sha256(data).hexdigest():
            raise TransportError(f"{self.name}: {path} differs from what was sent")

    def put_file(self, source: Path, path: str, *, timeout: float = 120) -> None:
        """As ``put``, of a file here, with its permissions."""
        self.put(source.read_bytes(), path, mode=source.stat().st_mode & 0o777, timeout=timeout)

    def get(self, path: str, *, timeout: float = 120) -> bytes:
        """The bytes of a file on the node; RemoteError where it cannot be read."""
        data = b""
        while True:
            part = self.call("get", timeout=timeout, path=path, offset=len(data))
            data += base64.b64decode(part["data_b64"])
            if part["eof"]:
                return data
