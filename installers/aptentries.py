"""Other people's apt sources for a repository of ours: switched off, and on again byte for byte.

apt reads no source at all when two files give the same repository different ``Signed-By`` values.
Images come with such files, so each of their entries becomes a comment that names its reason.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from installers import aptsources
from installers.host import Host

_NO = ("no", "false", "without", "off", "disable")
_ONE_LINE = re.compile(r"\s*(deb(?:-src)?)\s+(?:\[([^\]]*)\]\s*)?(\S+)\s+(\S+)(.*)")


@dataclass(frozen=True)
class Entry:
    """Lines ``first`` to ``last`` (exclusive) of a file, and every (URI, suite) they name."""

    first: int
    last: int
    places: frozenset[tuple[str, str]]


@dataclass(frozen=True)
class Source:
    """Lines ``first`` to ``last`` (exclusive) of a file: an entry that is on, and what it says.

    ``kind``: deb, deb-src, or both; ``options``: those of a one-line entry; ``signed_by``: the
    words of Signed-By.
    """

    first: int
    last: int
    kind: str
    options: tuple[str, ...]
    uris: tuple[str, ...]
    suites: tuple[str, ...]
    components: tuple[str, ...]
    signed_by: tuple[str, ...]


def sources(text: str, path: str) -> list[Source]:
    """Every entry of a file, of either format, that is on."""
    if path.endswith(".sources"):
        return [
            Source(
                first,
                last,
                fields.get("types", ""),
                (),
                tuple(fields.get("uris", "").split()),
                tuple(fields.get("suites", "").split()),
                tuple(fields.get("components", "").split()),
                tuple(fields.get("signed-by", "").split()),
            )
            for first, last, fields in _numbered(text)
        ]
    found = []
    for number, line in enumerate(text.splitlines()):
        match = _ONE_LINE.match(line.partition("#")[0])
        if match is not None:
            kind, options, uri, suite, components = match.groups()
            given = tuple((options or "").split())
            signed = [o.partition("=")[2] for o in given if o.lower().startswith("signed-by=")]
            words = tuple(word for one in signed for word in one.split(","))
            found.append(
                Source(
                    number,
                    number + 1,
                    kind,
                    given,
                    (uri,),
                    (suite,),
                    tuple(components.split()),
                    words,
                )
            )
    return found


def places(uris: str, suites: str, arch: str) -> frozenset[tuple[str, str]]:
    """Every pair of the blank-separated URIs and suites, in the one spelling that is compared."""
    return frozenset(
        (uri.replace("$(ARCH)", arch).rstrip("/"), suite.rstrip("/") or "/")
        for uri in uris.split()
        for suite in suites.split()
    )


def files(host: Host, ours: Iterable[str]) -> list[str]:
    """Every file that names sources, but ours."""
    mine = set(ours)
    return [
        path
        for path in aptsources.files(host)
        if path not in mine and not path.startswith("/etc/apt/mirrors/")
    ]


def rivals(text: str, path: str, mine: frozenset[tuple[str, str]], arch: str) -> list[Entry]:
    """Active entries for one of the places."""
    return [entry for entry in _entries(text, path, arch) if entry.places & mine]


def switch_off(text: str, entries: Iterable[Entry], name: str) -> str:
    """The file with these entries as comments."""
    lines = text.splitlines(keepends=True)
    for entry in entries:
        for number in range(entry.first, entry.last):
            lines[number] = _mark(name) + lines[number]
    return "".join(lines)


def switched_off(text: str) -> list[str]:
    """Names of the repositories for which entries of the file were switched off."""
    return sorted(set(re.findall(r"^#airlock:([a-z0-9-]+)# ", text, re.MULTILINE)))


def switch_on(text: str, name: str) -> str:
    """The file as it was before ``switch_off``."""
    lines = text.splitlines(keepends=True)
    return "".join(
        line[len(_mark(name)) :] if line.startswith(_mark(name)) else line for line in lines
    )


def _mark(name: str) -> str:
    return f"#airlock:{name}# "


def _entries(text: str, path: str, arch: str) -> list[Entry]:
    return [
        Entry(one.first, one.last, places(" ".join(one.uris), " ".join(one.suites), arch))
        for one in sources(text, path)
    ]


def stanzas(text: str) -> list[dict[str, str]]:
    """The fields, by lower-case name, of each entry of a deb822 file that is on."""
    return [fields for _, _, fields in _numbered(text)]


def _numbered(text: str) -> list[tuple[int, int, dict[str, str]]]:
    """Entries that are on: their first line, the line after the last, and their fields."""
    found: list[tuple[int, int, dict[str, str]]] = []
    lines = text.splitlines()
    first = 0
    for number in range(len(lines) + 1):
        if number == len(lines) or not lines[number].strip():
            fields = _fields(lines[first:number])
            if fields and fields.get("enabled", "yes").lower() not in _NO:
                found.append((first, number, fields))
            first = number + 1
    return found


def _fields(lines: list[str]) -> dict[str, str]:
    """deb822 fields by lower-case name, their lines joined by blanks."""
    found: dict[str, str] = {}
    name = ""
    for line in lines:
        if line.startswith("#"):
            continue
        if line[:1].isspace():
            found[name] = f"{found.get(name, '')} {line.strip()}"
        else:
            name, _, value = line.partition(":")
            name = name.strip().lower()
            found[name] = value.strip()
    return found
