"""Patterns of disaster in the serial console and the journal of a cell (console_patterns.toml)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from harness.catalog import check_keys, line_of, read_toml
from harness.errors import UsageError
from harness.names import nearest

if TYPE_CHECKING:
    from harness.cells import Cell

SHIPPED = Path(__file__).with_name("console_patterns.toml")
#: What of a capsule is a console or a journal. Of a build log nothing: it is no node's.
_IS_LOG = re.compile(r"serial.*\.log|(?:boot-)?console\.log|journal\.txt")
#: Lines of evidence per pattern, and what one of them may come to.
LINES, WIDTH = 12, 400
#: Bytes read of one file; a console that is larger is looked at from its end.
LIMIT = 32 << 20

Severity = Literal["blocker", "major", "minor"]
_SEVERITIES = ("blocker", "major", "minor")
_WHERE = ("image", "scenario", "profile", "installer", "provider", "accelerator")
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[^\x20-\x7e\u00a0-\uffff\t]")


@dataclass(frozen=True)
class Pattern:
    """One thing that a good node never says. ``link`` says what the line means."""

    name: str
    severity: Severity
    title: str
    regex: re.Pattern[str]
    link: str
    remedy: str


@dataclass(frozen=True)
class Allowed:
    """Lines that are let pass where the cell is as ``where`` says (axis -> name).

    ``installer`` is one that the cell's profile has.
    """

    pattern: str
    regex: re.Pattern[str]
    why: str
    where: dict[str, str]

    def covers(self, cell: Cell, accelerator: str) -> bool:
        """Whether it is meant for this cell."""
        names = {
            "image": [cell.image.name],
            "scenario": [cell.scenario.name],
            "profile": [cell.profile.name],
            "installer": cell.profile.parts,
            "provider": [cell.provider],
            "accelerator": [accelerator],
        }
        return all(name in names[axis] for axis, name in self.where.items())


@dataclass(frozen=True)
class Book:
    """The patterns and the exceptions. ``any`` finds out quickly that a text holds none."""

    patterns: tuple[Pattern, ...]
    allowed: tuple[Allowed, ...]
    any: re.Pattern[str]


@dataclass(frozen=True)
class Sighting:
    """A pattern that was seen, with the lines (file: line) that show it."""

    pattern: Pattern
    lines: tuple[str, ...]
    count: int

    @property
    def fails(self) -> bool:
        """Whether it fails the cell."""
        return self.pattern.severity != "minor"

    @property
    def message(self) -> str:
        """What a report says of it."""
        times = "once" if self.count == 1 else f"{self.count} times"
        return f"seen {times} on the console or in the journal; {self.pattern.link}"


@dataclass(frozen=True)
class Look:
    """What looking through a capsule came to; ``words`` say what was looked at."""

    sightings: list[Sighting] = field(default_factory=list)
    words: str = ""


def look(capsule: Path, cell: Cell, accelerator: str = "", book: Book | None = None) -> Look:
    """Search a cell's console and journal. ``accelerator``: what its processor is made of."""
    book = book or shipped()
    allowed = [each for each in book.allowed if each.covers(cell, accelerator)]
    found: dict[str, list[str]] = {}
    seen = []
    for path in _files(capsule):
        seen.append(path.name)
        for name, line in _search(_text(path), book, allowed):
            found.setdefault(name, []).append(f"{path.name}: {line[:WIDTH]}")
    sightings = [
        Sighting(pattern, tuple(found[pattern.name][:LINES]), len(found[pattern.name]))
        for pattern in book.patterns
        if pattern.name in found
    ]
    where = ", ".join(seen) or "nothing: no console and no journal was kept"
    return Look(sightings, f"{len(book.patterns)} patterns looked for in {where}")


@cache
def shipped() -> Book:
    """The patterns that ship."""
    return read_patterns(SHIPPED)


def read_patterns(path: Path) -> Book:
    """Read a file of patterns. UsageError names file, line and what is wrong."""
    text, data = read_toml(path)
    check_keys(path, text, data, {"pattern", "allow"}, "")
    patterns = tuple(_patterns(path, text, data.get("pattern", [])))
    names = [pattern.name for pattern in patterns]
    if len(set(names)) < len(names):
        raise UsageError(f"{path}: two patterns have the same name")
    allowed = []
    for nth, table in enumerate(data.get("allow", [])):
        _complete(path, text, table, ("pattern", "regex", "why"), _WHERE, "[[allow]]", nth)
        if table["pattern"] not in names:
            line = line_of(text, "pattern", "[[allow]]", nth)
            raise UsageError(
                f"{path}:{line}: unknown pattern {table['pattern']!r}",
                hint=nearest(str(table["pattern"]), names),
            )
        where = {axis: str(table[axis]) for axis in _WHERE if axis in table}
        regex = _compile(path, text, table["regex"], "[[allow]]", nth)
        allowed.append(Allowed(table["pattern"], regex, table["why"], where))
    either = "|".join(f"(?:{pattern.regex.pattern})" for pattern in patterns) or r"(?!)"
    return Book(patterns, tuple(allowed), re.compile(either, re.MULTILINE))


def _patterns(path: Path, text: str, tables: list[dict[str, Any]]) -> Iterator[Pattern]:
    header = "[[pattern]]"
    keys = ("name", "severity", "title", "regex", "link", "remedy")
    for nth, table in enumerate(tables):
        _complete(path, text, table, keys, (), header, nth)
        if table["severity"] not in _SEVERITIES:
            line = line_of(text, "severity", header, nth)
            hint = nearest(str(table["severity"]), _SEVERITIES)
            raise UsageError(f"{path}:{line}: severity {table['severity']!r}", hint=hint)
        yield Pattern(
            name=table["name"],
            severity=cast("Severity", table["severity"]),
            title=table["title"],
            regex=_compile(path, text, table["regex"], header, nth),
            link=table["link"],
            remedy=table["remedy"],
        )


def _complete(
    path: Path,
    text: str,
    table: dict[str, Any],
    needed: Iterable[str],
    further: Iterable[str],
    header: str,
    nth: int,
) -> None:
    needed = tuple(needed)
    check_keys(path, text, table, (*needed, *further), header, nth)
    for key in needed:
        if not isinstance(table.get(key), str) or not table[key]:
            line = line_of(text, key, header, nth)
            raise UsageError(f"{path}:{line}: {header} lacks {key!r}")


def _compile(path: Path, text: str, regex: str, header: str, nth: int) -> re.Pattern[str]:
    try:
        return re.compile(regex)
    except re.error as error:
        line = line_of(text, "regex", header, nth)
        raise UsageError(f"{path}:{line}: regex: {error}") from error


def _files(capsule: Path) -> list[Path]:
    if not capsule.is_dir():
        return []
    return sorted(path for path in capsule.iterdir() if _IS_LOG.fullmatch(path.name))


def _text(path: Path) -> str:
    with path.open("rb") as file:
        size = path.stat().st_size
        file.seek(max(0, size - LIMIT))
        return file.read().decode(errors="replace").replace("\r", "\n")


def _search(text: str, book: Book, allowed: list[Allowed]) -> Iterator[tuple[str, str]]:
    """Pattern name and line, for every line that one matches and nothing allows."""
    # One search over the whole text first: nearly every cell is clean.
    if not book.any.search(text):
        return
    for raw in text.splitlines():
        if not book.any.search(raw):
            continue
        line = _CONTROL.sub("", raw).strip()
        for pattern in book.patterns:
            let_pass = (each.regex for each in allowed if each.pattern == pattern.name)
            if pattern.regex.search(line) and not any(each.search(line) for each in let_pass):
                yield pattern.name, line
