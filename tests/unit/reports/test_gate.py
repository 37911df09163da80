"""The gate's judgement."""

from __future__ import annotations

import msgspec
import pytest

from reports.findings import Finding, Level
from reports.gate import judge
from reports.model import BuildLedger, Cell, Ledger, RunVerdict, Violation
from reports.summary import build_report
from tests.unit.reports.sample import (
    error_cell,
    failing_cell,
    good_report,
    make_cell,
    make_check,
    make_run,
    mixed_report,
    refused_cell,
)

OUT = Violation(text="tcp to 192.0.2.9 port 443, 2 packets", count=2)


def _judged(*cells: Cell) -> tuple[RunVerdict, list[Finding]]:
    judgement = judge(build_report(make_run(), cells))
    return judgement.verdict, list(judgement.findings)


def test_a_good_report_passes_without_a_word() -> None:
    judgement = judge(good_report())
    assert judgement.verdict == "pass"
    assert judgement.findings == ()


def test_the_gate_says_what_the_summary_says() -> None:
    report = mixed_report()
    assert judge(report).verdict == report.summary.verdict == "fail"


def test_findings_come_worst_first() -> None:
    levels = [finding.level for finding in judge(mixed_report()).findings]
    assert levels == sorted(levels, key=["fail", "error", "note"].index)
    assert set(levels) == {"fail", "error", "note"}


def test_only_the_root_cause_is_a_finding() -> None:
    verdict, findings = _judged(failing_cell())
    assert verdict == "fail"
    assert [f.check for f in findings if f.level == "fail"] == ["modules.signature"]
    assert str(findings[0]) == (
        "fail: debian-13+proxy-intercept+gpu: modules.signature failed: nvidia.ko carries no "
        "signature; sign the module after strip and before compression"
    )


@pytest.mark.parametrize(
    ("cell", "verdict", "words"),
    [
        (refused_cell(), "pass", ""),
        (msgspec.structs.replace(refused_cell(), expected="pass"), "fail", "was refused: Debian"),
        (make_cell(expected="refused"), "fail", "should have been refused"),
        (error_cell(), "error", "could not be judged: the VM was not ready"),
        (make_cell(checks=[]), "error", "none of its checks passed"),
        (make_cell(verdict="fail", reason="the build failed"), "fail", "failed: the build failed"),
        (make_cell(verdict="not-run"), "nothing", "did not run: no reason was given"),
        (
            make_cell(ledger=Ledger(probes=3, violations=[OUT])),
            "fail",
            "not everything left through the proxy: tcp to 192.0.2.9 port 443, 2 packets",
        ),
        (
            make_cell(ledger=Ledger(probes=3, build=BuildLedger(probes=3, violations=[OUT]))),
            "fail",
            "through the proxy during the build: tcp to",
        ),
        (make_cell(ledger=Ledger(probes=3, metadata_via_proxy=2)), "fail", "2 metadata requests"),
        (make_cell(ledger=Ledger()), "error", "its capture lacks probes that were sent out (all)"),
        (
            make_cell(ledger=Ledger(probes=1, missing_probes=["2001:db8::1", "probe.invalid"])),
            "error",
            "lacks probes that were sent out (2001:db8::1, probe.invalid)",
        ),
        (
            make_cell(ledger=Ledger(probes=3, build=BuildLedger())),
            "error",
            "its capture during the build lacks probes",
        ),
        (make_cell(ledger=Ledger(probes=3, truncated=True)), "error", "its capture was cut off"),
        (
            make_cell(ledger=Ledger(captured=False, missing_probes=["http://probe.invalid/x"])),
            "error",
            "its log lacks probes that were sent out (http://probe.invalid/x), so it would not",
        ),
    ],
)
def test_one_cell(cell: Cell, verdict: str, words: str) -> None:
    got, findings = _judged(cell)
    assert got == verdict
    assert any(words in str(finding) for finding in findings) or not words


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        (make_cell(simulated=True), "is simulated"),
        (make_cell(ledger=None), "has no ledger"),
        (make_cell(ledger=Ledger(captured=False, probes=1)), "nobody captured its packets"),
        (make_cell(checks=[make_check(), make_check("a.b", "not-verified")]), "1 check could not"),
        (make_cell(checks=[make_check(simulated=True)]), "1 check rests on a double"),
    ],
)
def test_notes_change_no_verdict(cell: Cell, words: str) -> None:
    verdict, findings = _judged(cell)
    level: Level = "note"
    assert verdict == "pass"
    assert [finding.level for finding in findings] == [level]
    assert words in str(findings[0])


def test_a_run_that_was_cut_off_is_not_passed() -> None:
    report = build_report(make_run(finished=None), [make_cell()])
    judgement = judge(report)
    assert judgement.verdict == "error"
    assert "cut off" in judgement.findings[0].message


def test_nothing_ran() -> None:
    verdict, findings = _judged()
    assert verdict == "nothing"
    assert "nothing was proved" in findings[0].message
