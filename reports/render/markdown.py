"""A Markdown summary, for a CI job's page or a pull request.

Everything that comes from a node is escaped: it makes no markup, no link and no mention.
"""

from __future__ import annotations

import re

from reports.causes import fold
from reports.model import Cell, Report
from reports.render.words import headline, mark, matrix_name, part_of, verdict_words
from reports.summary import count_checks, elapsed, standing, unproved, unwatched, violations
from reports.text import count, duration, plain

SIZE_LIMIT = 900_000
"""Bytes. GitHub cuts a job summary at 1 MiB."""

_TABLE_LIMIT = 500
_FAILURE_LIMIT = 20
_MESSAGE_LIMIT = 500
_SPECIAL = re.compile(r"([\\`*_\[\]<>&|~$^]|:(?=//)|(?<=www)\.)")
_LIST_START = re.compile(r"^([-+=]|\d+(?=[.)]))")
_REFERENCE = re.compile(r"([@#])")


def render_markdown(report: Report) -> str:
    """Return the report as GitHub-flavoured Markdown."""
    run = report.run
    lines = [
        f"## {mark(report.summary.verdict)} Airlock: {report.summary.verdict}",
        "",
        _paragraph(headline(report)),
        "",
    ]
    if report.cells:
        lines += [
            "| cell | verdict | checks | not verified | egress violations | time |",
            "|---|---|---:|---:|---:|---:|",
            *(_row(cell) for cell in report.cells[:_TABLE_LIMIT]),
            "",
        ]
    if len(report.cells) > _TABLE_LIMIT:
        lines += [f"{len(report.cells) - _TABLE_LIMIT} more cells are in `index.html`.", ""]
    size = _size(lines)
    for cell in report.cells:
        if standing(cell) == "fine":
            continue
        block = _trouble(cell)
        size += _size(block)
        if size > SIZE_LIMIT:
            lines += ["The rest is in `index.html`.", ""]
            break
        lines += block
    lines.append(
        f"Run {_escape(run.id)}, matrix {_escape(matrix_name(run))}, Airlock "
        f"{_escape(run.airlock_version)}, {run.started:%Y-%m-%d %H:%M %Z}{part_of(run)}"
    )
    return "\n".join(lines) + "\n"


def _row(cell: Cell) -> str:
    counts = count_checks(cell.checks)
    simulated = " (simulated)" if cell.simulated else ""
    checks = f"{counts.passed} passed"
    if counts.failed:
        checks += f", {counts.failed} failed"
    if counts.error:
        checks += f", {counts.error} broken"
    went_out = "not watched" if unwatched(cell) else str(violations(cell))
    seconds = duration(elapsed(cell))
    return (
        f"| {_escape(cell.id)} | {mark(standing(cell))} {verdict_words(cell)}{simulated} | {checks}"
        f" | {counts.not_verified} | {went_out} | {seconds} |"
    )


def _trouble(cell: Cell) -> list[str]:
    lines = [f"### {mark(standing(cell))} {_escape(cell.id)}: {verdict_words(cell)}", ""]
    reason = cell.reason or unproved(cell)
    if reason:
        lines += [_paragraph(reason[:_MESSAGE_LIMIT]), ""]
    if cell.remedy:
        lines += [f"**Remedy:** {_escape(cell.remedy[:_MESSAGE_LIMIT])}", ""]
    trees = fold(cell.checks)
    for tree in trees[:_FAILURE_LIMIT]:
        check = tree.check
        name = f"{check.id}[{check.instance}]" if check.instance else check.id
        lines.append(
            f"- **{_escape(name)}** ({check.severity}, {check.outcome}): {_escape(check.title)}"
        )
        if check.message:
            lines.append(f"  - {_escape(check.message[:_MESSAGE_LIMIT])}")
        if check.remedy:
            lines.append(f"  - remedy: {_escape(check.remedy[:_MESSAGE_LIMIT])}")
        if tree.followers:
            names = ", ".join(sorted({follower.id for follower in tree.followers}))
            lines.append(
                f"  - {count(len(tree.followers), 'more check')} failed because of it: "
                f"{_escape(names)}"
            )
    if len(trees) > _FAILURE_LIMIT:
        lines.append(f"- {len(trees) - _FAILURE_LIMIT} more are in `index.html`")
    if trees:
        lines.append("")
    return lines


def _paragraph(text: str) -> str:
    """Return escaped text that may stand at the beginning of a line, and starts no list there."""
    return _LIST_START.sub(r"<!-- -->\1", _escape(text))


def _size(lines: list[str]) -> int:
    return sum(len(line.encode("utf-8", "replace")) + 1 for line in lines)


def _escape(text: str) -> str:
    """Return text that Markdown shows as it is, on one line."""
    one_line = " ".join(plain(text).split())
    escaped = _SPECIAL.sub(r"\\\1", one_line)
    # A backslash stops no mention and no issue number, which are looked for after rendering.
    return _REFERENCE.sub(r"\1<!-- -->", escaped)
