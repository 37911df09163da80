"""``airlock checks``."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from harness.commands import selection
from installers.exits import Exit

if TYPE_CHECKING:
    from harness.listing import Listed


def arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    parser.add_argument("--area", metavar="A", help="the checks of one area: driver, proxy, ...")
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.add_argument(
        "--strict", action="store_true", help="exit 1 where a check has no sabotage beside it"
    )
    selection.checks_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Print the list. Exit 0 whatever it holds, unless --strict; 4 where there is no check."""
    from harness.catalog import CONFORMANCE
    from harness.listing import bare, listed

    found = listed(args.checks or CONFORMANCE, args.area)
    without = bare(found)
    if args.json:
        checks = [one.as_data() for one in found]
        print(json.dumps({"checks": checks, "without_sabotage": without}, indent=1))
    else:
        _print(found, without)
    if not found:
        return Exit.NOTHING
    return Exit.FAIL if args.strict and without else Exit.PASS


def _print(found: list[Listed], without: list[str]) -> None:
    area = ""
    for one in found:
        check = one.check
        if check.area != area:
            area = check.area
            print(f"{area}:")
        needs = "; ".join(each.needs for each in check.requires)
        print(f"  {check.id} ({check.severity}): {check.title}")
        if needs:
            print(f"      needs     {needs}")
        print(f"      source    {check.source}")
        print(f"      sabotage  {', '.join(each.name for each in one.sabotages) or 'none'}")
    breaks = {each.name for one in found for each in one.sabotages}
    print(f"\n{len(found)} checks, {len(breaks)} sabotages that turn them red")
    if without:
        print(f"{len(without)} checks that no sabotage turns red: {', '.join(without)}")
