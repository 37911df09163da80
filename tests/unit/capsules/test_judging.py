"""A check that needs what a capsule does not hold is not verified, never passed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from conformance.system import test_surroundings
from harness.checks import Check, check, check_of, fact, outcome_of
from harness.node import CellNames, Node, NodeAbsent, Recorded
from harness.providers.capsule import Replay
from harness.providers.fake import _good
from tests.unit.core.workbench import REPOSITORY

NAMES = CellNames("i", "s", "p", "capsule")


class Traced(Mapping[str, Any]):
    """Facts that remember which areas were looked into."""

    def __init__(self, facts: Mapping[str, Any]) -> None:
        self._facts, self.seen = facts, set[str]()

    def __getitem__(self, key: str) -> Any:
        self.seen.add(key)
        return self._facts[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._facts)

    def __len__(self) -> int:
        return len(self._facts)


def judged(function: Callable[[Node], None], facts: Mapping[str, Any]) -> str:
    good = _good()
    node = Node("n", NAMES, facts, Replay("c", {}), expect=good["expect"], ledger=good["ledger"])
    try:
        function(node)
    except BaseException as error:
        return outcome_of(error)
    return outcome_of(None)


@pytest.fixture(scope="module")
def shipped() -> list[tuple[Check, Callable[[Node], None]]]:
    items: list[pytest.Item] = []

    class Collected:
        def pytest_collection_finish(self, session: pytest.Session) -> None:
            items.extend(session.items)

    place = str(REPOSITORY / "conformance")
    pytest.main([place, "--collect-only", "-qq", "-p", "no:cacheprovider"], plugins=[Collected()])
    found = [(check_of(item), getattr(item, "obj", None)) for item in items]
    return [(this, function) for this, function in found if this and function]


def test_an_area_that_is_not_there_never_passes(
    shipped: list[tuple[Check, Callable[[Node], None]]],
) -> None:
    good = _good()["facts"]
    wrong, tried = [], 0
    for this, function in shipped:
        traced = Traced(good)
        if judged(function, traced) != "pass":
            continue
        for area in sorted(traced.seen & set(good)):
            tried += 1
            outcome = judged(function, Recorded({k: v for k, v in good.items() if k != area}))
            if outcome != "not-verified":
                wrong.append(f"{this.id} without {area}: {outcome}")
    assert wrong == []
    assert tried > 40


def test_what_takes_a_node_is_not_verified() -> None:
    @check(id="x.command", severity="minor", title="t", remedy="r")
    def command(node: Node) -> None:
        assert node.host.run("true").rc == 0

    @check(id="x.nested", severity="minor", title="t", remedy="r")
    def nested(node: Node) -> None:
        assert node.facts["os"]["of a later day"]

    @check(id="x.fact", severity="minor", title="t", remedy="r")
    def later(node: Node) -> None:
        assert fact(node, "later.value")

    recorded = Recorded({"os": {"id": "debian"}})
    assert [judged(function, recorded) for function in (command, nested, later)] == [
        "not-verified",
        "not-verified",
        "not-verified",
    ]
    # On a node that is there, the second is a defect of the check.
    assert judged(nested, {"os": {}}) == "error"
    with pytest.raises(NodeAbsent, match="does not hold later"):
        recorded.get("later")


def test_the_clock_is_the_one_of_the_capture() -> None:
    assert judged_clock({"clock": 1000.0, "received": 1001.0}) == "pass"
    assert judged_clock({"clock": 1000.0, "received": 9001.0}) == "fail"


def judged_clock(facts: Mapping[str, Any]) -> str:
    return judged(test_surroundings.test_clock, Recorded(facts))
