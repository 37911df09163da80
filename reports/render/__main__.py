"""``python -m reports.render RUN [--html F] [--junit F] [--md F] [--ctrf F]``: print a report.

Without a choice, all of them are written into the current directory. Exit 2 when the report cannot
be read or a file cannot be written.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from reports.errors import ReportError
from reports.read import read_report
from reports.render.files import RENDERINGS, write_renderings
from reports.write import write_atomically


def main(argv: list[str] | None = None) -> int:
    """Render what ``argv`` asks for; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m reports.render", description=__doc__)
    parser.add_argument("run", type=Path, help="a run's directory or its report.json")
    for kind in RENDERINGS:
        parser.add_argument(f"--{kind}", type=Path, metavar="FILE")
    asked = parser.parse_args(argv)
    try:
        report = read_report(asked.run)
        chosen = {kind: path for kind in RENDERINGS if (path := getattr(asked, kind))}
        for kind, path in chosen.items():
            text = RENDERINGS[kind][1](report)
            write_atomically(path, text.encode("utf-8", "backslashreplace"))
        if not chosen:
            write_renderings(report, Path.cwd())
    except ReportError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
