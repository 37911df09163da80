"""Orchestrates a run: refusals, nodes, checks, report, verdict.

The nodes live in this process (``pool``); the checks run in pytest, a child in a session of its
own, so that Ctrl-C on the terminal reaches this process alone, which then stops things in order.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

from harness.broker import Broker
from harness.catalog import CONFORMANCE, ROOMS
from harness.cells import Cell
from harness.compose import compose, compose_cell, untried_cell
from harness.console import open_console
from harness.durations import in_turn, measured, remember
from harness.errors import InfraError, NothingToDo, UsageError
from harness.keeping import Holder, keep_nodes
from harness.kept import Kept
from harness.outdir import point_latest
from harness.pool import Pool
from harness.providers.base import Options, Provider
from harness.providers.registry import load
from harness.requirements import unmet
from harness.results import Results
from harness.shards import Shard
from harness.state import RunRecord
from harness.station import Station
from harness.sweep import end_children, sweep
from harness.verdict import EXITS
from installers.exits import Exit
from reports import model
from reports.errors import ReportError
from reports.gate import judge
from reports.render.files import write_renderings
from reports.write import write_report

#: Seconds an orderly stop may take before pytest is ended.
ORDERLY = 20.0


@dataclass(frozen=True)
class Request:
    """What a run is asked to do.

    ``providers`` are used instead of those of the registry. ``keyword`` is
    pytest's ``-k`` over node ids, which hold cell and check. ``visit`` is called with each cell
    after its checks, while its node (if it has one) is still up, and may use the terminal; Ctrl-C
    is a KeyboardInterrupt in it, which stops the run in order where it is not caught. ``shard``:
    the cells are this part of a matrix.
    """

    cells: Sequence[Cell]
    matrix: str
    out: Path = Path("out")
    workers: int = 0
    options: Options = field(default_factory=Options)
    keyword: str = ""
    conformance: Path = CONFORMANCE
    providers: Mapping[str, Provider] = field(default_factory=dict)
    visit: Callable[[Station], None] | None = None
    shard: Shard | None = None


@dataclass(frozen=True)
class Outcome:
    """Where the report is, and what it says."""

    directory: Path
    report: model.Report
    exit: Exit
    kept: Sequence[Kept] = ()
    #: Serves the kept nodes until the last of them has ended; None if there is none.
    hold: Callable[[], None] | None = None


def run(request: Request) -> Outcome:
    """Run the cells and write the report. Raises UsageError, NothingToDo, InfraError."""
    started = datetime.now(UTC)
    wanted = _keyword_matcher(request.keyword)
    with ExitStack() as stack:
        # On two levels: a kept node outlives the console and the brake, not what it lives on.
        record = stack.enter_context(RunRecord())
        watched = stack.enter_context(ExitStack())
        screen = watched.enter_context(ExitStack())
        console = screen.enter_context(open_console(cell.id for cell in request.cells))
        swept = sweep()
        for line in [*swept.ended, *(f"REFUSED TO DIE: {line}" for line in swept.refused)]:
            console.note(f"left by a run that was killed: {line}")
        directory = request.out / record.id
        (directory / "cells").mkdir(parents=True)
        providers = {
            name: request.providers.get(name) or load(name)
            for name in dict.fromkeys(cell.provider for cell in request.cells)
        }
        untried = _untried(request.cells, providers)
        results = Results(request.conformance) if _inheritable(request) else None
        if results:
            untried |= _inherited(request.cells, untried, results, providers, directory)
        tried = _ordered([cell for cell in request.cells if cell.id not in untried], providers)
        for cell in untried.values():
            console.cell(cell.id, cell.verdict, cell.reason)
        pool = Pool(
            tried,
            providers,
            record,
            directory.resolve() / "cells",
            options=request.options,
            listener=console.cell,
            visited=request.visit is not None,
        )
        # Whatever happens below: no node outlives the run, but one that is kept.
        stack.callback(end_children, record.id, record.owned)
        stack.callback(pool.close)
        broker = stack.enter_context(Broker(pool, record.scratch / "pool"))
        brake = watched.enter_context(Brake(pool, record, console.note))
        cause = ""
        if tried:
            cause = _check(request, broker, directory, brake, len(tried))
        if request.visit and not brake.pulled:
            screen.close()
            _visit(request.visit, pool, brake)
        pool.settle()
        done = {
            cell.id: compose_cell(pool.stations[cell.id], cause, pool.lost)
            for cell in tried
            if not _deselected(pool, cell, request.keyword, cause)
        }
        done |= {name: cell for name, cell in untried.items() if wanted(name)}
        for name, cell in done.items():
            console.cell(name, cell.verdict, cell.reason)
        if not done:
            raise NothingToDo(f"-k {request.keyword!r} selects no check of any cell")
        ordered = [done[cell.id] for cell in request.cells if cell.id in done]
        whole = not brake.pulled
        report = compose(record.id, started, request.matrix, ordered, whole, request.shard)
        _write(report, request.out, directory)
        remember(ordered)
        if results:
            for each in tried:
                if each.id in done:
                    provider = providers[each.provider]
                    results.keep(each, provider, done[each.id], report.run, directory)
        outcome = Outcome(directory, report, EXITS[judge(report).verdict])
        if pool.kept():
            watched.close()
            kept = keep_nodes(pool, record, broker.path, done)
            outcome = replace(outcome, kept=kept, hold=Holder(pool, kept, stack.pop_all()))
    return outcome


def _ordered(cells: Sequence[Cell], providers: Mapping[str, Provider]) -> list[Cell]:
    """The cells in the order in which they are begun; the report has the matrix's."""
    took = measured()

    def seconds(cell: Cell) -> float:
        known = took.get((cell.provider, cell.id))
        return providers[cell.provider].minutes(cell) * 60 if known is None else known

    return [cells[place] for place in in_turn((c.image.name, seconds(c)) for c in cells)]


def _write(report: model.Report, out: Path, directory: Path) -> None:
    try:
        write_report(report, directory)
        write_renderings(report, directory)
    except ReportError as error:
        raise InfraError(error.message, hint=error.hint) from error
    point_latest(out, directory)


class Brake:
    """Ctrl-C once stops in order, twice at once. A context manager over SIGINT and SIGTERM."""

    def __init__(self, pool: Pool, record: RunRecord, note: Callable[[str], None]) -> None:
        self.pulled = 0
        self.since = 0.0
        self._pool = pool
        self._record = record
        self._note = note
        self._before: dict[signal.Signals, object] = {}

    def __enter__(self) -> Brake:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._pull)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    @contextmanager
    def lifted(self) -> Iterator[None]:
        """For code that waits for a person: Ctrl-C and SIGTERM raise in it, as they usually do."""
        if self._before:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            signal.signal(signal.SIGTERM, _terminated)
        try:
            yield
        finally:
            for number in self._before:
                signal.signal(number, self._pull)

    def pull(self) -> None:
        """Stop in order; a second time: now."""
        self.pulled += 1
        self.since = self.since or time.monotonic()
        self._pool.stop()
        if self.pulled == 1:
            self._note("stopping in order; once more ends everything now")
        else:
            end_children(self._record.id, self._record.owned)

    def _pull(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self.pull()


def _terminated(number: int, frame: FrameType | None) -> None:
    del number, frame
    raise SystemExit(Exit.UNKNOWN)


def _visit(visit: Callable[[Station], None], pool: Pool, brake: Brake) -> None:
    try:
        with brake.lifted():
            for station in pool.stations.values():
                visit(station)
    except KeyboardInterrupt:
        brake.pull()


def _untried(cells: Sequence[Cell], providers: Mapping[str, Provider]) -> dict[str, model.Cell]:
    """Cells that are refused or impossible here, before anything is fetched or built."""
    found = {}
    for cell in cells:
        provider = providers[cell.provider]
        refusal = provider.refusal(cell)
        if refusal:
            found[cell.id] = untried_cell(cell, "refused", refusal.reason, refusal.remedy)
            continue
        reasons = unmet(cell, provider)
        if reasons:
            remedy = "airlock doctor says what this machine lacks"
            found[cell.id] = untried_cell(cell, "not-run", "; ".join(reasons), remedy)
    return found


def _inheritable(request: Request) -> bool:
    """Whether results of this run may be taken from, and kept for, others: it is a plain one."""
    plain = not (request.keyword or any(cell.sabotage for cell in request.cells))
    return plain and not (request.options.fresh or request.options.boot_anew)


def _inherited(
    cells: Sequence[Cell],
    untried: Mapping[str, model.Cell],
    results: Results,
    providers: Mapping[str, Provider],
    directory: Path,
) -> dict[str, model.Cell]:
    """Earlier results of cells that have not changed since, where the cell allows it."""
    found = {}
    for cell in cells:
        if cell.inherit and cell.id not in untried:
            earlier = results.find(cell, providers[cell.provider], directory)
            if earlier:
                found[cell.id] = earlier
    return found


def _check(request: Request, broker: Broker, directory: Path, brake: Brake, cells: int) -> str:
    """Run pytest over the cells. Why promised checks may be missing; empty if none should be."""
    log = directory / "pytest.log"
    with log.open("wb") as out:
        child = subprocess.Popen(
            pytest_command(request, broker.path, cells),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            env=pytest_environment(),
            start_new_session=True,
        )
        asked = False
        while True:
            try:
                status = child.wait(timeout=0.1)
                break
            except subprocess.TimeoutExpired:
                pass
            if brake.pulled and not asked:
                asked = True
                child.send_signal(signal.SIGINT)
            if brake.pulled > 1 or (brake.pulled and time.monotonic() - brake.since > ORDERLY):
                child.kill()
    if brake.pulled:
        return "stopped by the user"
    if status in (Exit.PASS, Exit.FAIL, Exit.UNKNOWN, Exit.NOTHING):
        return ""
    if status == Exit.USAGE:
        raise UsageError(f"pytest refused to start: {_tail(log)}")
    return f"pytest ended with status {status}: {_tail(log)}"


def pytest_command(request: Request, socket: Path, cells: int) -> list[str]:
    """The command line that runs the checks of a run."""
    workers = min(request.workers or os.cpu_count() or 1, cells)
    home = request.conformance.resolve().parent
    keyword = ["-k", request.keyword] if request.keyword else []
    return [
        *(sys.executable, "-m", "pytest", str(request.conformance)),
        # No configuration but this command line: the same checks in a checkout and in a tool.
        # Without a confcutdir pytest would look into every directory from the root down.
        *("-c", os.devnull, f"--rootdir={home}", f"--confcutdir={home}"),
        *("-p", "xdist.plugin", "-p", "harness.plugin", "-p", "no:cacheprovider"),
        *("-n", str(workers), f"--max-worker-restart={workers * 2}"),
        *("--strict-markers", "--tb=short", "-q", f"--airlock-run={socket}", *keyword),
    ]


def pytest_environment() -> dict[str, str]:
    """This process's environment, so that pytest finds the rooms and nobody's habits."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
    paths = [str(ROOMS), environment.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    # Plugins that happen to be installed cost each worker seconds and could change verdicts.
    environment["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    return environment


def _tail(log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return " | ".join(lines[-5:]) or "it said nothing"


def _deselected(pool: Pool, cell: Cell, keyword: str, cause: str) -> bool:
    """True if ``-k`` left nothing of a cell, so that it was never meant to run."""
    station = pool.stations[cell.id]
    return (
        bool(keyword)
        and not station.promised
        and station.trouble is None
        and not cause
        and not pool.lost
    )


def _keyword_matcher(keyword: str) -> Callable[[str], bool]:
    """Does ``-k`` mean this cell? UsageError for an expression that is none."""
    if not keyword:
        return lambda _: True
    from _pytest.mark.expression import Expression

    try:
        expression = Expression.compile(keyword)
    except SyntaxError as error:
        raise UsageError(f"-k {keyword!r}: {error.msg}") from error

    def means(name: str) -> bool:
        def has(word: str, /, **_: object) -> bool:
            return word.lower() in name.lower()

        return expression.evaluate(has)

    return means
