"""Text of the code as Markdown: what it holds is shown, never read as markup."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence

_MARKUP = re.compile(r"([\\`*_{}\[\]#])")
# In one pass: the references that one makes hold a sign of the others.
_IN_CODE = re.compile(r"""[\\`*_{}\[\]#~|&<>"']""")


def text(value: object) -> str:
    """A text on one line, with nothing left that Markdown or HTML would read."""
    line = " ".join(str(value).split())
    return _escaped(line).replace("|", "&#124;")


def code(value: object) -> str:
    """A code span. HTML, for Markdown's own cannot hold both a backtick and a table's bar."""
    if value in ("", None):
        return ""
    shown = " ".join(str(value).split())
    return f"<code>{_IN_CODE.sub(lambda sign: f'&#{ord(sign[0])};', shown)}</code>"


def prose(value: str) -> str:
    """A docstring's paragraphs; its code spans stay code."""
    parts = re.split(r"(?::\w+:`|``)([^`]+)`{1,2}", value)
    return "".join(code(part) if odd % 2 else _spaced(part) for odd, part in enumerate(parts))


def _spaced(part: str) -> str:
    """Text that keeps the blanks around it, and its paragraphs."""
    paragraphs = [re.sub(r"\s+", " ", one) for one in part.split("\n\n")]
    return "\n\n".join(_escaped(one) for one in paragraphs)


def _escaped(line: str) -> str:
    # A backslash before ~ would be shown.
    return _MARKUP.sub(r"\\\1", html.escape(line, quote=False)).replace("~", "&#126;")


def block(value: str) -> str:
    """A block of code, with a fence that the text does not hold."""
    longest = max((len(run) for run in re.findall(r"`+", value)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{value.rstrip()}\n{fence}\n"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table. Cells are Markdown already: ``text`` or ``code`` made them."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def anchor(name: str) -> str:
    """The fragment that a heading of this id, verb or code has."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
