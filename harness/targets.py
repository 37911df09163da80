"""Machines that exist already, by name: ``local`` or ``ssh://[user@]host[:port]``."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from harness.errors import UsageError
from harness.names import nearest
from harness.state import cache_dir
from harness.transports.base import Transport

LOCAL = "local"


@dataclass(frozen=True)
class Target:
    """Where a machine is. ``host`` is empty for the one that we run on."""

    text: str
    host: str = ""
    user: str = ""
    port: int | None = None

    @property
    def name(self) -> str:
        """A name for reports and paths."""
        return self.host or LOCAL


def parse_target(text: str) -> Target:
    """Read a target. UsageError says what is wrong with it."""
    if text == LOCAL:
        return Target(text)
    parts = urlsplit(text)
    if parts.scheme != "ssh":
        hint = nearest(text, [LOCAL, "ssh://host"]) if "://" not in text else "ssh://host or local"
        raise UsageError(f"{text!r} is no target", hint=hint)
    try:
        port = parts.port
    except ValueError as error:
        raise UsageError(f"{text!r} is no target: {error}") from error
    if not parts.hostname or parts.hostname.startswith("-"):
        raise UsageError(f"{text!r} names no host", hint="ssh://[user@]host[:port]")
    if parts.password is not None:
        raise UsageError(
            "a target must not hold a password: it would be seen by everyone on this machine",
            hint="use a key, or the configuration of ssh",
        )
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise UsageError(f"{text!r} is no target", hint="nothing follows ssh://host:port")
    return Target(text, parts.hostname, parts.username or "", port)


def connect(target: Target) -> Transport:
    """A transport to it; connects when first used."""
    from harness import pack

    node_file = pack.pack(cache_dir("node-file")).path
    if not target.host:
        from harness.transports.local import LocalTransport

        return LocalTransport(node_file)
    from harness.transports.ssh import SshTransport

    return SshTransport(target.host, node_file, user=target.user or None, port=target.port)
