"""The published table of what was measured: kept, judged against the model, printed.

``proxy-table.json`` holds every answer and the releases that gave them; the table in
``proxy-dialects.md`` is printed from it, between two marks.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from harness.errors import UsageError
from harness.proving.cases import CASES, Case
from harness.proving.chamber import Answer, predict
from harness.proving.find import Missing
from harness.proving.tools import TOOLS, Found
from reports.write import write_atomically

DATA = "proxy-table.json"
TEXT = "proxy-dialects.md"
BEGIN = "<!-- measured: airlock prove-proxy --write docs -->"
END = "<!-- end of what was measured -->"
#: What a cell of the table says.
LETTERS = {"direct": "D", "via-proxy": "P", "failed": "F", "not here": "·"}

Table = Mapping[str, Any]


def table(
    date: str, found: Iterable[Found], missing: Iterable[Missing], answers: Sequence[Answer]
) -> dict[str, Any]:
    """Answers as they are kept. ``date``: when they were measured, YYYY-MM-DD."""
    here = {one.tool: one.version for one in found}
    asked = list(dict.fromkeys(answer.case for answer in answers))
    said = {(answer.tool, answer.case): answer.measured for answer in answers}
    return {
        "schema": 1,
        "measured": date,
        "versions": {tool: here[tool] for tool in TOOLS if tool in here},
        "not_here": {one.tool: one.why for one in missing},
        "cases": [
            {
                **asdict(case),
                "answers": {t: said[t, case] for t in TOOLS if (t, case) in said},
            }
            for case in asked
        ],
    }


def read(directory: Path) -> Table:
    """The table in ``directory``. UsageError: there is none, or it is none."""
    path = directory / DATA
    try:
        found: Table = json.loads(path.read_text())
        found["cases"]
    except (OSError, ValueError, KeyError) as error:
        raise UsageError(f"{path} is no table: {error}") from error
    return found


def differences(kept: Table) -> list[str]:
    """What is wrong with a table: the model says otherwise, or a question has no answer."""
    wrong = []
    cases = {
        Case(row["entry"], row["url"], row["written"]): row["answers"] for row in kept["cases"]
    }
    for case in CASES:
        for tool, version in kept["versions"].items():
            measured = cases.get(case, {}).get(tool, "not measured")
            predicted = predict(tool, version, case)
            if measured != predicted:
                wrong.append(disagreement(tool, case, measured, predicted))
    return wrong


def disagreement(tool: str, case: Case, measured: str, predicted: str) -> str:
    """One line for a cell of which the model is wrong, or that could not be told."""
    what = "written for " if case.written else ""
    return f"{tool} x {what}{case.entry!r}, {case.url}: {measured}, the model says {predicted}"


def keep(made: Table, directory: Path) -> None:
    """Write the table, and print it into the page. UsageError: the page has no place for it."""
    page = directory / TEXT
    text = page.read_text() if page.exists() else ""
    if BEGIN not in text or END not in text:
        raise UsageError(f"{page} has no place for the table", hint=f"it goes below {BEGIN}")
    head, _, rest = text.partition(BEGIN)
    tail = rest.partition(END)[2]
    write_atomically(directory / DATA, (json.dumps(made, indent=1) + "\n").encode())
    write_atomically(page, f"{head}{BEGIN}\n{render(made)}{END}{tail}".encode())


def render(kept: Table) -> str:
    """The table as Markdown: a line for each case, a column for each program."""
    tools = list(kept["versions"])
    lines = [
        "",
        f"Measured {kept['measured']}: **D**irect, by the **P**roxy, **F**ailed, `·` not asked.",
        "",
        f"| list | fetched | {' | '.join(tools)} |",
        f"|---|---|{'---|' * len(tools)}",
    ]
    for row in kept["cases"]:
        cells = [LETTERS[row["answers"].get(tool, "not here")] for tool in tools]
        entry = "what we write" if row["written"] else f"`{row['entry']}`"
        if row["entry"] != row["entry"].strip():
            entry = f"`{row['entry'].strip()}` in blanks"
        lines.append(f"| {entry} | {row['url']} | {' | '.join(cells)} |")
    custom = next((row["entry"] for row in kept["cases"] if row["written"]), "")
    releases = ", ".join(f"{tool} {version}" for tool, version in kept["versions"].items())
    lines += ["", f"Releases: {releases}."]
    if custom:
        lines += ["", f"*What we write* is what the installer makes of `{custom}`."]
    if kept["not_here"]:
        lines += ["", f"Not verified, because not here: {', '.join(kept['not_here'])}."]
    return "\n".join([*lines, "", ""])


def screen(answers: Sequence[Answer], missing: Iterable[Missing]) -> str:
    """For a terminal: each case, and who went which way; ``!`` where the model says otherwise."""
    lines = []
    for case in dict.fromkeys(answer.case for answer in answers):
        what = "written for " if case.written else ""
        lines.append(f"{what}{case.entry!r}  {case.url}")
        mine = [answer for answer in answers if answer.case == case]
        for way in LETTERS:
            names = [
                answer.tool if answer.agrees else f"{answer.tool}! (model: {answer.predicted})"
                for answer in mine
                if answer.measured == way
            ]
            if names:
                lines.append(f"    {way:9} {', '.join(names)}")
    lines += [f"not verified: {one.tool}: {one.why}" for one in missing]
    return "\n".join(lines)
