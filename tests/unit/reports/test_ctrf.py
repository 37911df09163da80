"""CTRF JSON: valid, true to the report, and plain."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest

from reports.model import Report
from reports.render.ctrf import render_ctrf
from reports.summary import build_report
from tests.unit.reports.hostile import hostile_report
from tests.unit.reports.sample import (
    failing_cell,
    good_report,
    make_cell,
    make_run,
    mixed_report,
    refused_cell,
)

SCHEMA = json.loads((Path(__file__).parent / "ctrf.schema.json").read_text(encoding="utf-8"))


def _document(report: Report) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(render_ctrf(report))
    jsonschema.validate(
        document, SCHEMA, format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER
    )
    return document


@pytest.mark.parametrize(
    "report",
    [good_report(), mixed_report(), hostile_report(), build_report(make_run(finished=None), [])],
    ids=["good", "mixed", "hostile", "empty"],
)
def test_follows_the_schema_and_adds_up(report: Report) -> None:
    results = _document(report)["results"]
    summary = results["summary"]
    statuses = [test["status"] for test in results["tests"]]
    assert summary["tests"] == len(statuses)
    for status in ("passed", "failed", "skipped", "pending", "other"):
        assert summary[status] == statuses.count(status)
    assert "\x1b" not in "".join(str(test) for test in results["tests"])


def test_the_schema_refuses_what_ctrf_does_not_know() -> None:
    document = _document(good_report())
    document["results"]["tests"][0]["status"] = "not-verified"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, SCHEMA)


def test_a_failure_tells_why_and_what_to_do() -> None:
    tests = _document(build_report(make_run(), [failing_cell()]))["results"]["tests"]
    failed = [test for test in tests if test["status"] == "failed"]
    assert [test["name"] for test in failed] == ["modules.signature", "modules.load-ours"]
    assert failed[0]["message"] == "nvidia.ko carries no signature"
    assert "remedy: sign the module after strip" in failed[0]["trace"]
    assert failed[0]["suite"] == ["debian-13+proxy-intercept+gpu", "modules"]
    skipped = next(test for test in tests if test["name"] == "hygiene.machine-id")
    assert (skipped["status"], skipped["rawStatus"]) == ("skipped", "not-verified")


def test_what_no_check_tells_is_told_by_the_cell() -> None:
    def only(report: Report) -> dict[str, Any]:
        (test,) = _document(report)["results"]["tests"]
        found: dict[str, Any] = test
        return found

    assert only(build_report(make_run(), [refused_cell()]))["status"] == "passed"
    broken = make_cell(verdict="error", checks=[], reason="no ready event")
    said = only(build_report(make_run(), [broken]))
    assert (said["status"], said["message"]) == ("other", "error, expected pass: no ready event")


def test_the_same_report_gives_the_same_document() -> None:
    assert render_ctrf(mixed_report()) == render_ctrf(mixed_report())
