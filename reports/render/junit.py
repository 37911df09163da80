"""JUnit XML, in the shape that GitHub's actions, GitLab and Jenkins all accept.

There is no one standard. This is the common ground of Ant's schema (a fixed order of elements,
a time stamp without zone) and of Jenkins's ``junit-10.xsd``; the tests hold it to both.
A cell is a test suite. What no check of it tells, such as a refusal or a broken lab, is told by
one test case of its own, ``cell.verdict``.
"""

from __future__ import annotations

from datetime import UTC
from xml.sax.saxutils import escape

from reports.model import Cell, CheckResult, Report, Run
from reports.summary import elapsed, standing, unproved
from reports.text import plain, tail

_CONSOLE_LIMIT = 20_000
_ATTRIBUTE = {'"': "&quot;", "\n": "&#10;", "\t": "&#9;"}


def render_junit(report: Report) -> str:
    """Return the report as JUnit XML."""
    lines = ['<?xml version="1.0" encoding="UTF-8"?>', "<testsuites>"]
    for number, cell in enumerate(report.cells):
        lines += _suite(report.run, cell, number)
    lines.append("</testsuites>")
    return "\n".join(lines) + "\n"


def _suite(run: Run, cell: Cell, number: int) -> list[str]:
    cases = [_case(cell, check) for check in cell.checks]
    if not any(kind in ("failure", "error") for kind, _ in cases):
        cases.insert(0, _own_case(cell))
    kinds = [kind for kind, _ in cases]
    seconds = elapsed(cell)
    started = run.started.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return [
        f"<testsuite{_attribute('name', cell.id)}{_attribute('package', cell.image.name)}"
        f' id="{number}" timestamp="{started}"'
        f"{_attribute('hostname', run.host.name or 'localhost')}"
        f' tests="{len(kinds)}" failures="{kinds.count("failure")}" errors="{kinds.count("error")}"'
        f' skipped="{kinds.count("skipped")}" time="{seconds:.3f}">',
        "<properties>",
        *_properties(run, cell),
        "</properties>",
        *(line for _, line in cases),
        f"<system-out>{_text(_console(cell))}</system-out>",
        "<system-err/>",
        "</testsuite>",
    ]


def _own_case(cell: Cell) -> tuple[str, str]:
    """The test case that says what became of the cell as a whole."""
    kind = {"fine": "", "fail": "failure", "error": "error", "not-run": "skipped"}[standing(cell)]
    message = f"{cell.verdict}, expected {cell.expected}"
    reason = cell.reason or unproved(cell)
    if reason:
        message += f": {reason}"
    seconds = elapsed(cell)
    return kind, _testcase(
        cell.id, "cell.verdict", seconds, kind, cell.verdict, message, cell.remedy
    )


def _case(cell: Cell, check: CheckResult) -> tuple[str, str]:
    kinds = {"pass": "", "fail": "failure", "error": "error"}
    kind = kinds.get(check.outcome, "skipped")
    name = f"{check.id}[{check.instance}]" if check.instance else check.id
    message = check.message or check.title
    if check.outcome == "not-verified":
        message = f"not verified: {message}"
    details = []
    if kind in ("failure", "error"):
        details += [check.title, check.message]
        details += [f"remedy: {check.remedy}"] if check.remedy else []
        details += [item.text for item in check.evidence]
    area = check.id.partition(".")[0]
    return kind, _testcase(
        f"{cell.id}.{area}",
        name,
        check.seconds,
        kind,
        check.severity,
        message,
        "\n".join(part for part in details if part),
    )


def _testcase(
    classname: str, name: str, seconds: float, kind: str, type_: str, message: str, text: str
) -> str:
    head = (
        f"<testcase{_attribute('classname', classname)}{_attribute('name', name)}"
        f' time="{seconds:.3f}"'
    )
    if not kind:
        return head + "/>"
    body = _text(text) if kind != "skipped" else ""
    inner = f"<{kind}{_attribute('type', type_)}{_attribute('message', message)}>{body}</{kind}>"
    return f"{head}>{inner}</testcase>"


def _properties(run: Run, cell: Cell) -> list[str]:
    made = cell.provenance
    pairs = {
        "run": run.id,
        "image": cell.image.name,
        "image_digest": cell.image.digest,
        "scenario": cell.scenario,
        "profile": cell.profile,
        "provider": cell.provider,
        "verdict": cell.verdict,
        "expected": cell.expected,
        "simulated": "true" if cell.simulated else "",
        "inherited": cell.inherited.run if cell.inherited else "",
        "kernel": made.kernel,
        "driver_version": made.driver_version,
        "pyz_sha256": made.pyz_sha256 or run.pyz_sha256,
    }
    return [
        f'<property name="{name}"{_attribute("value", value)}/>'
        for name, value in pairs.items()
        if value
    ]


def _console(cell: Cell) -> str:
    """The end of the serial console, where a broken boot is explained."""
    texts = [item.text for item in cell.evidence if item.kind == "serial"]
    return tail("\n".join(texts), _CONSOLE_LIMIT)[0]


def _attribute(name: str, value: str) -> str:
    return f' {name}="{escape(plain(value), _ATTRIBUTE)}"'


def _text(value: str) -> str:
    return escape(plain(value))
