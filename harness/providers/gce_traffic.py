"""The requests of one machine at its network's proxy, as that one's log has them."""

from __future__ import annotations

import contextlib
import json
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fixtures.capture import PROBE_NAME
from fixtures.ledger import from_log
from harness.cloud.ledger import ProxyLog
from harness.lab.applying import JOURNAL, packages
from harness.lab.foreign import planned
from harness.lab.provenance import step_end
from harness.providers.base import Job
from harness.transports.base import AgentOperations, RemoteError

# A node under test has no more than its Python for sure; what is answered does not matter.
_ASK = """\
import sys, urllib.request as by
way = by.build_opener(by.ProxyHandler({"http": sys.argv[1]}))
try:
    way.open(sys.argv[2], timeout=20)
except OSError:
    pass
"""


class Traffic:
    """What one machine asked the proxy for. A stage ends where ``next_stage`` is called."""

    def __init__(self, log: ProxyLog, proxy: str, address: str, since: float) -> None:
        """``proxy``: its URL; ``address`` and ``since``: see ``Machine.known_as``."""
        self._log, self._proxy = log, proxy
        self._address, self._since = address, since
        self._earlier = 0
        self._probes: list[str] = []
        self._rows: list[dict[str, Any]] = []

    def probe(self, channel: AgentOperations) -> None:
        """Have the machine ask for what nobody has, so that the log can be seen to be awake."""
        url = f"http://{PROBE_NAME}/{secrets.token_hex(8)}"
        self._probes.append(url)
        with contextlib.suppress(RemoteError):
            channel.run(["python3", "-c", _ASK, self._proxy, url], timeout=60)

    def rows(self) -> list[dict[str, Any]]:
        """This stage's, our own probes among them. InfraError: the log cannot be read."""
        found = self._log.rows(client=self._address, since=self._since)
        self._rows = found[self._earlier :]
        return self._rows

    def ledger(self, rows: list[dict[str, Any]] | None = None) -> dict[str, Any]:
        """This stage's ledger, of ``rows`` or of what the log has now; raises as ``rows``."""
        return from_log(self.rows() if rows is None else rows, self._probes)

    def next_stage(self) -> None:
        """What was read up to now is the last stage's."""
        self._earlier += len(self._rows)
        self._probes, self._rows = [], []

    def keep(self, path: Path) -> None:
        """Write down the rows that were read last."""
        path.write_text("".join(json.dumps(row) + "\n" for row in self._rows))


def installed(
    job: Job, channel: AgentOperations, traffic: Traffic, summary: Mapping[str, Any]
) -> dict[str, Any]:
    """The ledger of the installers' stage, which ends with it; as ``harness.lab.applying`` has it.

    ``summary``: what ``apply --json`` printed.
    """
    journal = ""
    with contextlib.suppress(RemoteError):
        journal = channel.get(JOURNAL).decode(errors="replace")
    traffic.probe(channel)
    rows = traffic.rows()
    found = traffic.ledger(rows) | {
        "proxy_step_end": step_end(journal, "proxy"),
        "packages": packages(rows),
        "planned": planned(job, summary),
    }
    traffic.keep(job.capsule / "build-requests.jsonl")
    traffic.next_stage()
    return found
