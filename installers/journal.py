"""The journal (what was done, line by line, power-safe) and the state (what is true now)."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator
from typing import Any

from installers.errors import NodeError
from installers.host import Host, make_directory, sync_directory
from installers.redact import redact

STATE_DIR = "/var/lib/airlock"
JOURNAL = f"{STATE_DIR}/journal.jsonl"
STATE = f"{STATE_DIR}/state.json"
SCHEMA = 2
#: Of a state that names a schema which this release cannot read.
_NEWER = "take the release of Airlock that wrote it, or a later one; nothing was changed"


class Journal:
    """``/var/lib/airlock/journal.jsonl``: one JSON object a line, fsynced, redacted.

    ``{"t": unix seconds, "installer", "step", "event": "begin|end|fail", ...}``
    """

    def __init__(self, host: Host) -> None:
        self._host = host

    def write(self, installer: str, step: str, event: str, **data: Any) -> None:
        """Append one line and make it durable."""
        record = {"t": time.time(), "installer": installer, "step": step, "event": event}
        record.update(redact(data, self._host.secrets))
        line = json.dumps(record) + "\n"
        path = self._host.path(JOURNAL)
        make_directory(path.parent)
        new = not path.exists()
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            # A kill -9 in the middle of a write leaves half a line: the next one starts afresh.
            size = os.fstat(descriptor).st_size
            torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
            os.write(descriptor, (b"\n" if torn else b"") + line.encode())
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if new:
            sync_directory(path.parent)

    def log(self, installer: str) -> Log:
        """The journal as one installer sees it."""
        return Log(self, installer)


class Log:
    """What an installer journals with: ``log("step", key=value)`` or ``with log.step("step"):``."""

    def __init__(self, journal: Journal, installer: str) -> None:
        self._journal = journal
        self._installer = installer
        #: Names of the steps that have ended, in their order.
        self.done: list[str] = []

    def __call__(self, step: str, **data: Any) -> None:
        """One line for something that is done."""
        self._journal.write(self._installer, step, "end", **data)

    @contextlib.contextmanager
    def step(self, step: str, **data: Any) -> Iterator[None]:
        """Journal the beginning, and the end with its seconds or the failure with its error."""
        self._journal.write(self._installer, step, "begin", **data)
        started = time.monotonic()
        try:
            yield
        except BaseException as error:
            seconds = round(time.monotonic() - started, 3)
            text = str(error) or type(error).__name__
            self._journal.write(self._installer, step, "fail", seconds=seconds, error=text)
            raise
        self._journal.write(
            self._installer, step, "end", seconds=round(time.monotonic() - started, 3)
        )
        self.done.append(step)


def read_journal(host: Host) -> list[dict[str, Any]]:
    """All whole lines of the journal, oldest first; half lines (power loss) are left out."""
    lines: list[dict[str, Any]] = []
    for line in (host.read(JOURNAL) or "").splitlines():
        with contextlib.suppress(ValueError):
            record = json.loads(line)
            if isinstance(record, dict):
                lines.append(record)
    return lines


def read_state(host: Host) -> dict[str, Any]:
    """``{"schema", "installers": {name: {"outcome", "t", ...}}, "memory": {name: {...}}}``.

    ``memory`` is what an installer must remember to undo its work. Empty parts when there is none.
    A state of an older release is read as this one's. NodeError for that of a newer one, whose
    memory we would lose.
    """
    state: dict[str, Any] = {"schema": SCHEMA, "installers": {}, "memory": {}}
    with contextlib.suppress(ValueError):
        stored = json.loads(host.read(STATE) or "{}")
        if isinstance(stored, dict):
            state.update(_migrated(stored))
    return state


def _migrated(stored: dict[str, Any]) -> dict[str, Any]:
    """A stored state in the schema of today."""
    schema = stored.get("schema", 1)
    if not isinstance(schema, int) or schema > SCHEMA:
        raise NodeError(f"is of schema {schema}, which is not known", where=STATE, remedy=_NEWER)
    parts = {
        key: stored[key] for key in ("installers", "memory") if isinstance(stored.get(key), dict)
    }
    if schema < 2:
        # Before 2 nothing was adopted: what was verified then may have others' settings beside it.
        for known in parts.get("installers", {}).values():
            if isinstance(known, dict):
                known.pop("verified", None)
    return {**parts, "schema": SCHEMA}


def write_state(host: Host, state: dict[str, Any]) -> None:
    """Replace the state, redacted."""
    text = json.dumps(redact(state, host.secrets), indent=1, sort_keys=True) + "\n"
    host.write(STATE, text)


def recall(host: Host, installer: str) -> dict[str, Any]:
    """What an installer remembered; empty when nothing."""
    memory = read_state(host)["memory"].get(installer)
    return memory if isinstance(memory, dict) else {}


def remember(host: Host, installer: str, memory: dict[str, Any]) -> None:
    """Store what an installer needs to undo its work; an empty dictionary forgets."""
    state = read_state(host)
    if memory:
        state["memory"][installer] = memory
    else:
        state["memory"].pop(installer, None)
    write_state(host, state)
