"""Machines that exist already, by name.

``local``, ``ssh://[user@]host[:port]``, the same with ``ssh+sudo``, or
``gce://[user@]PROJECT/ZONE/NAME``. With ``ssh+sudo`` commands are run by ``sudo -n``: for a user
who is not root, and may become root without a password.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

from harness.errors import UsageError
from harness.names import nearest
from harness.state import cache_dir
from harness.transports.base import Transport

LOCAL = "local"
#: scheme -> the command that gives rights there.
SCHEMES = {"ssh": (), "ssh+sudo": ("sudo", "-n")}
FORMS = (
    "local, ssh://[user@]host[:port], ssh+sudo://... (sudo without a password), or "
    "gce://[user@]PROJECT/ZONE/NAME"
)
#: A project may be of an organisation's domain: example.com:project.
_GCE = re.compile(
    r"gce://(?:(?P<user>[A-Za-z_][\w.-]*)@)?(?P<project>(?:[a-z0-9.-]+:)?[a-z][a-z0-9-]{4,28}[a-z0-9])"
    r"/(?P<zone>[a-z]+-[a-z]+\d+-[a-z])/(?P<name>[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?)"
)


@dataclass(frozen=True)
class Target:
    """Where a machine is. ``host`` is empty for the one that we run on.

    ``become`` is the command that gives rights there. ``project`` and ``zone`` are those of an
    instance on Google Cloud, whose name is ``host``.
    """

    text: str
    host: str = ""
    user: str = ""
    port: int | None = None
    become: tuple[str, ...] = ()
    project: str = ""
    zone: str = ""

    @property
    def name(self) -> str:
        """A name for reports and paths; another for another port of the same host."""
        if not self.host:
            return LOCAL
        where = f"{self.host}-{self.port}" if self.port not in (None, 22) else self.host
        # An address of IPv6 has colons, which mean something in pytest's ids and in paths.
        return re.sub(r"[^\w.-]+", "-", where).strip("-")


def parse_target(text: str) -> Target:
    """Read a target. UsageError says what is wrong with it."""
    if text == LOCAL:
        return Target(text)
    if text.startswith("gce://"):
        found = _GCE.fullmatch(text)
        if not found:
            raise UsageError(f"{text!r} is no target", hint="gce://[user@]PROJECT/ZONE/NAME")
        user, project, zone = found["user"] or "", found["project"], found["zone"]
        return Target(text, found["name"], user, project=project, zone=zone)
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise UsageError(f"{text!r} is no target: {error}") from error
    if parts.scheme not in SCHEMES:
        known = [LOCAL, "ssh://host"]
        raise UsageError(
            f"{text!r} is no target", hint=nearest(text, known) if "://" not in text else FORMS
        )
    if not parts.hostname or parts.hostname.startswith("-"):
        raise UsageError(f"{text!r} names no host", hint="ssh://[user@]host[:port]")
    if parts.password is not None:
        raise UsageError(
            "a target must not hold a password: it would be seen by everyone on this machine",
            hint="use a key, or the configuration of ssh",
        )
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise UsageError(f"{text!r} is no target", hint="nothing follows ssh://host:port")
    become = SCHEMES[parts.scheme]
    return Target(text, parts.hostname, parts.username or "", port, become)


def connect(target: Target, watch: Callable[[], object] = lambda: None) -> Transport:
    """A transport to it; connects when first used, and ``watch`` may end that by raising."""
    from harness import pack

    node_file = pack.pack(cache_dir("node-file")).path
    if not target.host:
        from harness.transports.local import LocalTransport

        return LocalTransport(node_file)
    if target.project:
        from harness.providers.gce_iap import connect_existing

        return connect_existing(target, node_file)
    from harness.transports.ssh import SshTransport

    return SshTransport(
        target.host,
        node_file,
        user=target.user or None,
        port=target.port,
        become=target.become,
        watch=watch,
    )
