"""What ``airlock gce up`` made, written down before it is made: so that ``down`` removes just that.

One file for each network, in the state directory, a JSON object a line, each synced. A line says
what is going to be asked of the API, with the request's id: after a ``kill -9`` the same request is
the same operation there.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from harness.cloud.network import Resource, Site
from harness.errors import UsageError
from harness.state import exclusive, private_dir, state_dir

#: What a description of ours begins with; the rest says whose.
MARK = "made by airlock gce up "


class Journal:
    """The journal of one network. Use ``opened``.

    ``marker`` is the description of everything made, a new one if nothing was; ``site`` is what was
    asked for, None at first.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.marker = f"{MARK}{uuid.uuid4()}"
        self.site: Site | None = None
        self._requests: dict[str, str] = {}
        self._things: dict[str, Resource] = {}
        for entry in _entries(path):
            self._read(entry)

    def _read(self, entry: dict[str, Any]) -> None:
        if entry["what"] == "begin":
            self.marker = entry["marker"]
            given = entry["site"]
            self.site = Site(**{**given, "allow": tuple(given["allow"])})
            return
        thing = Resource(entry["kind"], entry["name"], {}, within=entry["within"])
        if entry["what"] == "make":
            self._things[thing.title] = thing
            self._requests[thing.title] = entry["request"]
        elif entry["what"] in ("made", "refused"):
            self._requests.pop(thing.title, None)
        elif entry["what"] == "gone":
            self._things.pop(thing.title, None)
            self._requests.pop(thing.title, None)

    @property
    def things(self) -> list[Resource]:
        """What was made, or may have been, in that order. Bodies are not kept."""
        return list(self._things.values())

    @property
    def run(self) -> str:
        """The id in the marker, as a label may have it."""
        return self.marker.removeprefix(MARK)

    def begin(self, site: Site) -> None:
        """Write down what is asked for; once for each change of it."""
        if site == self.site:
            return
        self._write({"what": "begin", "marker": self.marker, "site": asdict(site)})

    def adopt(self, site: Site, run: str, things: Sequence[Resource]) -> None:
        """Take over what another machine's journal knows: its run's id, as ``up`` printed it."""
        if self.things:
            raise UsageError(f"{site.name}: {self.path} is the journal of run {self.run}")
        self.marker = f"{MARK}{run}"
        self.begin(site)
        for thing in things:
            self.making(thing)

    def making(self, resource: Resource) -> str:
        """The id of the request that makes it: the one of an attempt that never ended, if any."""
        request = self._requests.get(resource.title) or str(uuid.uuid4())
        self._write({"what": "make", **_named(resource), "request": request})
        return request

    def made(self, resource: Resource, number: str) -> None:
        """It is there. ``number`` is its numeric id."""
        self._write({"what": "made", **_named(resource), "id": number})

    def refused(self, resource: Resource) -> None:
        """Google said no: the same request again would only be told the same."""
        self._write({"what": "refused", **_named(resource)})

    def gone(self, resource: Resource) -> None:
        """It is not there any more."""
        self._write({"what": "gone", **_named(resource)})

    def close(self) -> None:
        """Nothing is left: forget it all."""
        self.path.unlink(missing_ok=True)

    def _write(self, entry: dict[str, Any]) -> None:
        line = json.dumps({**entry, "t": round(time.time(), 3)}, sort_keys=True) + "\n"
        with self.path.open("a+b") as out:
            # A kill -9 in the middle of a write leaves half a line: the next one starts afresh.
            size = out.seek(0, os.SEEK_END)
            if size:
                out.seek(size - 1)
                line = line if out.read(1) == b"\n" else f"\n{line}"
            out.write(line.encode())
            out.flush()
            os.fsync(out.fileno())
        self._read(entry)


@contextlib.contextmanager
def opened(project: str, name: str) -> Iterator[Journal]:
    """The journal of a network, for one process at a time. UsageError: it cannot be read."""
    path = private_dir(state_dir() / "gce" / project) / f"{name}.jsonl"
    with exclusive(path):
        try:
            journal = Journal(path)
        except (KeyError, TypeError) as error:
            hint = "it is not a journal of ours; move it away"
            raise UsageError(f"{path}: {error!r}", hint=hint) from error
        yield journal


def _entries(path: Path) -> Iterator[dict[str, Any]]:
    """Lines of the file; a torn last one is left out: what it says was not begun."""
    with contextlib.suppress(FileNotFoundError):
        for line in path.read_text().splitlines():
            with contextlib.suppress(ValueError):
                yield json.loads(line)


def _named(resource: Resource) -> dict[str, str]:
    return {"kind": resource.kind, "name": resource.name, "within": resource.within}
