"""What differs between the facts of two nodes, in words: "3 roots gone from the bundle".

Facts are read as they lie in a capsule (``facts.json``); what is not known here is still compared,
and said by its path. What changes from boot to boot and says nothing (clocks, nonces, addresses of
cards, free space) is left out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from reports.text import count, plain

Path = tuple[str, ...]

PASSING: tuple[Path, ...] = (
    ("schema",),
    ("nonce",),
    ("identity",),
    ("clock",),
    ("received",),
    ("seconds",),
    ("timings",),
    ("journal",),
    ("built",),
    ("installers", "*", "provenance"),
    ("installers", "*", "seconds"),
    ("installers", "*", "t"),
    ("memory", "available"),
    ("memory", "total"),
    ("disk", "/run", "size"),
    ("disk", "/tmp", "size"),  # noqa: S108 - a tmpfs, as large as the memory makes it
    ("disk", "*", "free"),
    ("hygiene", "machine_id"),
    ("hygiene", "ssh_host_keys"),
    ("hygiene", "files"),
    ("hygiene", "bytes"),
    ("network", "interfaces", "*", "mac"),
    ("kernel_log_flags", "*", "line"),
    ("controls", "*", "kernel_log"),
    ("probes", "*", "seconds"),
    ("modules", "*", "path"),
    ("modules", "*", "vermagic"),
    ("modules", "*", "sha256"),
    ("modules", "*", "body_sha256"),
    ("modules", "*", "size"),
)
"""Facts that differ between any two boots or builds; ``*`` is any name."""

NAMES = ("name", "path", "keyid", "sha256", "target", "kernel", "destination")
"""The fields by which the things of a list are told apart, first fit."""

LISTED = 6
"""Things that one line names."""

_ABSENT = None
_WIDTH = 60
_DIGEST = re.compile(r"(?:sha256:)?[0-9a-f]{64}|[0-9a-fA-F]{40}")
_DIGEST_SHOWN = 16


@dataclass(frozen=True)
class FactChange:
    """One thing that is otherwise: ``name`` is stable, ``text`` says it."""

    name: str
    text: str
    before: Any = None
    after: Any = None


@dataclass(frozen=True)
class _Leaf:
    """A path with two values; lists of words are given as what is gone and what is new."""

    path: Path
    before: Any
    after: Any
    gone: tuple[str, ...] = ()
    new: tuple[str, ...] = ()


def fact_changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[FactChange]:
    """Say what differs between two nodes' facts."""
    by_area: dict[str, list[_Leaf]] = {}
    for leaf in _walk(before, after, ()):
        by_area.setdefault(leaf.path[0], []).append(leaf)
    found: list[FactChange] = []
    for area, leaves in by_area.items():
        found += _TELLERS.get(area, _others)(leaves)
    return found


def _walk(before: Any, after: Any, path: Path) -> Iterator[_Leaf]:
    if before == after or _passing(path):
        return
    if isinstance(before, list) and isinstance(after, list):
        named = _named(before, after)
        if named is None:
            gone, new = _words_of(before, after), _words_of(after, before)
            if gone or new:
                yield _Leaf(path, before, after, gone, new)
            return
        before, after = named
    if not (isinstance(before, dict) and isinstance(after, dict)):
        yield _Leaf(path, before, after)
        return
    for key in [*before, *(key for key in after if key not in before)]:
        yield from _walk(before.get(key, _ABSENT), after.get(key, _ABSENT), (*path, str(key)))


def _passing(path: Path) -> bool:
    return any(
        len(path) == len(known)
        and all(part in ("*", here) for part, here in zip(known, path, strict=True))
        for known in PASSING
    )


def _named(before: list[Any], after: list[Any]) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """Both lists as dicts by the name of their things, if these have one."""
    things = [*before, *after]
    if not things or not all(isinstance(thing, dict) for thing in things):
        return None
    for key in NAMES:
        if not all(isinstance(thing.get(key), str) for thing in things):
            continue
        one, other = ({thing[key]: thing for thing in side} for side in (before, after))
        if key == "name" or (len(one), len(other)) == (len(before), len(after)):
            return one, other
    return None


def _words_of(side: list[Any], other: list[Any]) -> tuple[str, ...]:
    """What only ``side`` has."""
    there = {_word(item) for item in other}
    return tuple(dict.fromkeys(word for item in side if (word := _word(item)) not in there))


def _word(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def say(value: Any) -> str:
    """A value on one line, no longer than is good to read."""
    if value is None:
        return "(absent)"
    text = " ".join(plain(_word(value)).split()) or "(empty)"
    if _DIGEST.fullmatch(text):
        return text[:_DIGEST_SHOWN]
    return text if len(text) <= _WIDTH else f"{text[: _WIDTH - 1]}…"


def _listed(words: Sequence[str]) -> str:
    shown = ", ".join(words[:LISTED])
    return f"{shown} and {len(words) - LISTED} more" if len(words) > LISTED else shown


def _others(leaves: Sequence[_Leaf]) -> Iterator[FactChange]:
    """Any fact, by its path; the same change of many things of one list is one line."""
    groups: dict[tuple[Path, str, str], list[_Leaf]] = {}
    for leaf in leaves:
        place = (leaf.path[0], "*", *leaf.path[2:]) if len(leaf.path) > 2 else leaf.path
        groups.setdefault((place, _word(leaf.before), _word(leaf.after)), []).append(leaf)
    for same in groups.values():
        first = same[0]
        path = first.path if len(same) == 1 else (first.path[0], "*", *first.path[2:])
        name = ".".join(say(part) for part in path)
        many = f" ({count(len(same), 'thing')})" if len(same) > 1 else ""
        if first.gone or first.new:
            parts = [f"gone: {_listed([say(word) for word in first.gone])}"] if first.gone else []
            parts += [f"new: {_listed([say(word) for word in first.new])}"] if first.new else []
            yield FactChange(name, f"{name}: {'; '.join(parts)}{many}", first.gone, first.new)
        else:
            text = f"{name}: {say(first.before)} → {say(first.after)}{many}"
            yield FactChange(name, text, first.before, first.after)


def _trust(leaves: Sequence[_Leaf]) -> Iterator[FactChange]:
    """The roots of the operating system's bundle are counted, and named by their fingerprints."""
    rest = []
    for leaf in leaves:
        if leaf.path != ("trust", "fingerprints"):
            rest.append(leaf)
            continue
        name = "trust.fingerprints"
        if leaf.gone:
            yield FactChange(
                name, f"{count(len(leaf.gone), 'root')} gone from the bundle", leaf.gone
            )
        if leaf.new:
            text = f"{count(len(leaf.new), 'root')} new in the bundle"
            yield FactChange(name, text, None, leaf.new)
    yield from _others(rest)


def _packages(leaves: Sequence[_Leaf]) -> Iterator[FactChange]:
    """Packages by what became of them, one line each way."""
    ways: dict[str, list[_Leaf]] = {}
    for leaf in leaves:
        way = "gone" if leaf.after is None else "new" if leaf.before is None else "changed"
        ways.setdefault(way if len(leaf.path) == 2 else "", []).append(leaf)
    for way, found in ways.items():
        if not way:
            yield from _others(found)
            continue
        words = [_versions(leaf, way) for leaf in found]
        yield FactChange(
            f"packages.{way}",
            f"{count(len(found), 'package')} {way}: {_listed(words)}",
            {leaf.path[1]: leaf.before for leaf in found},
            {leaf.path[1]: leaf.after for leaf in found},
        )


def _versions(leaf: _Leaf, way: str) -> str:
    if way == "changed":
        return f"{say(leaf.path[1])} {say(leaf.before)} → {say(leaf.after)}"
    return f"{say(leaf.path[1])} {say(leaf.before or leaf.after)}"


def _modules(leaves: Sequence[_Leaf]) -> Iterator[FactChange]:
    """The driver is the version of its modules; who signed them is one line."""
    rest: list[_Leaf] = []
    versions: dict[tuple[Any, Any], int] = {}
    signers: dict[tuple[str, str], list[_Leaf]] = {}
    for leaf in leaves:
        field = leaf.path[2:]
        if field == ("version",):
            versions[(leaf.before, leaf.after)] = versions.get((leaf.before, leaf.after), 0) + 1
        elif field[:1] in (("signer",), ("cert_sha256",)):
            signers.setdefault((leaf.path[0], leaf.path[1]), []).append(leaf)
        else:
            rest.append(leaf)
    for (old, new), number in versions.items():
        text = f"driver {say(old)} → {say(new)} ({count(number, 'module')})"
        yield FactChange("modules.version", text, old, new)
    for (old_signer, new_signer), number in _signers(signers.values()).items():
        text = f"module signer changed: {old_signer} → {new_signer} ({count(number, 'module')})"
        yield FactChange("modules.signer", text, old_signer, new_signer)
    yield from _others(rest)


def _signers(changed: Any) -> dict[tuple[str, str], int]:
    """From whom to whom, by the name if that differs, else by the certificate's digest."""
    found: dict[tuple[str, str], int] = {}
    for leaves in changed:
        names = [leaf for leaf in leaves if leaf.path[-1] in ("issuer_cn", "signer")]
        leaf = names[0] if names else leaves[-1]
        pair = (_signer(leaf.before), _signer(leaf.after))
        found[pair] = found.get(pair, 0) + 1
    return found


def _signer(value: Any) -> str:
    if isinstance(value, dict):
        value = value.get("issuer_cn") or value
    return "nobody" if value is None else say(value)


_TELLERS: dict[str, Callable[[Sequence[_Leaf]], Iterator[FactChange]]] = {
    "trust": _trust,
    "packages": _packages,
    "modules": _modules,
}
