"""INI files of others, edited by value: sections and keys may not be there twice.

Our lines go right below the section's header that is there, and a foreign value of the same key is
put aside as a comment until ours is removed. Two installers may have a block in one file.
"""

from __future__ import annotations

import re

from installers.dialects.base import Dialect, marks, torn

_MARK = re.compile(r"# (>>>|<<<) airlock(?: (\w+))?(?::.*)?")
_HEADER = re.compile(r"\[([^\]]+)\]")
_KEY = re.compile(r"([^\s=:#;\[][^=:]*?)\s*[=:]\s*(.*?)\s*")

# Section and lines (each with its newline) of a block.
Part = tuple[str, list[str]]


class IniFile(Dialect):
    """One section of an INI file; settings are called ``section.key``."""

    section = ""
    keys: tuple[str, ...] = ()
    # True for readers that are Python's ConfigParser with its interpolation: % is written twice.
    interpolated = False

    def read(self, text: str) -> dict[str, str]:
        found: dict[str, str] = {}
        for _, section, key, value in _entries(text.splitlines()):
            if section == self.section.lower() and key in self.keys:
                if self.interpolated:
                    value = value.replace("%%", "%")
                found[f"{self.section}.{key}"] = value
        return found

    def ours(self, text: str) -> dict[str, str]:
        section, lines = _dismantle(text, self.path)[1].get(self.label, ("", []))
        return self.read("".join([f"[{section}]\n", *lines]))

    def write(self, text: str, settings: dict[str, str]) -> str:
        was = f"# airlock-was {self.label}".rstrip() + ": "
        lines, blocks = _dismantle(text, self.path)
        foreign = [line.removeprefix(was) for line in lines]
        blocks.pop(self.label, None)
        if settings:
            for number, section, key, _ in _entries(foreign):
                if section == self.section.lower() and key in self.keys:
                    _put_aside(foreign, number, was)
            twice = "%%" if self.interpolated else "%"
            lines = [
                f"{key.partition('.')[2]} = {value.replace('%', twice)}\n"
                for key, value in settings.items()
            ]
            blocks[self.label] = (self.section, lines)
        return _assemble(foreign, blocks)


def merge_sections(text: str) -> str:
    """The file with each section once: later ones go to the end of the first of their name."""
    parts: dict[str, list[str]] = {"": []}
    section = ""
    seen: set[str] = set()
    for line in text.splitlines(keepends=True):
        header = _HEADER.match(line.strip())
        if header:
            section = header[1].strip()
            if section in seen:
                if not parts[section][-1].endswith("\n"):
                    parts[section][-1] += "\n"
                continue
            seen.add(section)
        parts.setdefault(section, []).append(line)
    return "".join(line for lines in parts.values() for line in lines)


def _entries(lines: list[str]) -> list[tuple[int, str, str, str]]:
    """``(line number, section, key, value)`` of every assignment; section and key lower case."""
    found = []
    section = ""
    for number, line in enumerate(lines):
        header = _HEADER.match(line.strip())
        if header:
            section = header[1].strip().lower()
        match = _KEY.fullmatch(line.rstrip("\r\n"))
        if match and not header:
            found.append((number, section, match[1].lower(), match[2]))
    return found


def _dismantle(text: str, where: str) -> tuple[list[str], dict[str, Part]]:
    """The foreign lines, and our blocks by their labels."""
    foreign: list[str] = []
    blocks: dict[str, Part] = {}
    section = ""
    inside = None
    for line in text.splitlines(keepends=True):
        mark = _MARK.fullmatch(line.strip())
        header = _HEADER.match(line.strip())
        if header:
            section = header[1].strip()
        if mark:
            label = mark[2] or ""
            if (mark[1] == ">>>") != (inside is None) or inside not in (None, label):
                raise torn(where)
            inside = label if inside is None else None
            if inside is not None:
                blocks[label] = (section, [])
        elif inside is None:
            foreign.append(line)
        elif header:
            blocks[inside] = (section, blocks[inside][1])
        else:
            blocks[inside][1].append(line)
    if inside is not None:
        raise torn(where)
    return foreign, blocks


def _assemble(foreign: list[str], blocks: dict[str, Part]) -> str:
    lines = list(foreign)
    if blocks and lines and not lines[-1].endswith("\n"):
        lines[-1] += "\n"
    # Where a section has two blocks, the later one goes behind the earlier one.
    started: dict[str, int] = {}
    for label in sorted(blocks):
        section, ours = blocks[label]
        begin, end = marks(label)
        at = next(
            (
                number + 1
                for number, line in enumerate(lines)
                if (header := _HEADER.match(line.strip()))
                and header[1].strip().lower() == section.lower()
            ),
            None,
        )
        if at is None:
            body = [f"{begin}\n", f"[{section}]\n", *ours, f"{end}\n"]
            at = len(lines)
        else:
            body = [f"{begin}\n", *ours, f"{end}\n"]
            at = max(at, started.get(section, 0))
        lines[at:at] = body
        started = {
            name: place + len(body) if place >= at else place for name, place in started.items()
        }
        started[section] = at + len(body)
    return "".join(lines)


def _put_aside(lines: list[str], number: int, was: str) -> None:
    """Make an assignment a comment, with the lines that continue it."""
    while True:
        lines[number] = was + lines[number]
        number += 1
        if number >= len(lines) or not re.match(r"[ \t]+[^\s#;]", lines[number]):
            return
