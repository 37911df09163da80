"""``airlock report``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from installers.exits import Exit

#: Option -> the file a run has it in.
KINDS = {
    "html": "index.html",
    "junit": "junit.xml",
    "md": "summary.md",
    "ctrf": "ctrf.json",
}


def arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    parser.add_argument("report", metavar="RUN", help="a run's directory, out/latest, report.json")
    for kind, name in KINDS.items():
        parser.add_argument(
            f"--{kind}",
            nargs="?",
            const="",
            metavar="FILE",
            help=f"write it to FILE (default: {name} in the run's directory; - prints it)",
        )
    parser.add_argument(
        "--sbom", metavar="CELL", help="print what was installed on a cell's node (CycloneDX 1.6)"
    )


def run(args: argparse.Namespace) -> int:
    """Print a report again; without a choice, all of them into the run's directory.

    A cell's bill of materials stands by itself: it is printed, and nothing is written.
    """
    from harness import sbom
    from harness.errors import UsageError
    from reports.errors import ReportError
    from reports.read import find_report, read_report
    from reports.render.files import RENDERINGS
    from reports.write import write_atomically

    chosen = {kind: getattr(args, kind) for kind in KINDS if getattr(args, kind) is not None}
    chosen = chosen or dict.fromkeys(KINDS, "")
    try:
        report = read_report(args.report)
        directory = find_report(Path(args.report)).parent
        if args.sbom is not None:
            sys.stdout.write(sbom.of_report(report, directory, args.sbom))
            return Exit.PASS
        for kind, target in chosen.items():
            text = RENDERINGS[kind][1](report)
            if target == "-":
                sys.stdout.write(text)
                continue
            path = Path(target) if target else directory / KINDS[kind]
            write_atomically(path, text.encode("utf-8", "backslashreplace"))
            print(path, file=sys.stderr)
    except ReportError as error:
        raise UsageError(error.message, hint=error.hint) from error
    return Exit.PASS
