"""Commands that pages tell people to run are commands."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from harness.cli import parser_of
from installers import cli as node

DOCS = Path(__file__).resolve().parents[3] / "docs"
PAGES = [
    *sorted(DOCS.glob("how-to-*.md")),
    *(DOCS / name for name in ("sbom.md", "troubleshooting.md", "releases.md", "quick-start.md")),
]
COMMANDS = sorted(
    {
        line.partition("#")[0].partition(">")[0].strip()
        for page in PAGES
        for block in re.findall(r"^```\w*\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
        for line in block.splitlines()
        if re.match(r"(\.venv/bin/)?airlock |sh airlock-node\.pyz ", line)
    }
)


def test_there_are_commands() -> None:
    assert len(COMMANDS) > 20


@pytest.mark.parametrize("command", COMMANDS)
def test_the_command_is_one(command: str) -> None:
    """UsageError or SystemExit if it is none."""
    words = shlex.split(command)
    if words[0] == "sh":
        if words[2] not in node.OTHERS:
            node._parser().parse_args(words[2:])
        return
    parser_of(words[1]).parse_args(words[2:])
