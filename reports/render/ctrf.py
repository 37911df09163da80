"""CTRF JSON (Common Test Report Format, https://ctrf.io, version 0.0): one document for dashboards.

A check of a cell is a test. As in JUnit XML, what no check of a cell tells (a refusal, a broken
lab) is told by one test of its own, ``cell.verdict``. What could not run is ``other``: CTRF has no
word for "could not tell", and it is neither a failure nor a pass.
"""

from __future__ import annotations

import uuid
from collections import Counter
from datetime import datetime
from typing import Any

import msgspec

from reports.model import Cell, CheckResult, Report
from reports.render.view import check_name
from reports.summary import elapsed, standing, unproved
from reports.text import plain, tail

SPEC_VERSION = "0.0.0"

_STATUS = {"pass": "passed", "fail": "failed", "error": "other"}
_OWN = {"fine": "passed", "fail": "failed", "error": "other", "not-run": "skipped"}
_TRACE_LIMIT = 8_000


def render_ctrf(report: Report) -> str:
    """Return the report as a CTRF document."""
    run = report.run
    tests = [test for cell in report.cells for test in _tests(cell)]
    counts = Counter(test["status"] for test in tests)
    end = run.finished or run.started
    document = {
        "reportFormat": "CTRF",
        "specVersion": SPEC_VERSION,
        # The same report gives the same document.
        "reportId": str(uuid.uuid5(uuid.NAMESPACE_URL, f"airlock:{run.id}")),
        "timestamp": end.isoformat(),
        "generatedBy": "airlock",
        "results": {
            "tool": {"name": "airlock", "version": run.airlock_version},
            "summary": {
                "tests": len(tests),
                "passed": counts["passed"],
                "failed": counts["failed"],
                "skipped": counts["skipped"],
                "pending": 0,
                "other": counts["other"],
                "suites": len(report.cells),
                "start": _milliseconds(run.started),
                "stop": _milliseconds(end),
                "extra": {"verdict": report.summary.verdict},
            },
            "tests": tests,
            "environment": {
                "reportName": plain(run.matrix),
                "buildName": plain(run.id),
                "osPlatform": plain(run.host.os),
                "osRelease": plain(run.host.kernel),
            },
        },
    }
    return msgspec.json.encode(document).decode() + "\n"


def _tests(cell: Cell) -> list[dict[str, Any]]:
    tests = [_test(cell, check) for check in cell.checks]
    if not any(test["status"] in ("failed", "other") for test in tests):
        tests.insert(0, _own_test(cell))
    return tests


def _own_test(cell: Cell) -> dict[str, Any]:
    said = f"{cell.verdict}, expected {cell.expected}"
    reason = cell.reason or unproved(cell)
    return {
        "name": "cell.verdict",
        "status": _OWN[standing(cell)],
        "rawStatus": cell.verdict,
        "duration": round(1000 * elapsed(cell)),
        "suite": [plain(cell.id)],
        "message": plain(f"{said}: {reason}" if reason else said),
        "labels": _labels(cell),
    }


def _test(cell: Cell, check: CheckResult) -> dict[str, Any]:
    area = check.id.partition(".")[0]
    test: dict[str, Any] = {
        "name": plain(check_name(check)),
        "status": _STATUS.get(check.outcome, "skipped"),
        "rawStatus": check.outcome,
        "duration": round(1000 * check.seconds),
        "suite": [plain(cell.id), plain(area)],
        "labels": {**_labels(cell), "severity": check.severity},
    }
    if check.simulated or cell.simulated:
        test["tags"] = ["simulated"]
    if check.outcome != "pass":
        test["message"] = plain(check.message or check.title)
    if check.outcome in ("fail", "error"):
        lines = [check.title, f"remedy: {check.remedy}" if check.remedy else ""]
        lines += [item.text for item in check.evidence]
        test["trace"] = tail(plain("\n".join(line for line in lines if line)), _TRACE_LIMIT)[0]
    return test


def _labels(cell: Cell) -> dict[str, str]:
    return {
        "image": plain(cell.image.name),
        "scenario": plain(cell.scenario),
        "profile": plain(cell.profile),
        "provider": plain(cell.provider),
    }


def _milliseconds(moment: datetime) -> int:
    return round(1000 * moment.timestamp())
