"""The pool: one attempt per cell, one cause, admission by memory, and always an end."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fixtures.scenarios import Scenario
from harness.admission import Admission
from harness.broker import Broker, Client
from harness.cells import Cell, Image, Profile
from harness.errors import InfraError
from harness.pool import Pool
from harness.providers.base import Needs, Stopped
from harness.providers.fake import Fake
from harness.scheduler import ByCell, cell_of
from harness.state import RunRecord
from harness.station import Unavailable


def cell(name: str) -> Cell:
    """A cell of the fake provider."""
    return Cell(
        image=Image(name, name, "debian", "12", "bookworm", "linux"),
        scenario=Scenario(name="direct", title="", network="direct"),
        profile=Profile("driver", "", ()),
        provider="fake",
    )


class Counting(Fake):
    """The fake provider, counting what it is asked, with scripts set by the test."""

    def __init__(self, script: dict[str, Any]) -> None:
        self._script = script
        self.ups: list[str] = []

    def up(self, job: Any) -> Any:
        self.ups.append(job.cell.image.name)
        return super().up(job)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunRecord]:
    """A run in a state directory of its own."""
    monkeypatch.setenv("AIRLOCK_STATE", str(tmp_path / "state"))
    with RunRecord() as record:
        yield record


def pool_of(run: RunRecord, provider: Counting, *names: str, memory_mb: int = 100) -> Pool:
    """A pool over cells with these image names."""
    cells = [cell(name) for name in names]
    return Pool(
        cells,
        {"fake": provider},
        run,
        run.path / "capsules",
        admission=Admission(memory_mb, 8),
    )


def test_a_node_is_made_once_and_shared(run: RunRecord) -> None:
    provider = Counting({})
    pool = pool_of(run, provider, "a")
    name = cell("a").id
    first, second = pool.acquire(name), pool.acquire(name)
    assert first is second
    assert provider.ups == ["a"]
    pool.release(name)
    pool.close()
    assert list(run.scratch.iterdir()) == []


def test_what_broke_once_breaks_the_same_way_again(run: RunRecord) -> None:
    provider = Counting({"*": {"behaviour": "error"}})
    pool = pool_of(run, provider, "a")
    causes = []
    for _ in range(3):
        with pytest.raises(Unavailable) as caught:
            pool.acquire(cell("a").id)
        causes.append(caught.value)
    assert causes[0] is causes[1] is causes[2]
    assert provider.ups == ["a"]
    pool.close()


def test_cells_come_in_as_memory_allows(run: RunRecord) -> None:
    provider = Counting({"*": {"memory_mb": 60, "seconds": 0.2}})
    pool = pool_of(run, provider, "a", "b")
    pool.acquire(cell("a").id)
    second = threading.Thread(target=pool.acquire, args=(cell("b").id,))
    second.start()
    time.sleep(0.3)
    assert provider.ups == ["a"]
    pool.release(cell("a").id)
    second.join(5)
    assert provider.ups == ["a", "b"]
    pool.close()


def test_a_cell_that_is_larger_than_the_machine_runs_alone() -> None:
    admission = Admission(10, 1)
    admission.enter("large", Needs(1000, 8), threading.Event(), lambda: None)
    stopping = threading.Event()
    stopping.set()
    with pytest.raises(Stopped):
        admission.enter("other", Needs(1, 1), stopping, lambda: None)
    admission.leave("large")
    admission.enter("other", Needs(1, 1), stopping, lambda: None)


def test_a_stop_ends_what_is_being_made(run: RunRecord) -> None:
    provider = Counting({"*": {"seconds": 60}})
    pool = pool_of(run, provider, "a")
    threading.Timer(0.3, pool.stop).start()
    began = time.monotonic()
    with pytest.raises(Unavailable) as caught:
        pool.acquire(cell("a").id)
    assert caught.value.kind == "stopped"
    assert time.monotonic() - began < 5
    pool.close()


def test_the_broker_answers_with_the_kind_and_survives_nonsense(
    run: RunRecord,
) -> None:
    provider = Counting({"*": {"behaviour": "install-fails"}})
    pool = pool_of(run, provider, "a")
    with Broker(pool, run.scratch / "pool") as broker:
        client = Client(str(broker.path))
        with pytest.raises(Unavailable) as caught:
            client.ask("acquire", cell=cell("a").id)
        assert caught.value.kind == "failed"
        for nonsense in ({"do": "dance"}, {"do": "acquire", "cell": "no such cell"}):
            with pytest.raises(Unavailable) as caught:
                client.ask(**nonsense)
            assert caught.value.kind == "error"
        assert [each["image"] for each in client.ask("hello")] == ["a"]
        client.close()
    with pytest.raises(InfraError, match="cannot reach the run"):
        Client(str(broker.path))
    pool.close()


def test_a_worker_that_hangs_up_leaves_its_node_to_its_successor(run: RunRecord) -> None:
    provider = Counting({})
    pool = pool_of(run, provider, "a")
    with Broker(pool, run.scratch / "pool") as broker:
        client = Client(str(broker.path))
        client.ask("acquire", cell=cell("a").id)
        client.close()
        deadline = time.monotonic() + 5
        while pool.stations[cell("a").id].orphaned is None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        successor = Client(str(broker.path))
        successor.ask("acquire", cell=cell("a").id)
        assert pool.stations[cell("a").id].orphaned is None
        assert provider.ups == ["a"]
        successor.close()
    pool.close()


# The scheduler


class Worker:
    """What the scheduler sees of an xdist worker."""

    def __init__(self, name: str) -> None:
        self.gateway = SimpleNamespace(id=name)
        self.sent: list[int] = []
        self.shutting_down = False

    def send_runtest_some(self, indices: list[int]) -> None:
        self.sent += indices

    def shutdown(self) -> None:
        self.shutting_down = True


def scheduler(cells: list[str], checks: int, workers: int) -> tuple[ByCell, list[Any], list[str]]:
    """A scheduler with workers that have collected ``checks`` checks of every cell."""
    ids = [f"t.py::t{check}[node={name}]" for check in range(checks) for name in cells]
    config: Any = SimpleNamespace(
        getvalue=lambda _: ["popen"] * workers, option=SimpleNamespace(tx=["popen"] * workers)
    )
    made = ByCell(config, None, cells)
    nodes: list[Any] = [Worker(f"gw{number}") for number in range(workers)]
    for node in nodes:
        made.add_node(node)
        made.add_node_collection(node, ids)
    made.schedule()
    return made, nodes, ids


def drain(made: ByCell, nodes: list[Any]) -> dict[str, list[int]]:
    """Let the workers run everything as xdist's do: one check when the next one is known."""
    done: dict[str, list[int]] = {node.gateway.id: [] for node in nodes}
    moved = True
    while moved:
        moved = False
        for node in nodes:
            left = [i for i in node.sent if i not in done[node.gateway.id]]
            if len(left) > 1 or (left and node.shutting_down):
                done[node.gateway.id].append(left[0])
                made.mark_test_complete(node, left[0])
                moved = True
    return done


@pytest.mark.parametrize("workers", [1, 2, 5])
@pytest.mark.parametrize("checks", [1, 2, 7])
def test_every_check_runs_once_and_a_cell_stays_on_one_worker(workers: int, checks: int) -> None:
    cells = ["a", "b-1", "b-2", "c"]
    made, nodes, ids = scheduler(cells, checks, workers)
    done = drain(made, nodes)
    assert sorted(index for each in done.values() for index in each) == list(range(len(ids)))
    assert made.tests_finished
    for name in cells:
        owners = {
            worker
            for worker, indices in done.items()
            for index in indices
            if cell_of(ids[index], cells) == name
        }
        assert len(owners) == 1
    for indices in done.values():
        order = [cell_of(ids[index], cells) for index in indices]
        assert len(set(order)) == sum(a != b for a, b in zip([None, *order], order, strict=False))


@pytest.mark.parametrize("before", [0, 1, 2])
def test_the_check_a_worker_died_in_is_not_run_again_and_nothing_waits(before: int) -> None:
    made, (node,), ids = scheduler(["a"], 3, 1)
    for index in range(before):
        made.mark_test_complete(node, index)
    assert made.remove_node(node) == ids[before]
    clone: Any = Worker("gw1")
    made.add_node(clone)
    made.add_node_collection(clone, ids)
    made.schedule()
    done = drain(made, [clone])
    assert done["gw1"] == list(range(before + 1, 3))
    assert made.tests_finished


def test_the_cell_of_a_check_with_parameters_is_found() -> None:
    cells = {"debian-12+proxy+driver", "debian-12+proxy+driver-x"}
    assert cell_of("t.py::t[node=debian-12+proxy+driver]", cells) == "debian-12+proxy+driver"
    assert cell_of("t.py::t[node=debian-12+proxy+driver-x]", cells) == "debian-12+proxy+driver-x"
    assert cell_of("t.py::t[node=debian-12+proxy+driver-nv-drm]", cells) == "debian-12+proxy+driver"
    assert cell_of("t.py::t[other]", cells) is None


def test_a_cell_that_the_disk_cannot_hold_is_told_so_before_it_begins(run: RunRecord) -> None:
    provider = Counting({"*": {"disk_mb": 1 << 40}})
    pool = pool_of(run, provider, "a")
    with pytest.raises(Unavailable, match=r"no space left for a machine's disk: .*AIRLOCK_STATE"):
        pool.acquire(cell("a").id)
    assert provider.ups == []
    pool.close()
