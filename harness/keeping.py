"""The nodes that a run keeps: their records, and the process that stays for them."""

from __future__ import annotations

import secrets
import signal
import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from harness import kept as records
from harness.kept import Kept, Process
from harness.state import RunRecord, boot_id

if TYPE_CHECKING:
    from harness.pool import Pool
    from harness.station import Station
    from reports import model

#: Seconds between two looks at whether a kept node's own processes still live.
LOOK_SECONDS = 1.0


def keep_nodes(
    pool: Pool, run: RunRecord, socket: Path, cells: Mapping[str, model.Cell]
) -> list[Kept]:
    """Write the records of the nodes that stay up. ``cells`` are the report's, by id."""
    holder = records.this_process("holder")
    found = []
    for station in pool.kept():
        name = f"{station.cell.image.name}-{secrets.token_hex(3)}"
        cell = cells.get(station.cell.id)
        kept = _record(name, station, run, socket, holder, _why(cell))
        records.save(kept)
        found.append(kept)
    return found


class Holder:
    """Serves kept nodes until the last has ended or SIGTERM comes; then everything goes.

    Called in the process that made the nodes: what they live on is open there.
    """

    def __init__(self, pool: Pool, kept: Sequence[Kept], lives_on: ExitStack) -> None:
        self._pool = pool
        self._kept = {each.cell: each for each in kept}
        self._lives_on = lives_on
        self._asked = threading.Event()

    def __call__(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._ask)
        with self._lives_on:
            while self._kept and not self._asked.is_set():
                with self._pool.changed:
                    self._pool.changed.wait(LOOK_SECONDS)
                self._look()
        for each in self._kept.values():
            records.forget(each.name)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self._asked.set()

    def _look(self) -> None:
        for cell, each in list(self._kept.items()):
            if each.processes and not any(process.alive for process in each.processes):
                self._pool.end(cell)
            if not self._pool.stations[cell].kept:
                records.forget(each.name)
                del self._kept[cell]


def _record(
    name: str, station: Station, run: RunRecord, socket: Path, holder: Process, why: str
) -> Kept:
    cell = station.cell
    processes = tuple(
        process
        for entry in run.owned.entries()
        if entry["kind"] == "process" and entry["cell"] == cell.id and entry["start"] is not None
        if (process := Process(entry["pid"], entry["start"], entry["what"])).alive
    )
    transport = station.running.transport if station.running else None
    return Kept(
        name=name,
        cell=cell.id,
        image=cell.image.name,
        scenario=cell.scenario.name,
        profile=cell.profile.name,
        provider=cell.provider,
        run=run.id,
        since=datetime.now(UTC).isoformat(timespec="seconds"),
        why=why,
        boot=boot_id(),
        holder=holder,
        processes=processes,
        socket=str(socket),
        channel=str(getattr(transport, "path", "")),
        scratch=str(station.scratch),
        capsule=str(station.capsule),
    )


def _why(cell: model.Cell | None) -> str:
    if cell is None:
        return "kept"
    return f"{cell.verdict}: {cell.reason}" if cell.reason else cell.verdict
