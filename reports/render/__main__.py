"""``python -m reports.render RUN [--html F] [--junit F] [--md F]``: print a report again.

Without a choice, all three are written into the current directory. Exit 2 when the report cannot
be read or a file cannot be written.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from reports.errors import ReportError
from reports.read import read_report
from reports.render.files import write_renderings
from reports.render.html import render_html
from reports.render.junit import render_junit
from reports.render.markdown import render_markdown
from reports.write import write_atomically


def main(argv: list[str] | None = None) -> int:
    """Render what ``argv`` asks for; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m reports.render", description=__doc__)
    parser.add_argument("run", type=Path, help="a run's directory or its report.json")
    parser.add_argument("--html", type=Path, metavar="FILE")
    parser.add_argument("--junit", type=Path, metavar="FILE")
    parser.add_argument("--md", type=Path, metavar="FILE")
    asked = parser.parse_args(argv)
    renderers = (
        (asked.html, render_html),
        (asked.junit, render_junit),
        (asked.md, render_markdown),
    )
    try:
        report = read_report(asked.run)
        chosen = [(path, render) for path, render in renderers if path is not None]
        for path, render in chosen:
            write_atomically(path, render(report).encode("utf-8", "backslashreplace"))
        if not chosen:
            write_renderings(report, Path.cwd())
    except ReportError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
