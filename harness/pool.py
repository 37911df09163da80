"""The nodes of one run: brought up once, outside the test workers, and shared with them.

The pool lives in the process of the run. A worker that dies takes no node with it, and a node
that broke once is remembered: whoever asks again gets the same cause, at once.
"""

from __future__ import annotations

import secrets
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from harness import sbom
from harness.admission import Admission, machine_budget
from harness.cells import Cell
from harness.errors import AirlockError, InfraError
from harness.patterns import look
from harness.providers.base import (
    Job,
    Keep,
    NodeFailed,
    Options,
    Phase,
    Provider,
    Refused,
    Running,
    Stopped,
)
from harness.sabotage import SECONDS, Sabotage
from harness.space import require
from harness.state import RunRecord, state_dir
from harness.station import Station, Unavailable
from harness.sweep import remove_tree
from harness.transports.base import RemoteError

#: Seconds that facts may take; they take well under one.
FACTS_SECONDS = 60.0
#: Seconds that a worker's successor has to come for a node before its room is given away.
ORPHAN_SECONDS = 60.0
#: What a console, a journal and a capture may come to.
CAPSULE_MB = 50

Listener = Callable[[str, str, str], None]
"""``listener(cell id, phase, line)``: what the console shows."""


class Pool:
    """Brings cells up on demand and ends them when their last check is done. Thread-safe."""

    def __init__(
        self,
        cells: Sequence[Cell],
        providers: Mapping[str, Provider],
        run: RunRecord,
        capsules: Path,
        *,
        options: Options | None = None,
        listener: Listener = lambda *_: None,
        admission: Admission | None = None,
        visited: bool = False,
    ) -> None:
        """``visited``: somebody looks at the nodes when all is checked: they stay up until then."""
        self.stations = {
            cell.id: Station(cell, capsules / cell.id, run.scratch / str(number))
            for number, cell in enumerate(cells)
        }
        self.stopping = threading.Event()
        #: Checks that could not even be collected, in words.
        self.lost: list[str] = []
        #: Notified when a node has ended.
        self.changed = threading.Condition()
        self._cell_of: dict[str, str] = {}
        self._providers = providers
        self._run = run
        self._options = options or Options()
        self._listener = listener
        self._admission = admission or machine_budget()
        self._visited = visited

    def acquire(self, cell_id: str) -> Station:
        """The station of a cell whose node is up and whose facts are there. Blocks meanwhile.

        Raises ``Unavailable``; for a cell that broke before, the same one again.
        """
        station = self.stations[cell_id]
        with station.lock:
            station.orphaned = None
            if station.trouble is None and not station.met:
                station.trouble = self._bring_up(station)
            if station.trouble is not None:
                raise station.trouble
            return station

    def call(self, cell_id: str, op: str, timeout: float, args: Mapping[str, Any]) -> Any:
        """One exchange with a node on behalf of a worker. InfraError if it is not up.

        A node that does not answer is broken from then on.
        """
        station = self.stations[cell_id]
        with station.lock:
            if station.running is None:
                raise station.trouble or InfraError(f"{cell_id}: the node is not up")
            try:
                return station.running.transport.call(op, timeout=timeout, **args)
            except RemoteError:
                raise  # the node answered: it is there
            except InfraError as error:
                station.trouble = Unavailable("error", error.message, error.hint)
                raise

    def release(self, cell_id: str) -> None:
        """The cell's last check is done: keep its evidence, end its node."""
        station = self.stations[cell_id]
        if self._visited:
            return
        with station.lock:
            if self._options.keep is Keep.NEVER or station.running is None:
                self._end(station)
                return
            self._gather(station)
            station.released = True
            self._settle(station)

    def end(self, cell_id: str) -> None:
        """End a node, kept or not."""
        station = self.stations[cell_id]
        with station.lock:
            self._end(station)

    def ssh(self, cell_id: str) -> dict[str, Any]:
        """What gets a person into a node; see ``harness.lab.door``."""
        station = self.stations[cell_id]
        with station.lock:
            way: Callable[[Path], dict[str, Any]] | None = getattr(station.running, "ssh", None)
            if way is None:
                raise InfraError(
                    f"{cell_id}: no ssh leads to this node", hint="airlock node ssh NAME -- CMD"
                )
            return way(station.scratch)

    def kept(self) -> list[Station]:
        """The stations whose nodes stay up."""
        return [station for station in self.stations.values() if station.kept]

    def settle(self) -> None:
        """No check will come any more: end what is not to be kept, and keep the rest."""
        for station in self.stations.values():
            with station.lock:
                if station.running is None or self.stopping.is_set():
                    self._end(station)
                    continue
                if not station.kept:
                    self._gather(station)
                    self._decide(station)

    def abandon(self, cell_id: str) -> None:
        """A worker died holding this cell. Another may come for it; it is first to go if none."""
        station = self.stations[cell_id]
        station.orphaned = time.monotonic()

    def collected(self, items: Mapping[str, list[str]], checks: Mapping[str, Any]) -> None:
        """What pytest is going to run: node id -> [cell, check id, instance]; id -> check.

        Every worker says it; all of them say the same, so the first one counts.
        """
        if any(station.promised for station in self.stations.values()):
            return
        for nodeid, (cell, check, instance) in items.items():
            self.stations[cell].promised[nodeid] = {**checks[check], "instance": instance}
            self._cell_of[nodeid] = cell

    def checked(self, nodeid: str, record: Mapping[str, Any]) -> None:
        """What became of one check. A record without an id is completed from the promise."""
        station = self.stations[self._cell_of[nodeid]]
        promise = station.promised[nodeid]
        # A real node may have doubles of its own: what checks of those areas saw is simulated.
        doubled = promise["id"].partition(".")[0] in station.expect.get("doubles", ())
        simulated = station.simulated or doubled
        station.checks[nodeid] = {**promise, **record, "simulated": simulated}
        line = f"{len(station.checks)}/{len(station.promised)} {record['outcome']} {promise['id']}"
        ended = station.trouble.kind if station.trouble else "done"
        self.say(station, "checks" if station.running else ended, line)
        if station.released:
            with station.lock:
                self._settle(station)

    def lose(self, what: str) -> None:
        """A check could not be collected. Every worker says it; once is enough."""
        if what not in self.lost:
            self.lost.append(what)

    def stop(self) -> None:
        """Ask everything that is being made to end soon. Nothing new is started."""
        self.stopping.set()

    def close(self) -> None:
        """End every node that is still up, then the providers."""
        self.stop()
        for station in self.stations.values():
            with station.lock:
                self._end(station)
        for provider in self._providers.values():
            provider.close()

    def say(self, station: Station, phase: str, line: str) -> None:
        """Tell the listener, and remember the last line for an error's message."""
        station.last_line = line or station.last_line
        self._listener(station.cell.id, phase, line)

    def _bring_up(self, station: Station) -> Unavailable | None:
        """Make the node and read its facts; what went wrong, or None."""
        cell = station.cell
        provider = self._providers[cell.provider]
        station.capsule.mkdir(parents=True, exist_ok=True)
        station.scratch.mkdir(mode=0o700, exist_ok=True)
        try:
            if self.stopping.is_set():
                raise Stopped(f"{cell.id}: stopped before it began")
            self.say(station, "waiting", "for memory and cores")
            needs = provider.needs(cell)
            self._admission.enter(cell.id, needs, self.stopping, self._make_room)
            hint = "set AIRLOCK_STATE to a larger disk, or make room"
            require(state_dir(), needs.disk_mb, "a machine's disk", hint)
            require(station.capsule, CAPSULE_MB, "what a cell leaves behind", "make room")
            job = Job(
                cell=cell,
                capsule=station.capsule,
                scratch=station.scratch,
                say=lambda phase, line: self.say(station, phase, line),
                owned=self._run.owned.of(cell.id),
                options=self._options,
                record=station.record,
                stopping=self.stopping,
                broken=cell.sabotage.of_build if cell.sabotage else {},
            )
            station.running = provider.up(job)
            self._collect(station, job)
        except Refused as error:
            station.refusal = error.refusal
            trouble = Unavailable("refused", error.message, error.hint)
        except NodeFailed as error:
            station.cause = error.cause
            trouble = Unavailable("failed", error.message, error.hint)
        except Stopped as error:
            trouble = Unavailable("stopped", error.message)
        except AirlockError as error:
            trouble = Unavailable("error", error.message, error.hint)
        except Exception as error:  # whatever a provider raises is the lab's fault, not the node's
            self._log_bug(station, error)
            trouble = Unavailable("error", f"{type(error).__name__}: {error}")
        else:
            self.say(station, "checks", "")
            return None
        if station.running is None:
            _look(station)
        self._end(station)
        self.say(station, trouble.kind, str(trouble))
        return trouble

    def _log_bug(self, station: Station, error: Exception) -> None:
        lines = traceback.format_exception(error)
        (station.capsule / "harness.log").write_text("".join(lines))

    def _collect(self, station: Station, job: Job) -> None:
        running = station.running
        assert running is not None
        station.simulated = running.simulated
        if sabotage := station.cell.sabotage:
            if sabotage.on_node:
                self._break(running, job, sabotage)
            station.record.provenance["sabotage"] = sabotage.name
        with job.phase("exercise", "controls and probes"):
            running.exercise()
        with job.phase("facts", "one exchange"):
            nonce = secrets.token_hex(8)
            facts = running.transport.facts(nonce, timeout=FACTS_SECONDS)
            if facts.get("nonce") != nonce:
                raise InfraError(
                    "the facts do not echo the nonce: they are not of this exchange",
                    hint="the channel answered with something stale",
                )
            # The node's clock can only be judged beside another that was read at that moment.
            facts["received"] = getattr(running, "received", None) or time.time()
        station.meet(running.expect, facts)
        self._read_ledger(station)
        _write_json(station.capsule / "facts.json", facts)
        sbom.keep(station, facts)
        _write_json(station.capsule / "expect.json", station.expect)
        station.met = True

    def _break(self, running: Running, job: Job, sabotage: Sabotage) -> None:
        with job.phase("sabotage", sabotage.name):
            ran = running.transport.run(sabotage.on_node, timeout=SECONDS)
            if ran.code != 0:
                said = (ran.err or ran.out).decode(errors="replace").strip()[-400:]
                raise InfraError(f"the sabotage {sabotage.name} could not be applied: {said}")

    def _read_ledger(self, station: Station) -> None:
        """The ledger as of now; a provider without a recorded network gives an empty one."""
        assert station.running is not None
        ledger = station.running.ledger()
        if ledger or station.record.build:
            station.ledger = {**ledger, "build": station.record.build or None}

    def _settle(self, station: Station) -> None:
        """Keep or end a node once all that was promised of it is told."""
        waits = station.running is None or station.kept
        if not waits and len(station.checks) >= len(station.promised):
            self._decide(station)

    def _decide(self, station: Station) -> None:
        if self._options.keep is Keep.ALWAYS or (
            self._options.keep is Keep.ON_FAILURE and not station.good
        ):
            station.kept = True
            self.say(station, "kept", "stays up")
        else:
            self._end(station)

    def _end(self, station: Station) -> None:
        """Keep evidence and end the node; nothing here may hide why the cell ended."""
        running = station.running
        if running is not None:
            self._gather(station)
            began = time.monotonic()
            station.running = None
            running.down()
            station.record.phases.append(Phase("end", time.monotonic() - began))
        station.kept = False
        remove_tree(station.scratch)
        self._admission.leave(station.cell.id)
        if running is not None:
            self.say(station, "done", "")
            with self.changed:
                self.changed.notify_all()

    def _gather(self, station: Station) -> None:
        """Put the evidence of a node that is up into its capsule, once."""
        running = station.running
        if running is None or station.released:
            return
        self.say(station, "ending", "")
        began = time.monotonic()
        try:
            if station.met:
                # Checks make requests of their own: the report's ledger is the one at the end.
                self._read_ledger(station)
            running.keep_evidence(station.capsule)
            _look(station)
        except Exception as error:
            problem = f"evidence was lost: {error}"
            station.trouble = station.trouble or Unavailable("error", problem)
        finally:
            if station.ledger:
                _write_json(station.capsule / "ledger.json", station.ledger)
            station.record.phases.append(Phase("evidence", time.monotonic() - began))

    def _make_room(self) -> None:
        """A cell waits: a kept node goes when nothing but kept nodes is in its way."""
        self._end_orphans()
        kept = self.kept()
        if kept and self._admission.inside() <= {station.cell.id for station in kept}:
            self.say(kept[0], "ending", "not kept: another cell needs its room")
            self.end(kept[0].cell.id)

    def _end_orphans(self) -> None:
        """End nodes whose worker died and for which nobody came back: others need the room."""
        now = time.monotonic()
        for station in self.stations.values():
            since = station.orphaned
            if since is None or now - since < ORPHAN_SECONDS or station.running is None:
                continue
            if station.lock.acquire(blocking=False):
                try:
                    self._end(station)
                    lost = "its worker died, and nobody came back for the node"
                    station.trouble = station.trouble or Unavailable("error", lost)
                finally:
                    station.lock.release()


def _look(station: Station) -> None:
    """Look through the console and the journal in a cell's capsule."""
    accelerator = str(station.record.provenance.get("accelerator", ""))
    found = look(station.capsule, station.cell, accelerator)
    station.sightings = found.sightings
    station.record.provenance["console"] = found.words


def _write_json(path: Path, value: object) -> None:
    # msgspec: json's own encoder takes ten times as long to indent, for every cell of a run.
    data = msgspec.json.encode(value, enc_hook=str)
    path.write_bytes(msgspec.json.format(data, indent=1) + b"\n")
