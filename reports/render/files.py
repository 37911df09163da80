"""The files of a run that are made from its report."""

from __future__ import annotations

from pathlib import Path

from reports.model import Report
from reports.render.html import render_html
from reports.render.junit import render_junit
from reports.render.markdown import render_markdown
from reports.write import write_atomically

HTML_NAME = "index.html"
JUNIT_NAME = "junit.xml"
MARKDOWN_NAME = "summary.md"


def write_renderings(report: Report, directory: Path | str) -> list[Path]:
    """Write ``index.html``, ``junit.xml`` and ``summary.md`` into ``directory``.

    Each is replaced whole or not at all. Raises :class:`reports.errors.ReportError` when one
    cannot be written.
    """
    folder = Path(directory)
    written = []
    for name, render in (
        (HTML_NAME, render_html),
        (JUNIT_NAME, render_junit),
        (MARKDOWN_NAME, render_markdown),
    ):
        path = folder / name
        write_atomically(path, render(report).encode("utf-8", "backslashreplace"))
        written.append(path)
    return written
