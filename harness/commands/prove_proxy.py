"""``airlock prove-proxy``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from installers.exits import Exit


def arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    parser.add_argument(
        "--tools", default="", metavar="A,B", help="only these programs (default: all)"
    )
    parser.add_argument(
        "--entry", action="append", default=[], metavar="LIST", help="only this no_proxy list"
    )
    parser.add_argument(
        "--fetch",
        action="store_true",
        help="get programs that are not here from this machine's package index and mirror, "
        "privately: nothing is installed",
    )
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.add_argument(
        "--write",
        type=Path,
        metavar="DIR",
        help="keep the table there, as proxy-table.json and in proxy-dialects.md",
    )


def run(args: argparse.Namespace) -> int:
    """Measure, and lay the model beside it.

    Exit 0: they agree; 1: they do not; 3: a program that was named is not here, or no namespaces;
    4: nothing was chosen, or nobody is here to be asked.
    """
    import datetime
    import json

    from harness.errors import NothingToDo, UsageError
    from harness.proving import cases, chamber, table
    from harness.proving.find import find

    names = _names(args.tools)
    asked = cases.chosen(args.entry)
    if args.write and (args.tools or args.entry):
        raise UsageError("--write keeps the whole table: leave out --tools and --entry")
    if args.write and not (args.write / table.TEXT).is_file():
        raise UsageError(f"--write: there is no {args.write / table.TEXT}")

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    found, missing = find(names, fetch=args.fetch, say=say)
    if not found:
        for lack in missing:
            say(f"not verified: {lack.tool}: {lack.why}")
        raise NothingToDo("none of these programs is here", hint="--fetch gets what can be got")
    answers = chamber.prove(found, asked)
    if args.json:
        rows = [
            {**vars(one), "case": {**vars(one.case), "value": one.case.value}, "agrees": one.agrees}
            for one in answers
        ]
        versions = {one.tool: one.version for one in found}
        lacking = {lack.tool: lack.why for lack in missing}
        print(json.dumps({"answers": rows, "versions": versions, "not_here": lacking}, indent=1))
    else:
        print(table.screen(answers, missing))
    lost = len(found) * len(asked) - len(answers)
    if lost:
        say(f"not verified: {lost} cells of IPv6 addresses, which this machine has not")
    wrong = [one for one in answers if not one.agrees]
    for one in wrong:
        told = f" ({one.why}: {one.said})" if one.why else ""
        say(table.disagreement(one.tool, one.case, one.measured, one.predicted) + told)
    if args.write and not wrong and not lost:
        date = datetime.datetime.now(datetime.UTC).date().isoformat()
        table.keep(table.table(date, found, missing, answers), args.write)
    if wrong:
        say(f"{len(wrong)} of {len(answers)} cells are not as the model says")
        return Exit.FAIL
    if not args.json:
        print(f"the model and the programs agree in all {len(answers)} cells")
    return Exit.UNKNOWN if args.tools and missing else Exit.PASS


def _names(text: str) -> list[str]:
    """The programs of ``--tools``, in the order of the table."""
    from harness.errors import NothingToDo, UsageError
    from harness.names import nearest
    from harness.proving.tools import TOOLS

    if not text:
        return list(TOOLS)
    known = {name.lower(): name for name in TOOLS}
    wanted = [word.strip().lower() for word in text.split(",") if word.strip()]
    for word in wanted:
        if word not in known:
            raise UsageError(f"--tools: unknown program {word!r}", hint=nearest(word, known))
    if not wanted:
        raise NothingToDo("--tools names no program", hint=f"known: {', '.join(sorted(known))}")
    return [name for key, name in known.items() if key in wanted]
