"""Sets one key of one table in the text of a TOML file, and leaves every other line as it is."""

from __future__ import annotations

import re
from typing import Optional


def put(text: str, table: tuple[str, ...], key: str, value: Optional[str]) -> str:
    """``text`` with ``key`` of ``table`` at ``value``, which is written as it stands.

    None takes the key away, and the table with it where nothing else is in it.
    """
    lines = text.splitlines(keepends=True)
    header = re.compile(
        r"\s*\[\s*" + r"\s*\.\s*".join(_name(name) for name in table) + r"\s*\]\s*(#.*)?$"
    )
    start = next((i for i, line in enumerate(lines) if header.match(line.rstrip("\n"))), None)
    if start is None:
        if value is None:
            return text
        if lines and not lines[-1].endswith("\n"):
            lines.append("\n")
        quoted = ".".join(name if re.fullmatch(r"[\w-]+", name) else f'"{name}"' for name in table)
        return "".join([*lines, f"\n[{quoted}]\n", f"  {key} = {value}\n"])
    end = next(
        (i for i in range(start + 1, len(lines)) if lines[i].lstrip().startswith("[")), len(lines)
    )
    body = [line for line in lines[start + 1 : end] if not re.match(rf"\s*{key}\s*=", line)]
    if value is not None:
        body.insert(0, f"  {key} = {value}\n")
    elif not any(line.strip() for line in body):
        before = lines[:start]
        while before and not before[-1].strip():
            before.pop()
        return "".join([*before, *lines[end:]])
    return "".join([*lines[: start + 1], *body, *lines[end:]])


def _name(name: str) -> str:
    quoted = re.escape(name)
    return rf"(?:\"{quoted}\"|'{quoted}'|{quoted})"
