"""What our own installers left on the node: their journal, the last apply, the signing key's name.

Sources: /var/lib/airlock/journal.jsonl and /var/lib/airlock/state.json.
"""

from __future__ import annotations

import json
from typing import Any

from installers.collect.reader import Reader

JOURNAL = "/var/lib/airlock/journal.jsonl"
STATE = "/var/lib/airlock/state.json"


def journal(reader: Reader) -> list[dict[str, Any]]:
    """Lines of the installers' journal; one cut off by a power loss is noted and left out."""
    found = []
    for number, line in enumerate((reader.text(JOURNAL) or "").splitlines(), 1):
        try:
            entry = json.loads(line)
        except ValueError:
            reader.miss("journal", f"{JOURNAL}:{number} is not JSON")
            continue
        if isinstance(entry, dict):
            found.append(entry)
    return found


def outcomes(state: dict[str, Any]) -> list[dict[str, Any]]:
    """How each installer ended when it was applied last: [{"name", "outcome", "t", ...}]."""
    found = state.get("installers")
    if not isinstance(found, dict):
        return []
    return [{"name": name, **dict(outcome)} for name, outcome in found.items()]


def state(reader: Reader) -> dict[str, Any]:
    """The installers' state file; {} where nothing was ever applied."""
    text = reader.text(STATE)
    if text is None:
        return {}
    try:
        value = json.loads(text)
    except ValueError as error:
        reader.miss("installers", f"{STATE}: {error}")
        return {}
    return value if isinstance(value, dict) else {}
