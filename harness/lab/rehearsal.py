"""What a node with the deferred configuration has to live through before anybody relies on it.

Once it is ready, and before it is frozen: its daemons are started again while the metadata cannot
be used, when they must not run; then with a stamp of another instance, as an image of a configured
node brings it along, when it must be configured anew. All on the node, by systemd itself.
"""

from __future__ import annotations

import datetime as dt
import json
from typing import TYPE_CHECKING, Any

from fixtures.dataproc import NODE_MANAGER, STARTS
from harness.errors import InfraError
from installers.deferred import stamp

if TYPE_CHECKING:
    from fixtures.metadata import MetadataServer
    from harness.providers.base import Job
    from harness.transports.agent import AgentTransport

_KEY, _UNUSABLE = "ENABLE_MIG", "perhaps"
#: No instance has this number.
STRANGER = "gce:1"
_SECONDS = 900.0
_LOOK = f"""
printf '%s\\n' "$(systemctl show --value -p ActiveState {NODE_MANAGER})" \\
  "$(cat /{STARTS} | tr '\\n' ' ')" "$(cat {stamp.STAMP})" "$(cat {stamp.RESULT})"
"""
_AGAIN = f"systemctl restart {NODE_MANAGER}\n{_LOOK}"
_OTHERS = f"""sed -i 's/"instance": "[^"]*"/"instance": "{STRANGER}"/' {stamp.STAMP}\n"""


class Rehearsal:
    """What was seen: nothing at all where the profile has no deferred configuration.

    ``seen`` has ``when`` (RFC 3339), ``boots`` (a look after each boot), ``failed`` and ``stale``.
    A look: ``daemon`` (systemd's state of the NodeManager), ``starts`` (a word each: gpu=1 where it
    found itself configured, gpu=0 where not), ``instance``, ``outcome`` and ``boot_id``.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        self._wanted = "deferred" in job.cell.profile.installers
        self._boots: list[dict[str, Any]] = []
        self.seen: dict[str, Any] | None = None

    def booted(self, transport: AgentTransport) -> None:
        """Look, after a boot. Raises InfraError where the node cannot be asked."""
        if self._wanted:
            self._boots.append(_seen(transport, _LOOK))

    def live_through(self, transport: AgentTransport, metadata: MetadataServer | None) -> None:
        """The failure and the strange stamp; the node is then as it was. Raises InfraError."""
        if not self._wanted or metadata is None:
            return
        with self._job.phase("rehearse", "a failed configuration and a stamp of another instance"):
            metadata.set(_KEY, _UNUSABLE)
            try:
                failed = _seen(transport, _AGAIN)
            finally:
                metadata.set(_KEY, None)
            stale = _seen(transport, _OTHERS + _AGAIN)
        when = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
        self.seen = {"when": when, "boots": self._boots, "failed": failed, "stale": stale}
        self._boots = []


def _seen(transport: AgentTransport, text: str) -> dict[str, Any]:
    done = transport.run(text, timeout=_SECONDS)
    lines = done.out.decode(errors="replace").splitlines()
    if len(lines) != 4:
        said = done.err.decode(errors="replace").strip()[-300:]
        raise InfraError(f"the deferred configuration could not be looked at: {said}")
    daemon, starts = lines[:2]
    record, result = _record(lines[2]), _record(lines[3])
    return {
        "daemon": daemon,
        "starts": starts.split(),
        "instance": record.get("instance"),
        "outcome": result.get("outcome"),
        "boot_id": result.get("boot_id"),
    }


def _record(line: str) -> dict[str, Any]:
    """A stamp or a result; empty where the node has none, or none that can be read."""
    try:
        value = json.loads(line or "{}")
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
