"""How a check says what it found, and when it applies."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any, cast

import pytest

from harness import checks
from harness.checks import Check, CheckBroken, CheckFailed, NotVerified, check, record
from harness.node import Node


def a_node(facts: dict[str, Any] | None = None, **other: Any) -> Node:
    fields = {"facts": facts or {}, "expect": {}, "ledger": None, **other}
    return cast(Node, SimpleNamespace(**fields))


def marked(**other: Any) -> Any:
    values: dict[str, Any] = {"id": "area.name", "severity": "minor", "title": "t", "remedy": "r."}

    @check(**{**values, **other})
    def body(node: Node) -> None:
        node.facts["seen"]

    return body


@pytest.mark.parametrize("name", ["", "area", "Area.name", "a.b.c", "area.two words", "area.-x"])
def test_an_id_is_area_and_name(name: str) -> None:
    with pytest.raises(ValueError, match="not of the form"):
        marked(id=name)


def test_severities_are_three() -> None:
    with pytest.raises(ValueError, match="unknown severity 'critical'"):
        marked(severity="critical")


def test_a_check_may_say_since_when_it_is() -> None:
    (mark,) = marked(since="2026-11-22").pytestmark
    assert record(mark.args[0], None)["since"] == "2026-11-22"
    (mark,) = marked().pytestmark
    assert "since" not in record(mark.args[0], None)
    with pytest.raises(ValueError, match="day"):
        marked(since="2026-02-30")


def test_the_marker_carries_the_check() -> None:
    (mark,) = marked(depends=["area.other"]).pytestmark
    assert mark.name == checks.MARKER
    assert mark.args == (Check("area.name", "minor", "t", "r.", (), ("area.other",)),)


def test_a_check_that_does_not_apply_says_why() -> None:
    with pytest.raises(pytest.skip.Exception, match="needs a proxy that intercepts TLS"):
        marked(requires=checks.intercept)(a_node())
    marked(requires=checks.intercept)(a_node({"seen": 1}, expect={"intercept": True}))


@pytest.mark.parametrize(
    ("requirement", "node"),
    [
        (checks.ledger, a_node(ledger={"requests": 0})),
        (checks.build_ledger, a_node(ledger={"build": {"requests": 1}})),
        (checks.auth, a_node(expect={"auth": True})),
        (checks.secure_boot, a_node(expect={"secure_boot": True})),
        (checks.signed_driver, a_node(expect={"cert_sha256": "00"})),
    ],
)
def test_requirements(requirement: checks.Requirement, node: Node) -> None:
    assert not requirement.why_not(node)
    assert requirement.why_not(a_node()).startswith("does not apply: ")


@pytest.mark.parametrize(
    ("error", "outcome", "message"),
    [
        (None, "pass", ""),
        (CheckFailed("the key is there", ["/root/key"]), "fail", "the key is there"),
        (AssertionError("assert 1 == 2"), "fail", "assert 1 == 2"),
        (NotVerified("no keyctl"), "not-verified", "no keyctl"),
        (pytest.skip.Exception("no proxy"), "skip", "no proxy"),
        (CheckBroken("blind"), "error", "CheckBroken: blind"),
        (KeyError("modules"), "error", "KeyError: 'modules'"),
    ],
)
def test_what_an_exception_stands_for(
    error: BaseException | None, outcome: str, message: str
) -> None:
    this = Check("area.name", "major", "t", "r.")
    said = json.loads(json.dumps(record(this, error)))
    assert (said["outcome"], said["message"]) == (outcome, message)
    assert said["evidence"] == (["/root/key"] if outcome == "fail" and "key" in message else [])
    assert {said["id"], said["severity"], said["title"], said["remedy"]} == {
        *("area.name", "major", "t", "r.")
    }


def test_evidence_is_kept_short() -> None:
    with pytest.raises(CheckFailed) as caught:
        checks.fail("too much", (f"{line} " * 1000 for line in range(1000)))
    assert len(caught.value.evidence) == 41
    assert max(map(len, caught.value.evidence)) <= 600
    assert caught.value.evidence[-1] == "... and 960 more"


@pytest.mark.parametrize(
    ("facts", "why"),
    [
        ({}, "the node did not say why"),
        ({"area": None, "unreadable": {"area": "broken"}}, "broken"),
        ({"area": {"deep": None}, "unreadable": {"area": "far", "area.deep": "near"}}, "near"),
        ({"area": {"deep": []}, "unreadable": {"area.deep": "no such file"}}, "no such file"),
        ({"area": "text"}, "the node did not say why"),
    ],
)
def test_a_fact_that_is_not_there_is_not_verified(facts: dict[str, Any], why: str) -> None:
    with pytest.raises(NotVerified) as caught:
        checks.fact(a_node(facts), "area.deep")
    assert str(caught.value.msg) == f"area.deep could not be read: {why}"


@pytest.mark.parametrize("value", [0, False, [], "", "x", {"a": 1}])
def test_a_fact_that_is_there_is_given(value: Any) -> None:
    assert checks.fact(a_node({"area": {"deep": value}, "unreadable": {}}), "area.deep") == value
