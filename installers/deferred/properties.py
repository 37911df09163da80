"""``spark-defaults.conf``: Java properties, a block of ours at the end.

Spark reads it with java.util.Properties (Utils.getPropertiesFromFile): ``key value``, ``key=value``
and ``key: value`` are the same, a backslash continues a line, and the last of two values wins. A
setting of somebody else stays: whoever made the cluster may ask for other amounts than ours.
"""

from __future__ import annotations

import re

from installers.dialects.base import Block, Wanted, split

LABEL = "gpu"
_SPACE = " \t\f"
_ESCAPES = {"t": "\t", "n": "\n", "r": "\r", "f": "\f"}


def read(text: str) -> dict[str, str]:
    """Key → value of the whole file, as java.util.Properties.load reads it and Spark trims it."""
    found: dict[str, str] = {}
    for line in _logical_lines(text):
        key, value = _split(line)
        found[_unescape(key)] = _unescape(value).strip()
    return found


class SparkDefaults(Block):
    """Our block of one ``spark-defaults.conf``."""

    name = "spark"
    label = LABEL
    credentials = False

    def __init__(self, path: str) -> None:
        self.path = path

    def settings(self, want: Wanted) -> dict[str, str]:
        raise NotImplementedError("the amounts come from the node, not from the proxy")

    def read(self, text: str) -> dict[str, str]:
        return read(text)

    def foreign(self, text: str) -> dict[str, str]:
        """What others have set."""
        return read(split(text, self.path, self.label)[0])

    def render(self, settings: dict[str, str]) -> str:
        return "".join(f"{key}={_escape(value)}\n" for key, value in settings.items())


def _logical_lines(text: str) -> list[str]:
    """Lines without comments and blank ones, those that end in a backslash joined."""
    found: list[str] = []
    pending = ""
    joining = False
    for raw in re.split(r"\r\n|\r|\n", text):
        line = raw.lstrip(_SPACE)
        if not joining and (not line or line[0] in "#!"):
            continue
        pending = pending + line if joining else line
        # An odd number of backslashes: the last one escapes the line's end.
        joining = (len(pending) - len(pending.rstrip("\\"))) % 2 == 1
        if joining:
            pending = pending[:-1]
        else:
            found.append(pending)
            pending = ""
    if joining:
        found.append(pending)
    return found


def _split(line: str) -> tuple[str, str]:
    """At the first ``=``, ``:`` or white space that no backslash escapes."""
    at = 0
    while at < len(line) and line[at] not in f"=:{_SPACE}":
        at += 2 if line[at] == "\\" else 1
    key, rest = line[:at], line[at:].lstrip(_SPACE)
    if rest[:1] in ("=", ":"):
        rest = rest[1:].lstrip(_SPACE)
    return key, rest


def _unescape(text: str) -> str:
    def one(match: re.Match[str]) -> str:
        word = match[1]
        if word.startswith("u"):
            return chr(int(word[1:], 16))
        return _ESCAPES.get(word, word)

    return re.sub(r"\\(u[0-9a-fA-F]{4}|.)", one, text, flags=re.DOTALL)


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n")
