"""``airlock gate``."""

from __future__ import annotations

import argparse


def arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    parser.add_argument("report", metavar="RUN", help="a run's directory, out/latest, report.json")


def run(args: argparse.Namespace) -> int:
    """Judge a report; the exit code is the verdict."""
    from harness.errors import UsageError
    from harness.run import EXITS
    from harness.verdict import print_judgement
    from reports.errors import ReportError
    from reports.gate import judge
    from reports.read import read_report

    try:
        report = read_report(args.report)
    except ReportError as error:
        raise UsageError(error.message, hint=error.hint) from error
    judgement = judge(report)
    print(f"{report.run.id}: {judgement.verdict}")
    print_judgement(judgement)
    return EXITS[judgement.verdict]
