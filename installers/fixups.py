"""Edits that a packaged driver source needs for the kernel at hand: data, decided by compiling.

A version table would be wrong the next time a stable kernel takes over a change. So each fix-up has
a range of driver versions it belongs to and two snippets: the old use of the kernel's interface and
the new one. Both are compiled with the kernel's own headers and flags; only where the new one
compiles and the old one does not is the source edited.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Optional

from installers.build import DriverBuildError, classify
from installers.compat import load_data, within
from installers.errors import NodeError
from installers.host import Host


@dataclass(frozen=True)
class Edit:
    """Replace ``find``, which must occur exactly once in ``file``, by ``replace``."""

    file: str
    find: str
    replace: str


@dataclass(frozen=True)
class Fixup:
    """One fix-up; ``driver`` is the range [from, below) of driver versions."""

    id: str
    why: str
    driver: list[Optional[str]]
    headers: list[str]
    old: str
    new: str
    edits: list[Edit]


@dataclass(frozen=True)
class Verdict:
    """What became of one fix-up: applied, not-needed, already-there, does-not-fit or undecided."""

    id: str
    state: str
    why: str


def load(raw: Optional[dict[str, Any]] = None) -> list[Fixup]:
    """The fix-ups of ``data/fixups.json``, or of an object of the same shape."""
    table = load_data("fixups.json") if raw is None else raw
    return [
        Fixup(
            id=entry["id"],
            why=entry["why"],
            driver=entry["driver"],
            headers=entry["probe"]["headers"],
            old=entry["probe"]["old"],
            new=entry["probe"]["new"],
            edits=[Edit(**edit) for edit in entry["edits"]],
        )
        for entry in table["fixups"]
    ]


def candidates(driver: str, known: Optional[Sequence[Fixup]] = None) -> list[Fixup]:
    """The fix-ups that a driver version may need, in their order."""
    every = load() if known is None else known
    return [fixup for fixup in every if within(driver, fixup.driver)]


def digest(chosen: Sequence[Fixup]) -> str:
    """sha256 of what these fix-ups do, not of their words: part of the key of a built module."""
    parts = [[f.id, f.headers, f.old, f.new, [asdict(edit) for edit in f.edits]] for f in chosen]
    text = json.dumps(parts, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def probe(host: Host, build_tree: str, chosen: Sequence[Fixup], work: str) -> dict[str, bool]:
    """Compile every snippet with one kbuild run: ``{"<id>/old": compiles, "<id>/new": compiles}``.

    A snippet that only includes the headers is compiled along. When that fails the headers or the
    compiler are at fault, and DriverBuildError says which.
    """
    objects: dict[str, str] = {}
    sources: dict[str, str] = {}
    for number, fixup in enumerate(chosen):
        head = "".join(f"#include <{header}>\n" for header in ["linux/module.h", *fixup.headers])
        for kind, body in (("base", ""), ("old", fixup.old), ("new", fixup.new)):
            stem = f"probe{number}_{kind}"
            objects[f"{fixup.id}/{kind}"] = f"{stem}.o"
            sources[f"{stem}.c"] = f"{head}{body}\n"
    for name, text in sources.items():
        host.write(f"{work}/{name}", text)
    host.write(f"{work}/Kbuild", f"obj-m := {' '.join(objects.values())}\n")
    # -k: the failure of one snippet must not keep the others from being compiled.
    command = ["make", "-k", "-C", build_tree, f"M={work}", *objects.values()]
    result = host.run(command, env={"LC_ALL": "C"}, check=False, timeout=600)
    compiled = {name: host.exists(f"{work}/{file}") for name, file in objects.items()}
    for fixup in chosen:
        if not compiled.pop(f"{fixup.id}/base"):
            raise DriverBuildError(*_headers_fault(result.err + "\n" + result.out, "_base.c"))
    return compiled


def _headers_fault(output: str, source: str) -> tuple[str, str]:
    """Cause and line for headers that do not compile by themselves, in files named ``source``."""
    own = "\n".join(line for line in output.splitlines() if source in line)
    cause, line = classify(own or output)
    return ("headers-missing" if cause in ("unknown", "api-changed") else cause), line


def apply(
    host: Host, tree: str, chosen: Sequence[Fixup], compiled: dict[str, bool]
) -> list[Verdict]:
    """Edit the unpacked source where the probe asks for it; says for each fix-up what was done."""
    return [_apply_one(host, tree, fixup, compiled) for fixup in chosen]


def _apply_one(host: Host, tree: str, fixup: Fixup, compiled: dict[str, bool]) -> Verdict:
    old, new = compiled[f"{fixup.id}/old"], compiled[f"{fixup.id}/new"]
    if old == new:
        how = "both ways compile" if old else "neither way compiles"
        return Verdict(fixup.id, "undecided", f"{how} with this kernel's headers")
    if old:
        return Verdict(fixup.id, "not-needed", "this kernel has the old interface")
    changed: dict[str, str] = {}
    there = 0
    for edit in fixup.edits:
        path = f"{tree}/{edit.file}"
        text = changed.get(path) or host.read(path) or ""
        if text.count(edit.find) == 1:
            changed[path] = text.replace(edit.find, edit.replace)
        elif text.count(edit.replace) == 1:
            there += 1
        else:
            return Verdict(fixup.id, "does-not-fit", f"{edit.file} does not hold what is replaced")
    if there == len(fixup.edits):
        return Verdict(fixup.id, "already-there", "the packaged source has it")
    if there:
        raise NodeError("the packaged source has half of a fix-up", where=fixup.id)
    for path, text in changed.items():
        host.write(path, text)
    return Verdict(fixup.id, "applied", fixup.why)
