"""What is at the API beside what should be: the plan, made before anything is changed."""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.cloud.network import ROOTS, Resource

_URL = re.compile(r"^(?:https?://[^/]+/)?(?:compute/v1/)?(?=projects/)")


class Action(enum.StrEnum):
    """What a plan says of one resource."""

    KEEP = "is there"
    MAKE = "make"
    REPLACE = "make anew"
    FOREIGN = "somebody else's"
    STUCK = "changed"


@dataclass(frozen=True)
class Step:
    """One resource of a plan. ``why``: where it differs, a sentence each."""

    resource: Resource
    action: Action
    why: tuple[str, ...] = ()


def plan(
    wanted: Sequence[Resource],
    there: Callable[[Resource], Mapping[str, Any] | None],
    ours: Callable[[Resource, Mapping[str, Any]], bool],
) -> list[Step]:
    """What would have to be done, in order. ``there`` asks the API, ``ours`` who made a thing."""
    steps: list[Step] = []
    for resource in wanted:
        found = there(resource)
        if found is None:
            steps.append(Step(resource, Action.MAKE))
            continue
        why = tuple(differences(resource.expected, found))
        if not why:
            steps.append(Step(resource, Action.KEEP))
        elif not ours(resource, found):
            steps.append(Step(resource, Action.FOREIGN, why))
        elif resource.kind in ROOTS:
            steps.append(Step(resource, Action.STUCK, why))
        else:
            steps.append(Step(resource, Action.REPLACE, why))
    return steps


def differences(expected: Any, found: Any, where: str = "") -> list[str]:
    """Where ``found`` is not as ``expected``, as ``path: found, expected``. Keys beyond are fine.

    Lists are equal as sets; lists of ``{key, value}`` are read as tables; URLs are compared without
    their host; a default that the API leaves out is there.
    """
    if isinstance(expected, Mapping):
        if not isinstance(found, Mapping):
            found = {}
        found_lines = []
        for key, value in expected.items():
            below = f"{where}.{key}" if where else str(key)
            found_lines += differences(value, found.get(key), below)
        return found_lines
    if isinstance(expected, list | tuple):
        return _lists(list(expected), list(found or []), where)
    if not expected and not found:
        return []
    if _plain(expected) != _plain(found):
        return [_sentence(where, found, expected)]
    return []


def _lists(expected: list[Any], found: list[Any], where: str) -> list[str]:
    tables = [_table(expected), _table(found)]
    if tables[0] is not None and (tables[1] is not None or not found):
        return differences(tables[0], tables[1] or {}, where)
    if len(expected) != len(found):
        return [_sentence(where, found, expected)]
    if all(isinstance(one, Mapping) for one in expected):
        lines = []
        for index, (one, other) in enumerate(zip(expected, found, strict=True)):
            lines += differences(one, other, f"{where}[{index}]")
        return lines
    if sorted(map(_plain, expected)) != sorted(map(_plain, found)):
        return [_sentence(where, found, expected)]
    return []


def _table(items: list[Any]) -> dict[str, Any] | None:
    """Metadata's items as a dictionary; None if they are none."""
    if items and all(isinstance(one, Mapping) and "key" in one for one in items):
        return {one["key"]: one.get("value") for one in items}
    return None


def _plain(value: Any) -> str:
    """A scalar as the API may spell it: 64-bit numbers are strings, URLs have a host or none."""
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return _URL.sub("", text)


def _sentence(where: str, found: Any, expected: Any) -> str:
    """For people: a startup script is not printed whole."""
    if max(len(repr(found)), len(repr(expected))) > 120:
        return f"{where}: another than wanted"
    return f"{where}: {'missing' if found is None else repr(found)}, not {expected!r}"
