"""What a large report costs: 1,000 cells of 200 checks, printed, opened in a browser, compared."""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import msgspec

from bench.record import Measurement, against, command, timed
from reports.model import Cell, CheckResult, Report
from reports.summary import build_report
from reports.write import write_report
from tests.unit.reports.sample import big_report, make_run

CELLS, CHECKS = 1000, 200
HTML_LIMIT = 20_000_000
_AIRLOCK = [sys.executable, "-m", "harness.cli"]


def _spoiled(cell: Cell, number: int) -> Cell:
    """Every tenth cell fails: one cause, and ten checks that only follow from it."""
    if number % 10:
        return cell
    cause = cell.checks[number // 10 % 20]
    bad: dict[str, dict[str, Any]] = {
        cause.id: {"message": f"what was found on node {number}, in a sentence"},
        **{check.id: {"depends": [cause.id]} for check in cell.checks[40:50]},
    }
    checks: list[CheckResult] = [
        msgspec.structs.replace(check, outcome="fail", **bad[check.id])
        if check.id in bad
        else check
        for check in cell.checks
    ]
    return msgspec.structs.replace(cell, verdict="fail", checks=checks)


def _large() -> tuple[Report, Report]:
    """A run in which all is well, and the same with every tenth cell spoiled."""
    good = big_report(CELLS, CHECKS)
    bad = [_spoiled(cell, number) for number, cell in enumerate(good.cells)]
    return good, build_report(make_run(id="20251122-093000-2b4c"), bad)


def bench_report_thousand() -> Measurement:
    """``airlock report --html`` under 10 s, and a file under 20 MB."""
    with tempfile.TemporaryDirectory(prefix="airlock-bench-") as folder:
        write_report(_large()[1], folder)
        page = Path(folder) / "page.html"
        argv = [*_AIRLOCK, "report", folder, "--html", str(page)]
        seconds = [timed(lambda: command(argv)) for _ in range(3)]
        size = page.stat().st_size
    if size > HTML_LIMIT:
        print(f"OVER THE LIMIT: {size} bytes of HTML, {HTML_LIMIT} allowed", file=sys.stderr)
    return against(
        "report_thousand", seconds, [10.0], "limit", "s", [" ".join(argv)],
        {"html": f"{size / 1e6:.1f} MB"},
    )  # fmt: skip


def bench_report_thousand_opens() -> Measurement:
    """The same file opens in Chromium in under 2 s: everything loaded, something painted."""
    from reports.render.html import render_html
    from tests.lab.browser import BROWSER, DRIVER, browser, show

    if not (BROWSER and DRIVER):
        sys.exit(
            "report_thousand_opens: no chromium and chromedriver; airlock doctor --fix --tests"
        )
    with tempfile.TemporaryDirectory(prefix="airlock-bench-") as folder, browser() as driver:
        page = Path(folder) / "index.html"
        page.write_text(render_html(_large()[1]), encoding="utf-8")
        seconds = []
        for _ in range(5):
            show(driver, page)
            opened: float = driver.execute_script(
                "return Math.max(performance.getEntriesByType('navigation')[0].loadEventEnd,"
                " ...performance.getEntriesByType('paint').map((paint) => paint.startTime))"
            )
            seconds.append(opened / 1000)
        version = str(driver.capabilities["browserVersion"])
    return against(
        "report_thousand_opens", seconds, [2.0], "limit", "s", [f"chromium {page.as_uri()}"],
        {"chromium": version},
    )  # fmt: skip


def _facts(folder: Path, number: int, *, later: bool) -> None:
    """Facts as large as a node's: some 60 KB, and a few that differ."""
    facts = {
        "clock": 1.0 + later,
        "trust": {"fingerprints": [f"{at:064x}" for at in range(140 - 3 * later)]},
        "packages": {f"package-{at}": f"{at}.{later and not at % 50:d}" for at in range(600)},
        "journal": [{"t": at, "step": "apply", "text": "x" * 60} for at in range(250)],
        "modules": [{"name": f"m{at}", "version": "570" if later else "550"} for at in range(5)],
    }
    path = folder / "cells" / f"image-{number % 40}+scenario-{number // 40}+gpu" / "facts.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(facts))


def bench_diff_thousand() -> Measurement:
    """``airlock diff`` of two such runs, with the facts of every cell, under 5 s."""
    with tempfile.TemporaryDirectory(prefix="airlock-bench-") as folder:
        runs = [Path(folder) / name for name in ("before", "after")]
        good, bad = _large()
        # From the bad one to the good one, which is no failure and ends with 0.
        for run, report in zip(runs, (bad, good), strict=True):
            write_report(report, run)
            for number in range(CELLS):
                _facts(run, number, later=run is runs[1])
        argv = [*_AIRLOCK, "diff", *(str(run) for run in runs)]
        said = command(argv).stdout
        assert "3 roots gone from the bundle (all 1000 cells)" in said, said[:2000]
        assert "driver 550 → 570 (5 modules) (all 1000 cells)" in said
        seconds = [timed(lambda: command(argv)) for _ in range(3)]
    if statistics.median(seconds) > 5:
        print("OVER THE LIMIT: 5 s", file=sys.stderr)
    return against("diff_thousand", seconds, [5.0], "limit", "s", [" ".join(argv)])
