"""JUnit XML: the shape that both Ant's and Jenkins's schemas allow."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from lxml import etree

from reports.model import Report
from reports.render.junit import render_junit
from reports.summary import build_report
from tests.unit.reports.hostile import hostile_report
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

SCHEMA = etree.XMLSchema(etree.parse(Path(__file__).parent / "junit.xsd"))


def check_shape(document: str) -> ET.Element:
    """Hold a document to what Ant's and Jenkins's schemas have in common; return its root."""
    SCHEMA.assertValid(etree.fromstring(document.encode()))
    root = ET.fromstring(document)
    for number, suite in enumerate(root):
        assert suite.get("id") == str(number)
        for attribute, tag in (("failures", "failure"), ("errors", "error"), ("skipped",) * 2):
            assert int(suite.get(attribute, "")) == len(suite.findall(f"testcase/{tag}"))
        assert int(suite.get("tests", "")) == len(suite.findall("testcase"))
    return root


def test_the_schema_refuses_what_one_reader_would_not_take() -> None:
    document = render_junit(good_report())
    for old, new in (
        (' id="0"', ""),
        ("T09:30:00", "T09:30:00Z"),
        ("<properties>", "<x/><properties>"),
        (' time="0.000"', ' time="1e-3"'),
        ("<system-err/>", ""),
    ):
        assert old in document
        with pytest.raises(etree.DocumentInvalid):
            SCHEMA.assertValid(etree.fromstring(document.replace(old, new, 1).encode()))


@pytest.mark.parametrize(
    "report",
    [good_report(), mixed_report(), hostile_report(), build_report(make_run(), [])],
    ids=["good", "mixed", "hostile", "empty"],
)
def test_shape(report: Report) -> None:
    root = check_shape(render_junit(report))
    assert len(root) == len(report.cells)


def _outcomes(report: Report) -> dict[str, str]:
    root = check_shape(render_junit(report))
    return {
        case.get("name", ""): case[0].tag if len(case) else "pass" for case in root.iter("testcase")
    }


def test_a_failure_is_told_once_by_its_check() -> None:
    outcomes = _outcomes(build_report(make_run(), [failing_cell()]))
    failed = [name for name, outcome in outcomes.items() if outcome == "failure"]
    assert failed == ["modules.signature", "modules.load-ours"]
    assert outcomes["hygiene.machine-id"] == "skipped"
    assert "cell.verdict" not in outcomes


def test_what_no_check_tells_is_told_by_the_cell() -> None:
    assert _outcomes(build_report(make_run(), [error_cell()])) == {"cell.verdict": "error"}
    assert _outcomes(build_report(make_run(), [refused_cell()])) == {"cell.verdict": "pass"}
    unexpected = make_cell(verdict="refused", checks=[], reason="no key")
    assert _outcomes(build_report(make_run(), [unexpected])) == {"cell.verdict": "failure"}
    stopped = make_cell(verdict="not-run", checks=[])
    assert _outcomes(build_report(make_run(), [stopped])) == {"cell.verdict": "skipped"}


def test_not_verified_is_skipped_and_says_so() -> None:
    check = make_check(outcome="not-verified", message="no NVML")
    cell = make_cell(checks=[make_check("a.b"), check])
    root = check_shape(render_junit(build_report(make_run(), [cell])))
    skipped = root.find(".//skipped")
    assert skipped is not None
    assert skipped.get("message") == "not verified: no NVML"


def test_a_failure_carries_remedy_and_evidence() -> None:
    root = check_shape(render_junit(build_report(make_run(), [failing_cell()])))
    failure = root.find(".//failure")
    assert failure is not None
    assert failure.get("message") == "nvidia.ko carries no signature"
    assert "remedy: sign the module" in (failure.text or "")
    assert "00000000  00 00" in (failure.text or "")


def test_the_console_is_there_without_its_escapes() -> None:
    root = check_shape(render_junit(build_report(make_run(), [error_cell()])))
    console = root.findtext(".//system-out") or ""
    assert "[  OK  ] up" in console
    assert "\x1b" not in console


def test_lines_of_an_attribute_survive() -> None:
    cell = make_cell(verdict="fail", checks=[make_check(outcome="fail", message='a "b"\nc\t<d>')])
    root = check_shape(render_junit(build_report(make_run(), [cell])))
    failure = root.find(".//failure")
    assert failure is not None
    assert failure.get("message") == 'a "b"\nc\t<d>'
