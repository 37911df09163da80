"""The gate's view of one cell: what speaks against it, and what must be said about it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import lru_cache

from reports.blame import Blame, of_cell, of_check
from reports.causes import fold
from reports.findings import Excuse, Finding, Level
from reports.model import Cell, CheckResult, Egress, Subject
from reports.policy import Bound, EvidenceRules, Policy, Waivers, matches
from reports.summary import standing
from reports.text import count

#: How each part of a subject is called, and which field holds it.
BOUND: dict[Bound, tuple[str, str]] = {
    "disk": ("the disk's SHA-256", "disk_sha256"),
    "project": ("the image's project", "project"),
    "id": ("the image's numeric id", "id"),
    "created": ("the image's time of creation", "created"),
    "db": ("the certificates in db", "db_sha256"),
}


@dataclass
class Rules:
    """The terms of a judgement, while it goes on.

    ``whole``: every failed check is a finding, not only those that explain the others.
    ``proved`` collects the areas of which a check has passed.
    """

    policy: Policy
    waivers: Waivers
    known: frozenset[str]
    subject: Subject | None
    now: datetime
    whole: bool = False
    proved: set[str] = field(default_factory=set)

    def stale(self, when: datetime) -> bool:
        """Whether something is older than the policy allows."""
        hours = self.policy.evidence.max_age_hours
        return hours is not None and when < self.now - timedelta(hours=hours)

    def excuse(self, cell: Cell, check: CheckResult) -> tuple[Excuse, str]:
        """Why a failed check holds nothing up, and the words for it; empty if it does."""
        waiver = self.waivers.find(cell, check)
        if waiver:
            return "waived", f"waived until {waiver.expires} by {waiver.owner}, {waiver.tracker}"
        if check.severity not in self.policy.require.severities:
            return "minor", f"and is {check.severity}"
        days = self.policy.grace.days
        if check.since and self.now.date() < check.since + timedelta(days=days):
            return "new", f"and is new since {check.since}: it will count after {days} days"
        return self.excuse_known(_key(cell, check))

    def excuse_known(self, key: str) -> tuple[Excuse, str]:
        """The same for anything that failed before."""
        if key in self.known and self.policy.baseline.hold == "worse":
            return "known", "as it did in the baseline"
        return "", ""


def judge_cell(cell: Cell, rules: Rules) -> Iterator[Finding]:
    """Yield what speaks against a cell, or must be said about it."""
    # Most checks have passed, and there may be a million: the others are looked for once.
    odd = [check for check in cell.checks if check.outcome != "pass"]
    if cell.expected == "pass" and cell.verdict in ("pass", "fail"):
        holds = False
        for finding in _check_findings(cell, odd, rules):
            holds = holds or finding.level != "note"
            yield finding
        if not holds:
            yield from _proof_findings(cell, odd, rules)
    else:
        yield from _verdict_findings(cell, rules)
    yield from _source_findings(cell, odd, rules)


def _check_findings(cell: Cell, odd: list[CheckResult], rules: Rules) -> Iterator[Finding]:
    """What a cell's checks failed at, and what of it holds the release up."""
    bad = [check for check in odd if check.outcome in ("fail", "error")]
    if not bad and cell.verdict == "pass":
        return
    held = []
    failed = [check for check in bad if check.outcome == "fail"]
    for check in failed:
        excuse, words = rules.excuse(cell, check)
        if excuse:
            why = f"{check.id} failed, {words}"
            yield _of_check("note", cell, check, why, excuse)
        else:
            held.append(check)
    roots = held if rules.whole else [tree.check for tree in fold(held)]
    for check in roots:
        late = rules.waivers.late(cell, check)
        why = f": {check.message}" if check.message else ""
        ended = f" (its waiver expired on {late.expires})" if late else ""
        yield _of_check("fail", cell, check, f"{check.id} failed{why}{ended}")
    broken = [check for check in bad if check.outcome == "error"]
    for tree in fold([*held, *broken]):
        if tree.check.outcome == "error":
            why = f"{tree.check.id} could not run: {tree.check.message or 'nobody knows why'}"
            yield _of_check("error", cell, tree.check, why)
    if not bad:
        yield _failed(cell, rules, "cell", f"failed: {_reason(cell)}", of_cell(cell), cell.remedy)


def _proof_findings(cell: Cell, odd: list[CheckResult], rules: Rules) -> Iterator[Finding]:
    """What a cell lacks that has nothing against it."""
    says = "says pass" if cell.verdict == "pass" else "would pass"
    if len(odd) == len(cell.checks) and (cell.checks or cell.verdict == "pass"):
        yield Finding("error", f"{says}, but none of its checks passed", cell=cell.id)
    open_, wanted = [], rules.policy.not_verified
    for check in odd:
        if check.outcome != "not-verified" or check.severity not in wanted.severities:
            continue
        if any(matches(pattern, check.id) for pattern in wanted.allowed):
            continue
        waiver = rules.waivers.find(cell, check)
        if waiver:
            why = f"{check.id} was not verified, waived until {waiver.expires} by {waiver.owner}"
            yield _of_check("note", cell, check, why, "waived")
        else:
            open_.append(check)
    # A double cannot answer everything. Where it counts at all, its cell is marked instead.
    if open_ and not cell.simulated:
        kind = "blockers" if all(check.severity == "blocker" for check in open_) else "checks"
        names = ", ".join(sorted({check.id for check in open_}))
        yield Finding("error", f"{says}, but {kind} are not verified: {names}", cell=cell.id)
    yield from _area_findings(cell, odd, rules)
    yield from _ledger_findings(cell, rules)
    yield from _subject_findings(cell, rules)


def _area_findings(cell: Cell, odd: list[CheckResult], rules: Rules) -> Iterator[Finding]:
    wanted = rules.policy.require.areas
    if not wanted:
        return
    passed = {_area(check.id) for check in cell.checks if check.outcome == "pass"}
    # An area of which every check was skipped does not apply to this cell.
    skipped = {_area(check.id) for check in odd if check.outcome == "skip"}
    rules.proved |= passed
    for area in wanted:
        if area not in passed and area not in skipped:
            why = f"no check of the required area {area} passed"
            yield Finding("error", why, "run the area's checks in this cell", cell.id)


@lru_cache(4096)
def _area(check: str) -> str:
    """The part of a check's id before the dot; there are few, and they come a million times."""
    return check.partition(".")[0]


def _verdict_findings(cell: Cell, rules: Rules) -> Iterator[Finding]:
    """What is wrong with a cell that was not to pass, or could not be judged."""
    blame = of_cell(cell)
    match standing(cell):
        case "not-run":
            why = f"did not run: {_reason(cell)}"
            yield Finding("error", why, cell.remedy, cell.id, blame=blame)
        case "error":
            why = f"could not be judged: {_reason(cell)}"
            yield Finding("error", why, cell.remedy, cell.id, blame=blame)
        case "fail" if cell.expected == "named":
            why = f"{cell.named_by} should have named the cause: its verdict is {cell.verdict}"
            remedy = "the scenario says what names its cause; correct the check or the scenario"
            yield _failed(cell, rules, "named", why, "harness", remedy)
        case "fail" if cell.verdict == "refused":
            why = f"was refused: {_reason(cell)}"
            yield _failed(cell, rules, "refused", why, "installer", cell.remedy)
        case "fail":
            why = f"should have been refused and was not: its verdict is {cell.verdict}"
            remedy = "the matrix names the expected refusal; correct the installer or the matrix"
            yield _failed(cell, rules, "not-refused", why, "installer", remedy)


def _ledger_findings(cell: Cell, rules: Rules) -> Iterator[Finding]:
    if cell.ledger is None:
        if rules.policy.evidence.ledger:
            why = "has no ledger, which the policy asks for: its egress was not watched"
            yield Finding("error", why, "run it where the lab watches its egress", cell.id)
        elif not cell.simulated:
            yield Finding("note", "has no ledger: its egress was not watched", cell=cell.id)
        return
    yield from _egress_findings(cell, rules, "", cell.ledger)
    if cell.ledger.build:
        yield from _egress_findings(cell, rules, " during the build", cell.ledger.build)


def _egress_findings(cell: Cell, rules: Rules, when: str, seen: Egress) -> Iterator[Finding]:
    if seen.violations:
        why = f"passed, but not everything left through the proxy{when}: {seen.violations[0].text}"
        ways = sorted({f"{v.proto} {v.dst} {v.port} {v.name}" for v in seen.violations})
        yield _failed(cell, rules, f"egress{when}:{'|'.join(ways)}", why, "product")
    if seen.metadata_via_proxy:
        asked = count(seen.metadata_via_proxy, "metadata request")
        yield _failed(
            cell,
            rules,
            f"metadata{when}",
            f"passed, but sent {asked} to the proxy{when}",
            "product",
            "put 169.254.169.254 and metadata.google.internal into no-proxy",
        )
    if not seen.captured:
        why = f"passed, but nobody captured its packets{when}: its ledger is the proxy's log alone"
        if rules.policy.evidence.ledger:
            yield Finding("error", why, "run it where the lab watches its egress", cell.id)
        elif not cell.simulated:
            yield Finding("note", why, cell=cell.id)
    if seen.missing_probes or not seen.probes:
        missing = ", ".join(seen.missing_probes) or "all"
        kind, blind = ("capture", "a violation") if seen.captured else ("log", "its requests")
        why = (
            f"passed, but its {kind}{when} lacks probes that were sent out ({missing}), "
            f"so it would not have seen {blind} either"
        )
        yield Finding("error", why, cell=cell.id, blame="harness")
    if seen.truncated:
        why = f"passed, but its capture{when} was cut off"
        yield Finding("error", why, cell=cell.id, blame="harness")


def _subject_findings(cell: Cell, rules: Rules) -> Iterator[Finding]:
    """Whether a cell tested the image that is to be released."""
    tested = cell.provenance.subject or Subject()
    wanted = rules.subject or Subject()
    for part in rules.policy.subject.bind:
        words, name = BOUND[part]
        has, asked = getattr(tested, name), getattr(wanted, name)
        if part == "db":
            has, asked = sorted(has), sorted(asked)
        if not has:
            why = f"does not say which image it tested: {words} is not in its provenance"
            yield Finding("error", why, "run it with an Airlock that records it", cell.id)
        elif has != asked:
            why = f"is about another image: {words} is {_shown(has)}, not {_shown(asked)}"
            yield Finding("error", why, "name the image that the report is about", cell.id)


def _source_findings(cell: Cell, odd: list[CheckResult], rules: Rules) -> Iterator[Finding]:
    """Where a cell's evidence comes from."""
    evidence = rules.policy.evidence
    open_ = len([check for check in odd if check.outcome == "not-verified"])
    if open_:
        yield Finding("note", f"{count(open_, 'check')} could not be verified", cell=cell.id)
    if cell.inherited:
        since = f"{cell.inherited.run} of {cell.inherited.finished:%Y-%m-%d %H:%M %Z}"
        why = f"did not run again: unchanged since run {since}"
        if not evidence.inherited or rules.stale(cell.inherited.finished):
            yield Finding("error", f"{why}, which the policy does not allow", "run it", cell.id)
        else:
            yield Finding("note", why, cell=cell.id)
    yield from _double_findings(cell, evidence)


def _double_findings(cell: Cell, evidence: EvidenceRules) -> Iterator[Finding]:
    """What of a cell's evidence is a double's."""
    found = [c for c in cell.checks if c.simulated or _on_a_double(c)]
    if cell.simulated:
        why, some = "is simulated: it says nothing about a real machine", True
    else:
        # Nobody can have the real ones there: the policy says so, and for which checks.
        taken = [c for c in found if any(matches(pattern, c.id) for pattern in evidence.doubles)]
        some = len(found) > len(taken)
        why = f"{_resting(len(found) - len(taken))} on a double"
        if taken:
            said = f"{_resting(len(taken))} on a double, as the policy has it"
            yield Finding("note", said, cell=cell.id)
    if some and evidence.simulated:
        yield Finding("note", why, cell=cell.id)
    elif some:
        yield Finding("error", f"{why}, and the policy lets no double count", "", cell.id)


def _resting(checks: int) -> str:
    return count(checks, "check rests", "checks rest")


def _on_a_double(check: CheckResult) -> bool:
    return any(seen.simulated for seen in check.evidence)


def _of_check(
    level: Level, cell: Cell, check: CheckResult, why: str, excuse: Excuse = ""
) -> Finding:
    """What is said of one check."""
    blame = of_check(check) if check.outcome in ("fail", "error") else ""
    key = _key(cell, check) if check.outcome == "fail" else ""
    return Finding(level, why, check.remedy, cell.id, check.id, blame, excuse, key)


def _failed(
    cell: Cell, rules: Rules, what: str, why: str, blame: Blame, remedy: str = ""
) -> Finding:
    """A failure that no check says; a note where the baseline had it too."""
    key = f"{cell.id} {what}"
    excuse, words = rules.excuse_known(key)
    if excuse:
        return Finding("note", f"{why}, {words}", remedy, cell.id, "", blame, excuse, key)
    return Finding("fail", why, remedy, cell.id, "", blame, "", key)


def _key(cell: Cell, check: CheckResult) -> str:
    return f"{cell.id} check {check.id}[{check.instance}]"


def _reason(cell: Cell) -> str:
    return cell.reason or "no reason was given"


def _shown(value: object) -> str:
    return ", ".join(value) if isinstance(value, list) else str(value or "unknown")
