"""Which Kubernetes versions a chart is for: ``kubeVersion``, as Helm reads it (Masterminds)."""

from __future__ import annotations

import re

_TERM = re.compile(
    r"(=|==|!=|>|<|>=|=>|<=|=<|~|~>|\^)?\s*v?([\dxX*]+(?:\.[\dxX*]+){0,2})(-[\w.-]+)?(\+\S+)?"
)
_HYPHEN = re.compile(r"(\S+)\s+-\s+(\S+)")
Version = tuple[int, int, int]


def admits(constraint: str, version: Version) -> bool:
    """Whether a release version satisfies it. ValueError if it is no constraint."""
    return any(_all(part, version) for part in constraint.split("||"))


def _all(part: str, version: Version) -> bool:
    part = _HYPHEN.sub(r">=\1 <=\2", part.strip())
    rest, found = part, False
    fine = True
    while rest := rest.strip(" ,"):
        match = _TERM.match(rest)
        if not match:
            raise ValueError(f"{part!r} is no constraint of versions")
        rest, found = rest[match.end() :], True
        fine = fine and _term(match[1] or "", match[2], bool(match[3]), version)
    if not found:
        raise ValueError("the constraint is empty")
    return fine


def _term(how: str, text: str, pre: bool, version: Version) -> bool:
    given: list[int] = []
    for number in text.split("."):
        if not number.isdigit():
            break
        given.append(int(number))
    low: Version = (*given, 0, 0, 0)[:3]  # type: ignore[assignment]
    top = _next(given, len(given) - 1)
    if how in ("", "=", "=="):
        return low <= version < top if len(given) < 3 else version == low and not pre
    if how == "!=":
        return not (low <= version < top if len(given) < 3 else version == low and not pre)
    if how in (">=", "=>"):
        return version >= low
    if how == ">":
        return version >= top if len(given) < 3 else version > low or (version == low and pre)
    if how == "<":
        return version < low
    if how in ("<=", "=<"):
        return version < top if len(given) < 3 else version <= low and not (pre and version == low)
    if how in ("~", "~>"):
        return low <= version < _next(given, min(1, len(given) - 1))
    first = next((n for n, number in enumerate(given) if number), len(given) - 1)
    return low <= version < _next(given, first)


def _next(given: list[int], place: int) -> Version:
    """The first version after all that agree with ``given`` up to ``place``."""
    if place < 0:
        return (1 << 30, 0, 0)
    found = [*given, 0, 0, 0][:3]
    return tuple(  # type: ignore[return-value]
        number + 1 if at == place else (number if at < place else 0)
        for at, number in enumerate(found)
    )
