"""The files of a run that are made from its report."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from reports.model import Report
from reports.render.ctrf import render_ctrf
from reports.render.html import render_html
from reports.render.junit import render_junit
from reports.render.markdown import render_markdown
from reports.write import write_atomically

#: How a rendering is called in options -> the file of a run that holds it, and what makes it.
RENDERINGS: dict[str, tuple[str, Callable[[Report], str]]] = {
    "html": ("index.html", render_html),
    "junit": ("junit.xml", render_junit),
    "md": ("summary.md", render_markdown),
    "ctrf": ("ctrf.json", render_ctrf),
}


def write_renderings(report: Report, directory: Path | str) -> list[Path]:
    """Write every rendering of a report into ``directory``.

    Each is replaced whole or not at all. Raises :class:`reports.errors.ReportError` when one
    cannot be written.
    """
    written = []
    for name, render in RENDERINGS.values():
        path = Path(directory) / name
        write_atomically(path, render(report).encode("utf-8", "backslashreplace"))
        written.append(path)
    return written
