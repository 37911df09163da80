"""``airlock doctor``."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from installers.exits import Exit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.doctor import Finding

MARKS = {"ok": "✓", "note": "·", "missing": "✗"}


def arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    parser.add_argument("--fix", action="store_true", help="install the packages that are missing")
    parser.add_argument(
        "--tests",
        action="store_true",
        help="also what the project's own tests want (a browser, busybox, kmod)",
    )
    parser.add_argument(
        "--provider", choices=["gce"], help="what Google Cloud has and allows, instead"
    )
    for name, what in (("project", "of gce.toml"), ("zone", "the first of gce.toml")):
        parser.add_argument(f"--{name}", default="", help=f"with --provider gce (default: {what})")
    parser.add_argument("--name", default="airlock", help="with --provider gce: the network")
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.add_argument("--quiet", action="store_true", help="only what is missing")


def run(args: argparse.Namespace) -> int:
    """Print the findings. Exit 0 if the default matrix can run here, else 3."""
    from harness.doctor import examine, fix

    if args.provider:
        return _cloud(args)
    findings = examine(tests=args.tests)
    if args.fix and any(finding.packages for finding in findings):
        fix(findings, lambda line: print(line, file=sys.stderr))
        findings = examine(tests=args.tests)
    hint = "" if args.fix else "; `airlock doctor --fix` installs packages"
    return _tell(args, findings, "the default matrix", "run here", hint)


def _cloud(args: argparse.Namespace) -> int:
    """What Google Cloud has and allows."""
    from harness.cloud.examine import examine
    from harness.commands.gce import project_of, read, site_of

    config = read()
    site = site_of(args, project_of(args, config), config)
    return _tell(args, examine(site, config), "nodes", f"be made in {site.project}", "")


def _tell(
    args: argparse.Namespace, findings: Sequence[Finding], what: str, do: str, hint: str
) -> int:
    """Print the findings; exit 3 if something is missing."""
    from dataclasses import asdict

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
        print(f"\n{what} cannot {do}: {names}{hint}")
        return Exit.UNKNOWN
    if not args.quiet:
        print(f"\n{what} can {do}")
    return Exit.PASS
