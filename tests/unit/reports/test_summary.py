"""What cells and checks add up to."""

from __future__ import annotations

from typing import get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reports.causes import fold
from reports.model import (
    BuildLedger,
    CellVerdict,
    CheckOutcome,
    CheckResult,
    Expected,
    Ledger,
    Phase,
    Violation,
)
from reports.summary import (
    Standing,
    build_report,
    cell_verdict,
    elapsed,
    run_verdict,
    standing,
    summarise,
    unproved,
    unwatched,
    violations,
)
from tests.unit.reports.sample import make_cell, make_check, make_run, mixed_report


@pytest.mark.parametrize(
    ("outcomes", "verdict"),
    [
        ([], "not-run"),
        (["pass"], "pass"),
        (["pass", "skip", "not-verified"], "pass"),
        (["skip", "not-verified"], "not-run"),
        (["pass", "error"], "error"),
        (["pass", "error", "fail"], "fail"),
    ],
)
def test_cell_verdict(outcomes: list[CheckOutcome], verdict: str) -> None:
    checks = [make_check(f"a.c{at}", outcome) for at, outcome in enumerate(outcomes)]
    assert cell_verdict(checks) == verdict


@pytest.mark.parametrize(
    ("verdict", "expected", "counts_as"),
    [
        ("pass", "pass", "fine"),
        ("refused", "refused", "fine"),
        ("refused", "pass", "fail"),
        ("pass", "refused", "fail"),
        ("fail", "pass", "fail"),
        ("fail", "refused", "fail"),
        ("error", "pass", "error"),
        ("error", "refused", "error"),
        ("not-run", "pass", "not-run"),
        ("not-run", "refused", "not-run"),
    ],
)
def test_standing(verdict: CellVerdict, expected: Expected, counts_as: Standing) -> None:
    assert standing(make_cell(verdict=verdict, expected=expected)) == counts_as


def test_a_pass_without_a_passed_check_is_no_pass() -> None:
    assert standing(make_cell(checks=[])) == "error"
    assert standing(make_cell(checks=[make_check(outcome="skip")])) == "error"
    assert summarise([make_cell(checks=[])]).verdict == "error"


def test_a_pass_with_an_open_blocker_is_no_pass() -> None:
    checks = [make_check("a.b"), make_check("c.d", "not-verified", severity="blocker")]
    assert standing(make_cell(checks=checks)) == "error"
    assert unproved(make_cell(checks=checks)) == "blockers are not verified: c.d"
    assert standing(make_cell(checks=checks, simulated=True)) == "fine"
    checks[1] = make_check("c.d", "not-verified", severity="major")
    assert standing(make_cell(checks=checks)) == "fine"


@pytest.mark.parametrize(
    ("standings", "verdict"),
    [
        ([], "nothing"),
        (["not-run", "not-run"], "nothing"),
        (["fine"], "pass"),
        (["fine", "fail", "error"], "fail"),
        (["fine", "error"], "error"),
        (["fine", "not-run"], "error"),
        (["fail", "not-run"], "fail"),
    ],
)
def test_run_verdict(standings: list[Standing], verdict: str) -> None:
    assert run_verdict(standings) == verdict


@given(st.lists(st.sampled_from(get_args(Standing))))
def test_a_run_passes_only_when_every_cell_is_fine(standings: list[Standing]) -> None:
    all_fine = bool(standings) and set(standings) == {"fine"}
    assert (run_verdict(standings) == "pass") == all_fine


def test_summary_counts() -> None:
    summary = mixed_report().summary
    assert msgspec.to_builtins(summary) == {
        "verdict": "fail",
        "cells": {
            "total": 6,
            "passed": 2,
            "failed": 1,
            "error": 1,
            "refused": 1,
            "not_run": 1,
            "fine": 3,
            "simulated": 1,
            "inherited": 0,
        },
        "checks": {
            "total": 36,
            "passed": 33,
            "failed": 2,
            "error": 0,
            "skipped": 0,
            "not_verified": 1,
            "simulated": 0,
        },
        "violations": 0,
    }


def test_violations_are_counted_by_packet_in_both_stages() -> None:
    ledger = Ledger(
        violations=[Violation(text="a", count=2), Violation(text="b")],
        build=BuildLedger(violations=[Violation(text="c", count=5)]),
    )
    assert violations(make_cell(ledger=ledger)) == 8
    assert violations(make_cell(ledger=None)) == 0


def test_a_log_alone_watches_no_packets() -> None:
    assert unwatched(make_cell(ledger=None))
    assert unwatched(make_cell(ledger=Ledger(captured=False)))
    assert not unwatched(make_cell(ledger=Ledger(captured=False, build=BuildLedger())))
    assert not unwatched(make_cell(ledger=Ledger()))


def test_time_of_a_cell_counts_nested_phases_once() -> None:
    phases = [
        Phase(name="build", seconds=100, outcome="ok", started=0),
        Phase(name="install", seconds=60, outcome="ok", started=30),
        Phase(name="boot", seconds=20, outcome="ok", started=100),
    ]
    assert elapsed(make_cell(phases=phases)) == 120
    assert elapsed(make_cell(phases=[])) == 0


def test_no_cells_is_nothing() -> None:
    assert build_report(make_run(), []).summary.verdict == "nothing"


def _failed(check_id: str, *depends: str) -> CheckResult:
    return make_check(check_id, "fail", depends=list(depends))


def test_followers_are_folded_under_their_root() -> None:
    trees = fold(
        [
            make_check("a.fine"),
            _failed("c.leaf", "b.middle", "a.fine"),
            _failed("b.middle", "a.root"),
            _failed("a.root", "a.fine"),
            _failed("d.alone"),
        ]
    )
    assert [(tree.check.id, [f.id for f in tree.followers]) for tree in trees] == [
        ("a.root", ["c.leaf", "b.middle"]),
        ("d.alone", []),
    ]


def test_failures_come_before_errors_and_blockers_first() -> None:
    checks = [
        make_check("a.broken", "error", severity="blocker"),
        make_check("b.minor", "fail", severity="minor"),
        make_check("c.blocker", "fail", severity="blocker"),
    ]
    assert [tree.check.id for tree in fold(checks)] == ["c.blocker", "b.minor", "a.broken"]


@given(
    st.lists(
        st.tuples(
            st.sampled_from("abcde"),
            st.sampled_from(["pass", "fail", "error"]),
            st.lists(st.sampled_from("abcde"), max_size=3),
        ),
        max_size=12,
    )
)
def test_every_failure_is_shown_exactly_once(
    shape: list[tuple[str, CheckOutcome, list[str]]],
) -> None:
    """Circles, instances and self-references included."""
    checks = [
        make_check(f"x.{name}", outcome, depends=[f"x.{d}" for d in depends], instance=str(at))
        for at, (name, outcome, depends) in enumerate(shape)
    ]
    shown = [check for tree in fold(checks) for check in (tree.check, *tree.followers)]
    bad = [check for check in checks if check.outcome != "pass"]
    assert sorted(c.instance for c in shown) == sorted(c.instance for c in bad)
