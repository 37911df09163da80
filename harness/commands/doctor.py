"""``airlock doctor``."""

from __future__ import annotations

import argparse
import sys

from installers.exits import Exit

MARKS = {"ok": "✓", "note": "·", "missing": "✗"}


def arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    parser.add_argument("--fix", action="store_true", help="install the packages that are missing")
    parser.add_argument(
        "--tests",
        action="store_true",
        help="also what the project's own tests want (a browser, busybox, kmod)",
    )
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.add_argument("--quiet", action="store_true", help="only what is missing")


def run(args: argparse.Namespace) -> int:
    """Print the findings. Exit 0 if the default matrix can run here, else 3."""
    from dataclasses import asdict

    from harness.doctor import examine, fix

    findings = examine(tests=args.tests)
    if args.fix and any(finding.packages for finding in findings):
        fix(findings, lambda line: print(line, file=sys.stderr))
        findings = examine(tests=args.tests)
    missing = [finding for finding in findings if finding.level == "missing"]
    if args.json:
        import json

        print(json.dumps([asdict(finding) for finding in findings], indent=1))
        return Exit.UNKNOWN if missing else Exit.PASS
    for finding in missing if args.quiet else findings:
        print(f"{MARKS[finding.level]} {finding.name}: {finding.what}")
        if finding.level != "ok":
            print(f"    why: {finding.why}")
        if finding.fix:
            print(f"    fix: {finding.fix}")
    if missing:
        names = ", ".join(finding.name for finding in missing)
        hint = "" if args.fix else "; `airlock doctor --fix` installs packages"
        print(f"\nthe default matrix cannot run here: {names}{hint}")
        return Exit.UNKNOWN
    if not args.quiet:
        print("\nthe default matrix can run here")
    return Exit.PASS
