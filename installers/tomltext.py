"""Reads the TOML that container runtimes are configured with; Python 3.9 has no reader of it.

Tables, dotted and quoted names, strings of one line, numbers, booleans, and lists of them over
several lines (TOML 1.0). Values of other kinds (dates, inline tables, texts of several lines) are
kept as the text they are written with.
"""

from __future__ import annotations

import json
import re
from typing import Any

Path = tuple[str, ...]
_NAME = re.compile(r"""\s*("(?:[^"\\]|\\.)*"|'[^']*'|[A-Za-z0-9_-]+)\s*""")
_STRING = re.compile(r""""(?:[^"\\]|\\.)*"|'[^']*'""")


def tables(text: str) -> dict[Path, dict[str, Any]]:
    """Path of a table (() is the top) -> its own keys. Of [[tables]] the last one stays.

    ValueError, which names the line, for text that is not TOML.
    """
    found: dict[Path, dict[str, Any]] = {(): {}}
    here = found[()]
    lines = iter(enumerate(text.splitlines(), 1))
    for number, raw in lines:
        line = _bare(raw)
        if not line:
            continue
        if line.startswith("["):
            double = line.startswith("[[")
            if not line.endswith("]]" if double else "]"):
                raise ValueError(f"line {number}: a table's name does not end")
            path = _names(line[2:-2] if double else line[1:-1], number)
            here = found.setdefault(path, {})
            continue
        match = _NAME.match(line)
        name, equals = line, ""
        if match:
            name, equals, rest = _split(line, number)
        if not equals:
            raise ValueError(f"line {number}: is neither a table nor a setting")
        while rest.startswith("[") and not _closed(rest):
            number, more = next(lines, (number, None))
            if more is None:
                raise ValueError(f"line {number}: a list does not end")
            rest = f"{rest} {_bare(more)}"
        here[name] = _value(rest, number)
    return found


def _split(line: str, number: int) -> tuple[str, str, str]:
    """Name, the equals sign, and what follows; a dotted name stays one, joined by dots."""
    names, at = [], 0
    while True:
        match = _NAME.match(line, at)
        if not match:
            raise ValueError(f"line {number}: a setting has no name")
        names.append(_plain(match.group(1), number))
        at = match.end()
        if line[at : at + 1] != ".":
            break
        at += 1
    return ".".join(names), line[at : at + 1].replace(".", ""), line[at + 1 :].strip()


def _names(text: str, number: int) -> Path:
    names, at = [], 0
    while True:
        match = _NAME.match(text, at)
        if not match:
            raise ValueError(f"line {number}: a table has no name")
        names.append(_plain(match.group(1), number))
        at = match.end()
        if at == len(text):
            return tuple(names)
        if text[at] != ".":
            raise ValueError(f"line {number}: {text[at]!r} in a table's name")
        at += 1


def _bare(line: str) -> str:
    """The line without its comment; a # inside of a string is none."""
    out, at = [], 0
    while at < len(line):
        match = _STRING.match(line, at)
        if match:
            out.append(match.group())
            at = match.end()
        elif line[at] == "#":
            break
        else:
            out.append(line[at])
            at += 1
    return "".join(out).strip()


def _closed(text: str) -> bool:
    left = _STRING.sub("", text)
    return left.count("[") <= left.count("]")


def _plain(text: str, number: int) -> str:
    """A name or a string without its quotes. TOML's escapes are JSON's, and \\U, which is rare."""
    if text.startswith("'"):
        return text[1:-1]
    if text.startswith('"'):
        try:
            return str(json.loads(text, strict=False))
        except ValueError as error:
            raise ValueError(f"line {number}: {text} is not a string") from error
    return text


def _value(text: str, number: int) -> Any:
    if not text:
        raise ValueError(f"line {number}: a setting has no value")
    if text in ("true", "false"):
        return text == "true"
    if text.startswith("["):
        items = re.findall(r"""("(?:[^"\\]|\\.)*"|'[^']*'|[^\s,\[\]]+)""", text[1:-1])
        return [_value(item, number) for item in items]
    if _STRING.fullmatch(text):
        return _plain(text, number)
    if re.fullmatch(r"[+-]?\d[\d_]*", text):
        return int(text)
    if re.fullmatch(r"[+-]?\d[\d_]*(?:\.\d[\d_]*)?(?:[eE][+-]?\d+)?", text):
        return float(text)
    if text[0] in "\"'" and not text.startswith(('"""', "'''")):
        raise ValueError(f"line {number}: a string does not end")
    return text
