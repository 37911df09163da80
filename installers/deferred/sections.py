"""``container-executor.cfg``: settings before any section, then ``[section]``s.

The native container-executor reads it as root. Our lines are one marked block for each section,
right below its header, so that no section is there twice; a foreign line with one of our keys is
put aside as a comment until ours are removed. Settings are called ``key`` or ``section.key``.

Source: hadoop-yarn-server-nodemanager, container-executor/impl/configuration.c.
"""

from __future__ import annotations

import re

from installers.dialects.base import marks, torn

LABEL = "gpu"
_WAS = f"# airlock-was {LABEL}: "
_HEADER = re.compile(r"\[([^\]]*)\]")
_KEY = re.compile(r"\s*([^#\s=\[][^=]*?)\s*=(.*)")

# Section (``""`` before the first) → key → value.
Settings = dict[str, dict[str, str]]


def read(text: str) -> Settings:
    """Every setting, ours and foreign; of a key that is there twice, the last."""
    found: Settings = {}
    for section, _, key, value in _entries(text.splitlines()):
        found.setdefault(section, {})[key] = value
    return found


def ours(text: str, where: str) -> Settings:
    """The settings in our blocks."""
    found: Settings = {}
    for section, lines in _dismantle(text, where)[1]:
        for _, _, key, value in _entries(lines):
            found.setdefault(section, {})[key] = value
    return found


def write(text: str, settings: Settings, where: str) -> str:
    """The file with these settings; empty ones give the foreign file as it was. NodeError."""
    foreign = [line.removeprefix(_WAS) for line in _dismantle(text, where)[0]]
    begin, end = marks(LABEL)
    for section, values in settings.items():
        if not values:
            continue
        lines = [line.rstrip("\r\n") for line in foreign]
        for found, number, key, _ in _entries(lines):
            if found == section and key in values:
                foreign[number] = _WAS + foreign[number]
        body = [f"{begin}\n", *(f"{key}={value}\n" for key, value in values.items()), f"{end}\n"]
        at = _place(foreign, section)
        if at is None:
            if foreign and not foreign[-1].endswith("\n"):
                foreign[-1] += "\n"
            # The header is ours as well, so it is inside the marks.
            body.insert(1, f"[{section}]\n")
            at = len(foreign)
        foreign[at:at] = body
    return "".join(foreign)


def flat(settings: Settings) -> dict[str, str]:
    """``{"key": value, "section.key": value}``."""
    return {
        f"{section}.{key}".removeprefix("."): value
        for section, values in settings.items()
        for key, value in values.items()
    }


def _place(lines: list[str], section: str) -> int | None:
    """Where our block goes: before everything, or below the header; None: no such section."""
    if not section:
        return 0
    for number, line in enumerate(lines):
        header = _HEADER.match(line.strip())
        if header and header[1].strip() == section:
            if not line.endswith("\n"):
                lines[number] += "\n"
            return number + 1
    return None


def _entries(lines: list[str]) -> list[tuple[str, int, str, str]]:
    """``(section, line number, key, value)`` of every assignment."""
    found = []
    section = ""
    for number, line in enumerate(lines):
        header = _HEADER.match(line.strip())
        if header:
            section = header[1].strip()
            continue
        match = _KEY.fullmatch(line)
        if match:
            found.append((section, number, match[1], match[2].strip()))
    return found


def _dismantle(text: str, where: str) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """The foreign lines, and section and lines of each of our blocks."""
    begin, end = marks(LABEL)
    foreign: list[str] = []
    blocks: list[tuple[str, list[str]]] = []
    section = ""
    inside = False
    for line in text.splitlines(keepends=True):
        stripped = line.strip()
        header = _HEADER.match(stripped)
        if stripped == begin:
            if inside:
                raise torn(where)
            inside = True
            blocks.append((section, []))
        elif stripped == end:
            if not inside:
                raise torn(where)
            inside = False
        elif not inside:
            foreign.append(line)
            section = header[1].strip() if header else section
        elif header:
            blocks[-1] = (header[1].strip(), [])
        else:
            blocks[-1][1].append(line.rstrip("\r\n"))
    if inside:
        raise torn(where)
    return foreign, blocks
