"""How pytest-xdist hands out checks: all checks of a cell go to one worker, in their order.

xdist's ``loadgroup`` means the same and stops to, silently, with pytest 9.2; its ``loadscope``
runs a check that killed its worker again, and waits for ever on a worker with a single check left.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence
from typing import Any

import pytest
from xdist.report import report_collection_diff
from xdist.workermanage import WorkerController, parse_tx_spec_config

MARK = "node="


def cell_of(nodeid: str, cells: Collection[str]) -> str | None:
    """The cell in a pytest node id such as ``test_x.py::test_y[node=CELL]``, or None.

    Cell names and pytest both use ``-``: an id with further parameters is cut from its end.
    """
    _, found, rest = nodeid.partition(MARK)
    name = rest.removesuffix("]")
    while found and name:
        if name in cells:
            return name
        name = name.rpartition("-")[0]
    return None


class ByCell:
    """xdist's protocol of a scheduler (xdist.scheduler.protocol). Linear in the checks.

    A worker runs a check when it knows the one after it, or that there is none: one that has a
    single check left gets the next cell, or is told to finish.
    """

    def __init__(self, config: pytest.Config, log: Any, cells: Collection[str]) -> None:
        self.config = config
        self.log = log
        self._cells = cells
        self._expected = len(parse_tx_spec_config(config))
        self._collections: dict[WorkerController, list[str]] = {}
        self._ids: list[str] | None = None
        self._queue: deque[list[int]] = deque()
        # Per worker: indices that were sent and are not done, in the order sent.
        self._sent: dict[WorkerController, dict[int, None]] = {}

    @property
    def nodes(self) -> list[WorkerController]:
        """The workers that are alive."""
        return list(self._sent)

    @property
    def collection_is_completed(self) -> bool:
        """Whether every worker has said what it found; once true, always true."""
        return self._ids is not None or len(self._collections) >= self._expected

    @property
    def tests_finished(self) -> bool:
        """Nothing is left but at most one check per worker, which runs when told to finish."""
        if not self.collection_is_completed or self._queue:
            return False
        return all(len(sent) < 2 for sent in self._sent.values())

    @property
    def has_pending(self) -> bool:
        """Whether any check is not done."""
        return bool(self._queue) or any(self._sent.values())

    def add_node(self, node: WorkerController) -> None:
        """A worker is there."""
        self._sent[node] = {}

    def add_node_collection(self, node: WorkerController, collection: Sequence[str]) -> None:
        """A worker says what it found. One that differs from the others is not used."""
        if self._ids is not None and list(collection) != self._ids:
            self._differs(self._ids, list(collection), node)
            del self._sent[node]
            node.shutdown()
            return
        self._collections[node] = list(collection)

    def schedule(self) -> None:
        """Hand out work: the first time to all, later to a worker that came in another's place."""
        if self._ids is None:
            ids = next(iter(self._collections.values()))
            for node, collection in self._collections.items():
                if collection != ids:
                    self._differs(ids, collection, node)
                    return
            self._ids = ids
            groups: dict[str, list[int]] = {}
            for index, nodeid in enumerate(ids):
                groups.setdefault(cell_of(nodeid, self._cells) or nodeid, []).append(index)
            self._queue.extend(groups.values())
        for node in self.nodes:
            self._feed(node)

    def mark_test_complete(
        self, node: WorkerController, item_index: int, duration: float = 0
    ) -> None:
        """A check is done."""
        del duration
        self._sent[node].pop(item_index, None)
        self._feed(node)

    def remove_node(self, node: WorkerController) -> str | None:
        """A worker has gone; the check that it died in, which is not run again."""
        self._collections.pop(node, None)
        sent = list(self._sent.pop(node))
        if not sent or self._ids is None:
            return None
        died_in, *rest = sent
        groups: dict[str, list[int]] = {}
        for index in rest:
            nodeid = self._ids[index]
            groups.setdefault(cell_of(nodeid, self._cells) or nodeid, []).append(index)
        self._queue.extendleft(reversed(groups.values()))
        for other in self.nodes:
            self._feed(other)
        return self._ids[died_in]

    def mark_test_pending(self, item: str) -> None:
        """Never called: nothing here runs a check twice."""
        raise NotImplementedError(item)

    def remove_pending_tests_from_node(
        self, node: WorkerController, indices: Sequence[int]
    ) -> None:
        """Never called: nothing here takes work back from a worker."""
        raise NotImplementedError(f"{node}: {indices}")

    def _feed(self, node: WorkerController) -> None:
        sent = self._sent[node]
        if len(sent) > 1 or node.shutting_down:
            return
        while self._queue and len(sent) < 2:
            group = self._queue.popleft()
            sent.update(dict.fromkeys(group))
            node.send_runtest_some(group)
        if len(sent) < 2:
            node.shutdown()

    def _differs(self, ours: list[str], theirs: list[str], node: WorkerController) -> None:
        message = report_collection_diff(ours, theirs, "the others", node.gateway.id)
        report = pytest.CollectReport(
            nodeid=node.gateway.id, outcome="failed", longrepr=message, result=[]
        )
        self.config.hook.pytest_collectreport(report=report)
