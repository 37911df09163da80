"""What a lab knows of a node of its own, for a capsule: the node itself need not be asked."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import msgspec

from harness.errors import InfraError
from harness.providers.base import Running
from harness.station import Station
from installers.capture import excerpt

#: Requests at the proxy that are taken, the last ones.
_REQUESTS = 500


def evidence(running: Running) -> dict[str, Any]:
    """``ledger``, ``expect``, ``requests``, ``console``, ``simulated`` of a node that is up.

    JSON-able. The lab's own secrets are not in it: evidence is kept without them.
    """
    with tempfile.TemporaryDirectory(prefix="airlock-evidence-") as folder:
        running.keep_evidence(Path(folder))
        rows = _text(Path(folder, "requests.jsonl")).splitlines()[-_REQUESTS:]
        # A fork's own console begins where that of the machine it was forked from ends.
        consoles = [_text(Path(folder, name)) for name in ("boot-console.log", "console.log")]
    found = {
        "ledger": running.ledger(),
        "expect": dict(running.expect),
        "requests": [json.loads(row) for row in rows],
        "console": excerpt("".join(consoles)),
        "simulated": running.simulated,
    }
    made: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(found, enc_hook=str))
    return made


def evidence_of(station: Station) -> dict[str, Any]:
    """The same of a cell of a run. InfraError where its node is not up."""
    with station.lock:
        if station.running is None:
            raise InfraError(f"{station.cell.id}: the node is not up")
        return evidence(station.running)


def _text(path: Path) -> str:
    return path.read_text(errors="replace") if path.is_file() else ""
