"""apt's sources from http to https on the same mirror, and back."""

from __future__ import annotations

import re
from collections.abc import Callable

from installers.host import Host

# A source with a port or with credentials stays: https on that port would be a guess.
_HTTP = re.compile(r"(?<![\w+:/.-])http://([A-Za-z0-9._-]+)(?=[/\s]|$)")
_SKIPPED = re.compile(r"(?<![\w+:/.-])http://\S+")


def files(host: Host) -> list[str]:
    """Every file that names mirrors: one-line lists, deb822, and cloud images' mirror lists."""
    found = ["/etc/apt/sources.list"] if host.exists("/etc/apt/sources.list") else []
    for directory, pattern in (
        ("/etc/apt/sources.list.d", "*.list"),
        ("/etc/apt/sources.list.d", "*.sources"),
        ("/etc/apt/mirrors", "*.list"),
    ):
        found += host.glob(directory, pattern)
    return found


def plain_mirrors(text: str, path: str) -> list[str]:
    """Names of mirrors that a file reaches by http and that can become https."""
    names: list[str] = []

    def note(match: re.Match[str]) -> str:
        names.append(match[1])
        return match[0]

    _in_uris(text, path, lambda part: _HTTP.sub(note, part))
    return list(dict.fromkeys(names))


def left_alone(text: str, path: str) -> bool:
    """True when a file has http sources that are not rewritten (port or credentials)."""
    found: list[str] = []

    def note(part: str) -> str:
        found.extend(_SKIPPED.findall(_HTTP.sub("", part)))
        return part

    _in_uris(text, path, note)
    return bool(found)


def to_https(text: str, path: str) -> str:
    """The file with https for every plain mirror; comments and all else as they were."""
    return _in_uris(text, path, lambda part: _HTTP.sub(r"https://\1", part))


def secured(uri: str) -> str:
    """An address as ``to_https`` makes it."""
    return _HTTP.sub(r"https://\1", uri)


def to_http(text: str, path: str, mirrors: list[str]) -> str:
    """The way back, for the mirrors that we changed."""
    names = "|".join(re.escape(name) for name in mirrors)
    pattern = re.compile(rf"(?<![\w+:/.-])https://({names})(?=[/\s]|$)")
    return _in_uris(text, path, lambda part: pattern.sub(r"http://\1", part)) if mirrors else text


def _in_uris(text: str, path: str, change: Callable[[str], str]) -> str:
    """Apply ``change`` to the parts of a file that hold URIs."""
    lines = text.splitlines(keepends=True)
    in_uris = False
    for number, line in enumerate(lines):
        if line.lstrip().startswith("#"):
            continue
        if path.endswith(".sources"):
            # deb822: a field goes on in lines that begin with a blank.
            if not line[:1].isspace():
                in_uris = line.partition(":")[0].strip().lower() == "uris"
            if in_uris:
                lines[number] = change(line)
        elif re.match(r"\s*deb(-src)?\s", line) or path.startswith("/etc/apt/mirrors/"):
            body, comment, rest = line.partition("#")
            lines[number] = change(body) + comment + rest
    return "".join(lines)
