"""One pytest session over the cells of a run: in the controller, and in each xdist worker."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

import pytest

from harness.broker import Client
from harness.checks import Check, check_of, record
from harness.plugin import SESSION
from harness.scheduler import MARK, cell_of
from harness.station import Unavailable
from installers.exits import Exit

if TYPE_CHECKING:
    from harness.node import Node

#: The attribute of a test report that holds our record; xdist carries plain data across.
RECORD = "airlock_record"


class AirlockSession:
    """pytest's hooks for a run. The same class serves the controller and the workers."""

    def __init__(self, config: pytest.Config, socket: str) -> None:
        self.is_worker = hasattr(config, "workerinput")
        self._socket = socket
        self._client = Client(socket)
        self.cells: dict[str, dict[str, str]] = {
            cell["id"]: cell for cell in self._client.ask("hello")
        }
        self.outcomes: Counter[str] = Counter()
        self._nodes: dict[str, Node] = {}
        self._told: set[str] = set()

    # Collection

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Every check once for every cell."""
        if "node" in metafunc.fixturenames:
            ids = [f"{MARK}{cell}" for cell in self.cells]
            metafunc.parametrize("node", list(self.cells), ids=ids, indirect=True)

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Cell by cell, so that one node is up at a time."""
        order = {cell: number for number, cell in enumerate(self.cells)}
        items.sort(key=lambda item: order.get(self._cell(item) or "", -1))

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Promise the run what will be checked, so that what does not happen is seen."""
        if not session.items:
            return
        promised: dict[str, list[str]] = {}
        checks: dict[str, Any] = {}
        for item in session.items:
            cell, this = self._cell(item), check_of(item)
            if cell is None:
                continue
            if this is None:
                where = item.nodeid.partition("[")[0]
                self._client.ask("lost", what=f"{where} takes a node but is no check: @check(...)")
                continue
            promised[item.nodeid] = [cell, this.id, _instance(item, cell)]
            checks.setdefault(this.id, _skeleton(this))
        self._client.ask("collected", items=promised, checks=checks)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """A file that cannot be imported is a check that does not run: never a pass."""
        if report.failed:
            why = str(report.longrepr).strip().splitlines()[-1:]
            self._client.ask("lost", what=f"{report.nodeid}: {' '.join(why)}")

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Tell a worker where the run is."""
        node.workerinput[SESSION] = self._socket

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_make_scheduler(self, config: pytest.Config, log: Any) -> Any:
        """One cell, one worker."""
        from harness.scheduler import ByCell

        return ByCell(config, log, self.cells)

    # Nodes

    def node(self, cell: str) -> Node:
        """The cell's node. The first check of a broken cell is an error, the others are skipped."""
        if cell in self._nodes and not self._suspect(cell):
            return self._nodes[cell]
        try:
            lease = self._client.ask("acquire", cell=cell)
        except Unavailable as error:
            if error.kind == "error" and cell not in self._told:
                self._told.add(cell)
                raise
            pytest.skip(f"did not run: {error}")
        from harness.remote import remote_node

        return self._nodes.setdefault(cell, remote_node(self._client, self.cells[cell], lease))

    def _suspect(self, cell: str) -> bool:
        """Whether a call went wrong in a way that may have cost the node."""
        return bool(getattr(self._nodes[cell].transport, "failed", True))

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_teardown(
        self, item: pytest.Item, nextitem: pytest.Item | None
    ) -> Generator[None, Any, Any]:
        """Give the node back when the next item is another cell's."""
        result = yield
        cell = self._cell(item)
        if cell and (nextitem is None or self._cell(nextitem) != cell):
            self._nodes.pop(cell, None)
            self._client.tell("release", cell=cell)
        return result

    # Results

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Put our record on the report, where it crosses from the worker to the controller."""
        report = yield
        this = check_of(item)
        error = call.excinfo.value if call.excinfo else None
        if this is None or (call.when != "call" and error is None):
            return report
        said = record(this, error)
        if isinstance(error, Unavailable):
            said["message"] = str(error)
        elif call.when == "teardown":
            said["outcome"] = "error"
        # An attribute, not a user property: those are the item's, and would be on every phase.
        # What was promised of the check is known on the other side; execnet counts every value.
        told = {key: said[key] for key in ("outcome", "message", "evidence") if said[key]}
        setattr(report, RECORD, {**told, "seconds": call.duration})
        return report

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Tell the run, from the one process that sees every report."""
        said = getattr(report, RECORD, None)
        if self.is_worker:
            return
        # xdist's own report of a worker that died has no phase of a test.
        crashed = report.when not in ("setup", "call", "teardown")
        if crashed and cell_of(report.nodeid, self.cells):
            said = {"outcome": "error", "message": f"did not finish: {report.longrepr}"}
        if said:
            self.outcomes[said["outcome"]] += 1
            self._client.tell("checked", nodeid=report.nodeid, record=said)
        elif report.failed:
            self.outcomes["fail"] += 1

    def pytest_internalerror(self) -> None:
        """An error in pytest, or in a worker's: xdist's controller goes on and has no status."""
        self.outcomes["error"] += 1

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """Map pytest's status to ours: 0 pass, 1 fail, 2 usage, 3 could not tell, 4 nothing."""
        if not self.is_worker:
            self.outcomes["error"] += len(self._client.ask("losses"))
            session.exitstatus = our_exit(int(exitstatus), self.outcomes)

    def _cell(self, item: pytest.Item) -> str | None:
        callspec = getattr(item, "callspec", None)
        return callspec.params.get("node") if callspec else None


def our_exit(status: int, outcomes: Counter[str]) -> Exit:
    """Our exit code for pytest's status and the outcomes of the checks. A known failure counts."""
    if status == pytest.ExitCode.USAGE_ERROR:
        return Exit.USAGE
    if outcomes["fail"]:
        return Exit.FAIL
    interrupted = (pytest.ExitCode.INTERRUPTED, pytest.ExitCode.INTERNAL_ERROR)
    if outcomes["error"] or status in interrupted:
        return Exit.UNKNOWN
    return Exit.PASS if outcomes["pass"] else Exit.NOTHING


def serve_target(config: pytest.Config, target: str) -> str:
    """A run of one cell in this process: the machine ``target``. Returns the broker's socket.

    Everything of it ends when pytest does.
    """
    from harness.broker import Broker
    from harness.pool import Pool
    from harness.providers.host import host_cell
    from harness.providers.registry import load
    from harness.state import RunRecord

    cell = host_cell(target)
    with contextlib.ExitStack() as stack:
        run = stack.enter_context(RunRecord())
        pool = Pool([cell], {cell.provider: load(cell.provider)}, run, run.path / "capsules")
        stack.callback(pool.close)
        broker = stack.enter_context(Broker(pool, run.scratch / "pool"))
        ending = stack.pop_all()
    config.add_cleanup(ending.close)
    return str(broker.path)


def _skeleton(this: Check) -> dict[str, Any]:
    """What is known of a check that did not run."""
    said = record(this, None)
    known = ("id", "title", "severity", "remedy", "depends", "since")
    return {key: said[key] for key in known if key in said}


def _instance(item: pytest.Item, cell: str) -> str:
    """What tells the parametrised instances of one check apart."""
    callspec = getattr(item, "callspec", None)
    parts = callspec.id if callspec else ""
    return str(parts).replace(f"{MARK}{cell}", "").strip("-")
