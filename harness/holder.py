"""The process that holds a node by hand: it owns the machine, its proxy and its metadata server.

    python -m harness.holder        reads an Order (JSON) on standard input

On standard output come JSON lines, ``{"phase", "line"}`` while the node is made and then either
``{"up": NAME}`` or ``{"error", "hint", "exit"}``; after that nobody needs to listen. SIGTERM ends
the node. Whoever has a node already and wants it to stay calls ``hold``.

The socket speaks the broker's language (``harness.broker``): ``call`` relays to the node, ``ssh``
opens a way in for people, ``save`` writes the node to files, ``evidence`` tells what the lab knows.
A node has one channel, so all who want something of it come through here.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import socketserver
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness import held
from harness.broker import failed
from harness.catalog import load_catalog
from harness.cells import Cell
from harness.errors import AirlockError, InfraError, UsageError
from harness.held import NODE, Held, Order
from harness.names import nearest
from harness.providers.base import Job, Options, Provider, Running
from harness.providers.registry import load
from harness.state import RunRecord, boot_id, exclusive, private_dir, started_at, state_dir
from harness.sweep import end_children, sweep


def main() -> int:
    """Make the node that standard input asks for and hold it until a signal comes."""
    order = Order(**json.load(sys.stdin))
    ending = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: ending.set())
    try:
        with _made(order, ending) as made, hold(*made, order.name):
            _tell({"up": order.name})
            _let_go()
            ending.wait()
    except AirlockError as error:
        with contextlib.suppress(BrokenPipeError):  # whoever asked has gone
            _tell({"error": error.message, "hint": error.hint, "exit": int(error.exit)})
        return int(error.exit)
    return 0


@contextlib.contextmanager
def hold(running: Running, cell: Cell, record: RunRecord, name: str) -> Iterator[Held]:
    """Let a node that is up be found by ``name`` and served, for the time of the block."""
    path = record.scratch / "hold"
    door = _Door(str(path), _Handler)
    door.running = running
    door.record = record.path
    thread = threading.Thread(target=door.serve_forever, args=(0.1,), name="hold", daemon=True)
    thread.start()
    try:
        yield _announce(record, cell, name, str(path))
    finally:
        door.shutdown()
        door.server_close()
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def _made(order: Order, ending: threading.Event) -> Iterator[tuple[Running, Cell, RunRecord]]:
    cell = find_cell(order)
    sweep()
    with contextlib.ExitStack() as stack:
        record = stack.enter_context(RunRecord())
        _announce(record, cell, order.name, "")
        provider = load(order.provider)
        capsule = record.path / "capsule"
        capsule.mkdir()
        place = record.scratch / "0"
        place.mkdir(mode=0o700)
        job = Job(
            cell=cell,
            capsule=capsule,
            scratch=place,
            say=lambda phase, line: _tell({"phase": phase, "line": line}),
            owned=record.owned,
            options=Options(boot_anew=order.boot_anew),
            stopping=ending,
        )
        stack.callback(end_children, record.id, record.owned)
        stack.callback(provider.close)
        running = _make(provider, job, order)
        stack.callback(running.down)
        yield running, cell, record


def _make(provider: Provider, job: Job, order: Order) -> Running:
    if order.resume:
        resume = getattr(provider, "resume", None)
        if resume is None:
            raise UsageError(f"{order.provider} cannot resume a saved node")
        running: Running = resume(job, Path(order.resume))
        return running
    if refusal := provider.refusal(job.cell):
        raise UsageError(refusal.reason, hint=refusal.remedy)
    if reasons := provider.reasons_not(job.cell):
        raise InfraError("; ".join(reasons), hint="airlock doctor")
    return provider.up(job)


def find_cell(order: Order) -> Cell:
    """The cell that an order means; UsageError with the nearest name for one that is unknown."""
    catalog = load_catalog(Path(order.matrix).parent)
    image = catalog.image(order.image)
    if order.profile not in catalog.profiles:
        hint = nearest(order.profile, catalog.profiles)
        raise UsageError(f"unknown profile {order.profile!r}", hint=hint)
    return Cell(
        image,
        catalog.scenario(order.scenario),
        catalog.profiles[order.profile],
        order.provider,
    )


def _announce(record: RunRecord, cell: Cell, name: str, path: str) -> Held:
    """Write who we are into our record; UsageError if another node has the name."""
    with exclusive(private_dir(state_dir()) / "nodes"):
        if any(other.name == name and other.record != record.path for other in held.listed()):
            raise UsageError(f"there is a node {name!r} already", hint=f"airlock node down {name}")
        pid = os.getpid()
        us = Held(
            name=name,
            cell=cell.id,
            provider=cell.provider,
            pid=pid,
            start=started_at(pid) or 0,
            boot=boot_id(),
            since=time.time(),
            socket=path,
            record=record.path,
        )
        said = {k: v for k, v in dataclasses.asdict(us).items() if k != "record"}
        partial = record.path / f".{NODE}"
        partial.write_text(json.dumps(said))
        partial.replace(record.path / NODE)
    return us


class _Door(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    block_on_close = False
    running: Running
    record: Path


class _Handler(socketserver.StreamRequestHandler):
    server: _Door

    def handle(self) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for line in self.rfile:
                try:
                    answer = {"ok": True, "result": self._answer(json.loads(line))}
                except Exception as error:  # whoever asked hears it; the node stays
                    answer = failed(error)
                self.wfile.write(json.dumps(answer).encode() + b"\n")

    def _answer(self, ask: dict[str, Any]) -> Any:
        running = self.server.running
        match ask["do"]:
            case "call":
                return running.transport.call(ask["op"], timeout=ask["timeout"], **ask["args"])
            case "ssh":
                return self._method("ssh")(self.server.record)
            case "evidence":
                from harness.capsules.lab import evidence

                return evidence(running)
            case "save":
                return self._method("save")(Path(ask["path"]))
        raise InfraError(f"the holder does not know {ask['do']!r}")

    def _method(self, name: str) -> Any:
        """What only some providers' nodes can do."""
        method = getattr(self.server.running, name, None)
        if method is None:
            raise UsageError(f"a node of this provider cannot do {name!r}")
        return method


def _tell(said: dict[str, Any]) -> None:
    print(json.dumps(said), flush=True)


def _let_go() -> None:
    """Nobody listens any more: the terminal may close."""
    null = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(null, number)
    os.close(null)


if __name__ == "__main__":
    sys.exit(main())
