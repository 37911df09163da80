"""apt's sources with entries sent to an archive, and back to what they were, byte for byte.

What was there stays as comments, with ours behind it between two marks. An entry that names suites
of both kinds is split. Lists of an archive are never renewed, so apt is told for them alone not to
mind that their validity has ended; signatures count as everywhere.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Optional

from installers import aptentries
from installers.aptentries import Source
from installers.errors import NodeError

_OLD = "#airlock-archive# "
_BEGIN, _END = "#airlock-archive begin", "#airlock-archive end"
#: (source, URI, suite) → where the suite is: None where it is, empty where it is nowhere.
Where = Callable[[Source, str, str], Optional[str]]
# deb822 fields that are written anew, with the lines that go on with them.
_ANEW = ("uris", "suites", "check-valid-until")


def restore(text: str, path: str) -> str:
    """The file without anything of ours. NodeError where a mark is alone."""
    kept: list[str] = []
    inside = False
    for line in text.splitlines(keepends=True):
        mark = line.rstrip("\r\n")
        if mark in (_BEGIN, _END):
            if inside == (mark == _BEGIN):
                raise _torn(path)
            inside = mark == _BEGIN
            if not inside and kept and not line.endswith("\n"):
                # The end of the file had no newline; it was needed for what came behind.
                kept[-1] = kept[-1][:-1]
        elif not inside:
            kept.append(line[len(_OLD) :] if line.startswith(_OLD) else line)
    if inside:
        raise _torn(path)
    return "".join(kept)


def rewrite(text: str, path: str, where: Where) -> str:
    """The file, which has nothing of ours in it, with every entry that has moved sent there."""
    lines = text.splitlines(keepends=True)
    for source in reversed(aptentries.sources(text, path)):
        places = _places(source, where)
        if all(moved is None for _, _, moved in places):
            continue
        old = lines[source.first : source.last]
        newline = "\n" if old[-1].endswith("\n") else ""
        old[-1] = f"{old[-1].removesuffix(newline)}\n" if newline else f"{old[-1]}\n"
        ours = _stanzas(old, places) if path.endswith(".sources") else _one_line(source, places)
        lines[source.first : source.last] = [
            *(_OLD + line for line in old),
            f"{_BEGIN}\n",
            *ours,
            f"{_END}{newline}",
        ]
    return "".join(lines)


def ours(text: str, path: str) -> list[tuple[str, str]]:
    """Every (suite, URI) that a source between our marks names."""
    inside: list[bool] = []
    now = False
    for line in text.splitlines():
        now = line == _BEGIN or (now and line != _END)
        inside.append(now)
    return [
        (suite, uri)
        for source in aptentries.sources(text, path)
        if any(inside[source.first : source.last])
        for suite in source.suites
        for uri in source.uris
    ]


def _places(source: Source, where: Where) -> list[tuple[str, str, Optional[str]]]:
    return [
        (uri, suite, where(source, uri, suite)) for suite in source.suites for uri in source.uris
    ]


def _grouped(
    places: list[tuple[str, str, Optional[str]]],
) -> list[tuple[list[str], list[str], bool]]:
    """(URIs, suites, archived) of the entries that together say the same, and no more."""
    suites: dict[tuple[str, bool], list[str]] = {}
    for uri, suite, moved in places:
        if moved != "":
            named = suites.setdefault((moved or uri, moved is not None), [])
            if suite not in named:
                named.append(suite)
    found: list[tuple[list[str], list[str], bool]] = []
    for (uri, archived), names in suites.items():
        for uris, others, is_archived in found:
            if (others, is_archived) == (names, archived):
                uris.append(uri)
                break
        else:
            found.append(([uri], names, archived))
    return found


def _one_line(source: Source, places: list[tuple[str, str, Optional[str]]]) -> list[str]:
    found = []
    for (uri,), (suite,), _ in _grouped(places):
        options = [o for o in source.options if not o.lower().startswith("check-valid-until=")]
        given = " ".join([*options, "check-valid-until=no"])
        found.append(f"{source.kind} [{given}] {uri} {suite} {' '.join(source.components)}\n")
    return found


def _stanzas(lines: list[str], places: list[tuple[str, str, Optional[str]]]) -> list[str]:
    rest: list[str] = []
    left_out = False
    for line in lines:
        if line.startswith("#"):
            continue
        if not line[:1].isspace():
            left_out = line.partition(":")[0].strip().lower() in _ANEW
        if not left_out:
            rest.append(line)
    found: list[str] = []
    for uris, suites, archived in _grouped(places):
        found += ["\n"] if found else []
        found += [*rest, f"URIs: {' '.join(uris)}\n", f"Suites: {' '.join(suites)}\n"]
        found += ["Check-Valid-Until: no\n"] if archived else []
    return found


def _torn(path: str) -> NodeError:
    return NodeError(
        "the marks around our sources do not match",
        where=path,
        remedy=f"remove the lines from {_BEGIN!r} to {_END!r}, and {_OLD!r} before others, by hand",
    )


def without_credentials(uri: str) -> str:
    """An address that may be shown."""
    return re.sub(r"(?<=//)[^/@]*@", "", uri)
