"""The gate by a policy, waivers and a baseline."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import msgspec
import pytest

from reports.findings import MOST, Judgement
from reports.gate import Terms, judge, known_failures
from reports.model import (
    Cell,
    CheckResult,
    Evidence,
    Inherited,
    InstallerResult,
    Ledger,
    Provenance,
    Subject,
    Violation,
)
from reports.policy import (
    BaselineRules,
    EvidenceRules,
    Grace,
    NotVerified,
    Policy,
    Require,
    SubjectRules,
    Waiver,
    WaiverRules,
    matches,
)
from reports.summary import build_report
from tests.unit.reports.sample import (
    STARTED,
    error_cell,
    failing_cell,
    make_cell,
    make_check,
    make_run,
    refused_cell,
)

NOW = STARTED + timedelta(hours=2)
CELL = "debian-13+proxy-intercept+gpu"


def waiver(check: str = "modules.*", scope: str = CELL, **changes: object) -> Waiver:
    made = Waiver(
        check=check,
        scope=scope,
        owner="jane",
        tracker="GPU-7",
        reason="the vendor mends it",
        expires=NOW.date() + timedelta(days=10),
    )
    return msgspec.structs.replace(made, **changes)


def judged(
    cells: list[Cell],
    policy: Policy | None = None,
    *waivers: Waiver,
    baseline: list[Cell] | None = None,
    subject: Subject | None = None,
    now: datetime = NOW,
) -> Judgement:
    policy = policy or Policy()
    known = None
    if baseline is not None:
        known = known_failures(build_report(make_run(), baseline), policy)
    terms = Terms(policy, waivers, known, subject, now)
    return judge(build_report(make_run(), cells), terms)


def says(judgement: Judgement, words: str) -> bool:
    return any(words in str(finding) for finding in judgement.findings)


def failed(*checks: CheckResult, **changes: object) -> Cell:
    return make_cell(CELL, verdict="fail", checks=[make_check("a.good"), *checks], **changes)


# Waivers


def test_a_waived_failure_passes_and_is_said() -> None:
    found = judged([failing_cell()], None, waiver())
    assert (found.verdict, found.waived) == ("pass", 2)
    assert says(found, "modules.signature failed, waived until 2025-12-01 by jane, GPU-7")
    assert found.cells == {CELL: "excused"}


def test_a_waiver_covers_what_it_names_and_not_what_follows_from_it() -> None:
    found = judged([failing_cell()], None, waiver("modules.signature"))
    assert found.verdict == "fail"
    assert says(found, "modules.load-ours failed: the kernel answered EKEYREJECTED")


@pytest.mark.parametrize(
    "wrong", [waiver(scope="debian-12+*"), waiver("trust.os-store"), waiver("modules.sign")]
)
def test_a_waiver_of_something_else_waives_nothing(wrong: Waiver) -> None:
    found = judged([failing_cell()], None, wrong)
    assert (found.verdict, found.waived) == ("fail", 0)
    assert says(found, "was not needed")


def test_an_expired_waiver_waives_nothing_and_is_said_loudly() -> None:
    last = waiver(expires=NOW.date())
    assert judged([failing_cell()], None, last).verdict == "pass", "it holds on its last day"
    found = judged([failing_cell()], None, waiver(expires=date(2025, 11, 20)))
    assert found.verdict == "fail"
    assert says(found, "no signature (its waiver expired on 2025-11-20)")
    assert says(found, "GPU-7) expired on 2025-11-20")


@pytest.mark.parametrize(
    ("wide", "why"),
    [
        (waiver("*"), "'*' covers checks of more than one area"),
        (waiver("*.signature"), "more than one area"),
        (waiver("mod*.signature"), "more than one area"),
        (waiver("modules.*", "*"), "the area modules in every cell"),
        (waiver("modules.[a-z]*", "*+*+*"), "the area modules in every cell"),
        (waiver(expires=date(9999, 12, 31)), "would hold until 9999-12-31"),
    ],
)
def test_a_waiver_that_is_too_wide_waives_nothing(wide: Waiver, why: str) -> None:
    found = judged([failing_cell()], None, wide)
    assert (found.verdict, found.waived) == ("fail", 0)
    assert says(found, why)


@pytest.mark.parametrize("bad", [waiver("trust.x"), waiver("*"), waiver(expires=date(2020, 1, 1))])
def test_strict_waivers_hold_a_good_report_up(bad: Waiver) -> None:
    assert judged([make_cell()], None, bad).verdict == "pass"
    strict = Policy(waivers=WaiverRules(strict=True))
    assert judged([make_cell()], strict, bad).verdict == "fail"


def test_a_waived_cell_must_still_prove_the_rest() -> None:
    bad = make_check("a.bad", "fail")
    covers = waiver("a.bad")
    leak = Violation(text="udp to 192.0.2.9", proto="udp", dst="192.0.2.9")
    assert judged([failed(bad)], None, covers).verdict == "pass"
    assert judged(
        [failed(bad, ledger=Ledger(probes=1, violations=[leak]))], None, covers
    ).verdict == ("fail")
    assert judged([failed(bad, ledger=Ledger())], None, covers).verdict == "error"
    unknown = make_check("a.open", "not-verified", severity="blocker")
    assert judged([failed(bad, unknown)], None, covers).verdict == "error"
    alone = make_cell(CELL, verdict="fail", checks=[bad])
    assert judged([alone], None, covers).verdict == "error", "nothing passed"


def test_what_the_lab_broke_cannot_be_waived() -> None:
    broken = make_check("a.broken", "error", message="the node went away")
    both = waiver("a.*")
    assert judged([failed(make_check("a.bad", "fail"), broken)], None, both).verdict == "error"
    assert (
        judged([make_cell(CELL, verdict="error", checks=[broken])], None, both).verdict == "error"
    )
    assert judged([make_cell(CELL, verdict="fail", checks=[])], None, both).verdict == "fail"


def test_a_blocker_that_is_not_verified_can_be_waived() -> None:
    cell = make_cell(
        CELL, checks=[make_check("a.x"), make_check("a.y", "not-verified", severity="blocker")]
    )
    assert judged([cell]).verdict == "error"
    found = judged([cell], None, waiver("a.y"))
    assert (found.verdict, found.waived) == ("pass", 1)


@pytest.mark.parametrize(
    ("pattern", "name", "is_"),
    [
        ("a.b*", "a.bc", True),
        ("a.b", "a.bc", False),
        ("a.?", "a.bc", False),
        ("a.[bc]", "a.c", True),
    ],
)
def test_patterns(pattern: str, name: str, is_: bool) -> None:
    assert matches(pattern, name) is is_


# The policy


def test_severities_that_hold_nothing_up() -> None:
    minor = make_check("a.b", "fail", severity="minor")
    policy = Policy(require=Require(severities=("blocker", "major")))
    assert judged([failed(minor)]).verdict == "fail"
    found = judged([failed(minor)], policy)
    assert (found.verdict, found.excused) == ("pass", {"minor": 1})


def test_a_required_area() -> None:
    policy = Policy(require=Require(areas=("a", "b")))
    one, two = make_check("a.x"), make_check("b.x")
    skipped = make_check("b.x", "skip")
    assert judged([make_cell(checks=[one, two])], policy).verdict == "pass"
    assert judged([make_cell(checks=[one])], policy).verdict == "error"
    assert judged([make_cell(checks=[one, make_check("b.x", "not-verified")])], policy).verdict == (
        "error"
    )
    # It does not apply to one cell, but has to be proved in another.
    assert judged([make_cell(checks=[one, skipped])], policy).verdict == "error"
    cells = [make_cell(checks=[one, skipped]), make_cell(CELL, checks=[one, two])]
    assert judged(cells, policy).verdict == "pass"


def test_not_verified() -> None:
    cell = make_cell(checks=[make_check("a.x"), make_check("a.y", "not-verified")])
    assert judged([cell]).verdict == "pass"
    strict = NotVerified(severities=("blocker", "major"))
    assert judged([cell], Policy(not_verified=strict)).verdict == "error"
    allowed = msgspec.structs.replace(strict, allowed=("a.?",))
    assert judged([cell], Policy(not_verified=allowed)).verdict == "pass"


@pytest.mark.parametrize(
    ("cell", "rules", "words"),
    [
        (make_cell(simulated=True), EvidenceRules(simulated=False), "lets no double count"),
        (make_cell(checks=[make_check(simulated=True)]), EvidenceRules(simulated=False), "1 check"),
        (
            make_cell(checks=[make_check(evidence=[Evidence(text="x", simulated=True)])]),
            EvidenceRules(simulated=False),
            "1 check rests on a double",
        ),
        (make_cell(ledger=None), EvidenceRules(ledger=True), "has no ledger"),
        (
            make_cell(inherited=Inherited(run="r", finished=STARTED)),
            EvidenceRules(inherited=False),
            "which the policy does not allow",
        ),
        (
            make_cell(inherited=Inherited(run="r", finished=STARTED - timedelta(days=9))),
            EvidenceRules(max_age_hours=24),
            "which the policy does not allow",
        ),
    ],
)
def test_evidence_that_does_not_count(cell: Cell, rules: EvidenceRules, words: str) -> None:
    assert judged([cell]).verdict == "pass"
    found = judged([cell], Policy(evidence=rules))
    assert found.verdict == "error"
    assert says(found, words)


def test_a_double_counts_for_the_checks_that_the_policy_names() -> None:
    checks = [make_check("deferred.yarn", simulated=True), make_check("modules.signature")]
    rules = EvidenceRules(simulated=False, doubles=("deferred.*",))
    found = judged([make_cell(checks=checks)], Policy(evidence=rules))
    assert found.verdict == "pass"
    assert says(found, "1 check rests on a double, as the policy has it")
    other = [*checks, make_check("driver.loaded", simulated=True)]
    found = judged([make_cell(checks=other)], Policy(evidence=rules))
    assert found.verdict == "error"
    assert says(found, "1 check rests on a double, and the policy lets no double count")
    # A cell of doubles says nothing of an image, whatever its checks are called.
    alone = judged([make_cell(checks=checks[:1], simulated=True)], Policy(evidence=rules))
    assert alone.verdict == "error"


def test_freshness() -> None:
    policy = Policy(evidence=EvidenceRules(max_age_hours=24))
    assert judged([make_cell()], policy).verdict == "pass"
    assert judged([make_cell()], policy, now=NOW + timedelta(days=2)).verdict == "error"
    early = judged([make_cell()], policy, now=STARTED - timedelta(hours=1))
    assert early.verdict == "error"
    assert says(early, "which is still to come")


DISK = "d1" * 32
CLOUD = Subject(
    project="p", id="123", created=datetime(2025, 11, 1, tzinfo=UTC), db_sha256=["aa", "bb"]
)


@pytest.mark.parametrize(
    ("bind", "has", "asked", "verdict", "words"),
    [
        (("disk",), Subject(disk_sha256=DISK), Subject(disk_sha256=DISK), "pass", ""),
        (("disk",), None, Subject(disk_sha256=DISK), "error", "does not say which image"),
        (("disk",), Subject(disk_sha256="00"), Subject(disk_sha256=DISK), "error", "another image"),
        (("project", "id", "created", "db"), CLOUD, CLOUD, "pass", ""),
        (("db",), CLOUD, Subject(db_sha256=["bb", "aa"]), "pass", ""),
        (("db",), CLOUD, Subject(db_sha256=["aa"]), "error", "is aa, bb, not aa"),
        (("id",), CLOUD, Subject(id="124"), "error", "numeric id is 123, not 124"),
        (("created",), CLOUD, Subject(), "error", "not unknown"),
        ((), None, None, "pass", ""),
    ],
)
def test_the_report_is_bound_to_the_image(
    bind: tuple[str, ...], has: Subject | None, asked: Subject | None, verdict: str, words: str
) -> None:
    cells = [make_cell(provenance=Provenance(subject=has)), refused_cell()]
    policy = Policy(subject=msgspec.convert({"bind": bind}, SubjectRules))
    found = judged(cells, policy, subject=asked)
    assert found.verdict == verdict
    assert says(found, words) or not words


def test_a_new_check_only_warns_for_a_while() -> None:
    new = make_check("a.new", "fail", since=NOW.date() - timedelta(days=5))
    policy = Policy(grace=Grace(days=6))
    assert judged([failed(new)]).verdict == "fail"
    found = judged([failed(new)], policy)
    assert (found.verdict, found.excused) == ("pass", {"new": 1})
    assert judged([failed(new)], policy, now=NOW + timedelta(days=1)).verdict == "fail"
    assert judged([failed(make_check("a.old", "fail"))], policy).verdict == "fail"


# The baseline


def test_only_what_got_worse_holds_up() -> None:
    old, new = make_check("a.old", "fail"), make_check("a.new", "fail")
    assert judged([failed(old)], baseline=[failed(old)]).verdict == "pass"
    found = judged([failed(old, new)], baseline=[failed(old)])
    assert found.verdict == "fail"
    assert found.excused == {"known": 1}
    assert [f.check for f in found.findings if f.level == "fail"] == ["a.new"]
    every = Policy(baseline=BaselineRules(hold="all"))
    assert judged([failed(old)], every, baseline=[failed(old)]).verdict == "fail"


def test_a_failure_is_known_by_cell_and_instance() -> None:
    one, two = (make_check("a.b", "fail", instance=name) for name in ("x", "y"))
    assert judged([failed(two)], baseline=[failed(one)]).verdict == "fail"
    elsewhere = make_cell(verdict="fail", checks=[make_check(), one])
    assert judged([failed(one)], baseline=[elsewhere]).verdict == "fail"


def test_what_followed_from_another_failure_was_known_too() -> None:
    follower = make_check("a.follows", "fail", depends=["a.root"])
    root = make_check("a.root", "fail")
    assert judged([failed(follower)], baseline=[failed(root, follower)]).verdict == "pass"


def test_a_leak_is_known_by_where_it_went() -> None:
    def leaking(dst: str) -> Cell:
        return make_cell(ledger=Ledger(probes=1, violations=[Violation(text="out", dst=dst)]))

    assert judged([leaking("192.0.2.1")], baseline=[leaking("192.0.2.1")]).verdict == "pass"
    assert judged([leaking("192.0.2.2")], baseline=[leaking("192.0.2.1")]).verdict == "fail"


def test_what_could_not_be_told_is_never_known() -> None:
    cell = error_cell()
    assert judged([cell], baseline=[cell]).verdict == "error"
    broken = failed(make_check("a.bad", "fail"), make_check("a.lost", "error"))
    assert judged([broken], baseline=[broken]).verdict == "error"


# Whose fault


@pytest.mark.parametrize(
    ("cell", "blame"),
    [
        (failed(make_check("a.b", "fail")), "product"),
        (make_cell(ledger=Ledger(probes=1, metadata_via_proxy=1)), "product"),
        (
            make_cell(
                verdict="fail",
                checks=[],
                installers=[InstallerResult(name="driver", outcome="failed")],
            ),
            "installer",
        ),
        (msgspec.structs.replace(refused_cell(), expected="pass"), "installer"),
        (error_cell(), "environment"),
        (make_cell(verdict="error", checks=[make_check("a.b", "error")]), "harness"),
        (make_cell(ledger=Ledger()), "harness"),
        (
            make_cell(verdict="error", checks=[], reason="Quota 'GPUS_ALL_REGIONS' exceeded"),
            "quota",
        ),
        (make_cell(verdict="not-run", reason="ZONE_RESOURCE_POOL_EXHAUSTED"), "quota"),
    ],
)
def test_whose_fault_it_is(cell: Cell, blame: str) -> None:
    assert dict(judged([cell]).blames) == {blame: 1}


def test_many_findings_are_counted_and_not_all_kept() -> None:
    checks = [make_check("a.b", "fail", instance=str(at)) for at in range(MOST + 5)]
    found = judged([failed(*checks)])
    assert found.blames == {"product": MOST + 5}
    assert sum(finding.level == "fail" for finding in found.findings) == MOST
    assert found.left_out == 5
