"""The pages of the reference, each made of what it describes."""

from __future__ import annotations

import argparse
import inspect
import json
import os
import re
from collections.abc import Iterator, Mapping
from unittest import mock

from harness.catalog import CONFORMANCE
from harness.cli import VERBS, parser_of
from harness.patterns import shipped
from harness.sabotage import load_sabotages
from installers import cli as node
from installers.exits import Exit
from manual import sources
from manual.markdown import anchor, block, code, prose, table, text
from reports.model import SCHEMA_VERSION


def checks() -> str:
    """Every check: what it proves, what it needs, how it is mended, and what turns it red."""
    killers: dict[str, list[str]] = {}
    for sabotage in load_sabotages(CONFORMANCE).values():
        for killed in sabotage.kills:
            killers.setdefault(killed, []).append(f"{code(sabotage.name)}: {text(sabotage.title)}")
    every = sources.checks()
    areas = sorted({check.area for check in every})
    lines = [
        "# Checks\n",
        f"{len(every)} checks in {len(areas)} areas. A check whose need is not met does not apply;"
        " what could not be read is not verified, never passed.\n",
    ]
    for area in areas:
        here = [check for check in every if check.area == area]
        rows = [[f"[{code(c.id)}](#{anchor(c.id)})", c.severity, text(c.title)] for c in here]
        lines += [f"## {area}\n", table(("check", "severity", "what it proves"), rows)]
        for check in here:
            broken = killers.get(check.id)
            told = {
                "Severity": check.severity,
                "Needs": text("; ".join(each.needs for each in check.requires)) or "nothing",
                "Depends on": ", ".join(map(code, check.depends)),
                "Source": text(check.source),
                "Remedy": text(check.remedy),
                "Turned red by": "; ".join(broken) if broken else "no sabotage yet",
            }
            lines.append(f"### {code(check.id)} {{#{anchor(check.id)}}}\n\n{text(check.title)}\n")
            lines += [f"- {key}: {value}" for key, value in told.items() if value]
            lines.append("")
    rows = [
        [f"{code('console.' + one.name)}", one.severity, text(one.title), text(one.remedy)]
        for one in shipped().patterns
    ]
    lines += [
        "## console\n",
        "Every console and journal is searched for these. What is found is a failed check.\n",
        table(("check", "severity", "what it proves", "remedy"), rows),
    ]
    return "\n".join(lines)


def installers() -> str:
    """The installers in their order, the keys they read, their contract, and every refusal."""
    every = sources.installers()
    shared = ", ".join(map(code, sources.shared_keys()))
    lines = [
        "# Installers\n",
        "They run in this order, on the node, by `airlock-node.pyz apply`. A contract is what"
        " applying takes; `plan` prints that of the node at hand. Here it is that of a bare"
        " Debian 12 without metadata.\n",
        f"Keys of the metadata that are read once, for all: {shared}.\n",
    ]
    for number, one in enumerate(every, 1):
        disk = [f"{code(path)} {size >> 10} KiB" for path, size in one.contract.disk.items()]
        told = {
            "Keys of its own": ", ".join(map(code, one.keys)) or "none",
            "Hosts": ", ".join(map(code, one.contract.hosts)) or "none by itself",
            "Disk": ", ".join(disk) or "nothing by itself",
            "Notes": text("; ".join(one.contract.notes)),
        }
        lines.append(f"## {number}. {one.name} {{#{anchor(one.name)}}}\n\n{text(one.title)}\n")
        lines.append(f"{prose(one.about)}\n")
        lines += [f"- {key}: {value}" for key, value in told.items() if value]
        lines.append("")
    lines.append("## Codes\n\nRefusals come before anything is changed, causes when a step failed.")
    lines.append("Reports and scenarios name them.\n")
    for name, remedy in sources.codes().items():
        kind = f"A cause: {text(remedy)}." if remedy else "A refusal; it says what was found."
        lines.append(f"### {code(name)} {{#{anchor('code-' + name)}}}\n\n{kind}\n")
    return "\n".join(lines) + "\n"


def command_line() -> str:
    """Every verb of both programs, as ``--help`` prints it."""
    lines = ["# Command line\n", "What `--help` prints.\n", "## airlock\n"]
    lines.append(
        table(("verb", ""), [[f"[{code(v)}](#{anchor(v)})", text(VERBS[v])] for v in VERBS])
    )
    # argparse breaks lines at the width of whoever builds this.
    with mock.patch.dict(os.environ, {"COLUMNS": "96", "NO_COLOR": "1"}):
        for verb in VERBS:
            lines.append(f"## airlock {verb} {{#{anchor(verb)}}}\n")
            lines += [block(parser.format_help()) for parser in _with_parts(parser_of(verb))]
        lines += ["## airlock-node.pyz\n", block(node._parser().format_help())]
    return "\n".join(lines)


def _with_parts(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """A parser, and those of the words below it."""
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                yield from _with_parts(below)


def exit_codes() -> str:
    """The exit codes, with the words beside them in the code."""
    said = dict(re.findall(r"(\w+) = \d+  # (.+)", inspect.getsource(Exit)))
    rows = [[str(one.value), one.name, text(said.get(one.name, "all is right"))] for one in Exit]
    about = inspect.getdoc(Exit) or ""
    more = "[What to do about each](../exit-codes.md)."
    return f"# Exit codes\n\n{text(about)}\n\n{table(('code', 'name', 'meaning'), rows)}\n{more}\n"


def report_schema() -> str:
    """The types of ``report.json``, from its JSON schema."""
    schema = json.loads(sources.repository_file("reports/schema.json"))
    lines = [
        "# The report's schema\n",
        f"`report.json`, schema version {SCHEMA_VERSION}, from `reports/schema.json`. What a reader"
        " makes of older and newer versions is in [Releases](../releases.md).\n",
    ]
    for name, kind in sorted(schema["$defs"].items()):
        lines += [f"## {name} {{#{anchor(name)}}}\n", f"{prose(kind.get('description', ''))}\n"]
        if "properties" not in kind:
            continue
        wanted = kind.get("required", ())
        rows = [
            [code(key), text(_type(one)), "yes" if key in wanted else "", _default(one)]
            for key, one in kind["properties"].items()
        ]
        lines.append(table(("field", "type", "required", "default"), rows))
    return "\n".join(lines)


def _type(schema: Mapping[str, object]) -> str:
    """A JSON schema in a word or two."""
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if isinstance(schema.get("anyOf"), list):
        return " or ".join(_type(one) for one in schema["anyOf"])  # type: ignore[attr-defined]
    if "enum" in schema:
        return " or ".join(json.dumps(one) for one in schema["enum"])  # type: ignore[attr-defined]
    kind = str(schema.get("format") or schema.get("type") or "anything")
    below = schema.get("items") or schema.get("additionalProperties")
    return f"{kind} of {_type(below)}" if isinstance(below, Mapping) else kind


def _default(schema: Mapping[str, object]) -> str:
    return code(json.dumps(schema["default"])) if "default" in schema else ""
