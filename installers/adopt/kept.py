"""What was taken over, as it was: kept aside, remembered before it is touched, given back.

``files``: path → how it was taken (``moved``, ``cut``, ``gone``); ``holds``: packages that were
held; ``after``: what has yet to be told of it. A kill between any two steps loses nothing.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable
from typing import Any

from installers import originals
from installers.host import Host
from installers.journal import STATE_DIR, recall, remember

DIRECTORY = f"{STATE_DIR}/adopted"
MEMORY = "adopt"
Bare = Callable[[bytes], bytes]
_OURS = re.compile(r"[ \t]*# >>> airlock\b[^\n]*\n.*?^[ \t]*# <<< airlock\b[^\n]*\n?", re.S | re.M)


def memory(host: Host) -> dict[str, Any]:
    """``{"files", "holds", "after"}``, each there."""
    known = recall(host, MEMORY)
    return {"files": {}, "holds": [], "after": [], **known}


def store(host: Host, known: dict[str, Any]) -> None:
    """Remember; nothing at all where there is nothing to remember."""
    remember(host, MEMORY, {key: value for key, value in known.items() if value})


def place(path: str) -> str:
    """Where the thing at a path is kept."""
    return f"{DIRECTORY}/{hashlib.sha256(path.encode()).hexdigest()[:16]}"


def first(host: Host, path: str) -> bytes:
    """The file as it was before it was taken over, empty where none is kept."""
    return host.read_bytes(place(path)) or b""


def move(host: Host, path: str, row: str, after: str = "") -> None:
    """Set a file, a link or a directory aside."""
    known = memory(host)
    before = known["files"].get(path)
    _note(host, known, path, {"row": row, "how": "moved"}, after)
    if before is not None and _there(host, place(path)):
        # Somebody ran the scripts again: what was there before the first time is what counts.
        host.remove(path)
        return
    _private(host)
    host.move(path, place(path))


def cut(host: Host, path: str, row: str, cutter: Bare, after: str = "") -> None:
    """Take lines out of a file of others; of our blocks in it nothing is kept."""
    data = host.read_bytes(path) or b""
    mode = host.path(path).stat().st_mode & 0o7777
    left, blocks = _apart(data)
    # A key store is no text; it has no block of ours, so nothing is put together there.
    foreign = _together(left, []) if blocks else data
    known = memory(host)
    old = known["files"].get(path)
    bare = cutter(foreign)
    if old is None:
        before = originals.kept(host, path)
        _private(host)
        # It may hold what only its owner may read.
        host.write(place(path), foreign if before is None else before, mode=0o600)
    elif old["sha256"] != _sha256(bare):
        # Others wrote into it since; then the kept file is no longer all that was there.
        old = {**old, "changed": True}
    record = {**(old or {"row": row, "how": "cut", "mode": mode}), "sha256": _sha256(bare)}
    _note(host, known, path, record, after)
    host.write(path, _together(cutter(left), blocks) if blocks else bare, mode=mode)


def destroy(host: Host, path: str, row: str) -> None:
    """Overwrite a secret and remove it; of a directory, everything in it."""
    target = host.path(path, follow=False)
    files = [p for p in target.rglob("*") if p.is_file()] if target.is_dir() else [target]
    _note(host, memory(host), path, {"row": row, "how": "gone"}, "")
    for one in files:
        if one.is_symlink() or not one.is_file():
            continue
        with one.open("r+b") as stream:
            # On a disk that writes elsewhere this is all that can be done from here.
            stream.write(b"\0" * one.stat().st_size)
            stream.flush()
            os.fsync(stream.fileno())
    host.remove(path)


def discard(host: Host, path: str, row: str) -> None:
    """Remove what nobody will want again."""
    _note(host, memory(host), path, {"row": row, "how": "gone"}, "")
    host.remove(path)


def give_back(host: Host) -> list[str]:
    """Everything in its place again, as it was. Returns what could not be, in words."""
    said = []
    for path in reversed(list(memory(host)["files"])):
        record = memory(host)["files"][path]
        problem = _one_back(host, path, record)
        if problem:
            said.append(f"{path}: {problem}")
        if not problem or not _there(host, place(path)):
            known = memory(host)
            del known["files"][path]
            store(host, known)
    host.prune(DIRECTORY)
    return said


def without_ours(text: str) -> tuple[str, list[str]]:
    """The text with each block of ours as one line that nothing matches, and the blocks."""
    blocks: list[str] = []

    def store(found: re.Match[str]) -> str:
        blocks.append(found[0])
        return f"\0{len(blocks) - 1}\0\n"

    return _OURS.sub(store, text), blocks


def with_ours(text: str, blocks: list[str]) -> str:
    """The blocks in their places again; those that are not given go."""

    def back(found: re.Match[str]) -> str:
        number = int(found[1])
        return blocks[number] if number < len(blocks) else ""

    return re.sub(r"\x00(\d+)\x00\n", back, text)


def _one_back(host: Host, path: str, record: dict[str, Any]) -> str:
    if record["how"] == "gone":
        return f"is not brought back ({record['row']})"
    if not _there(host, place(path)):
        # Given back by a run that was killed before it could forget it; or an image was sealed.
        same = record["how"] == "cut" and _sha256(host.read_bytes(path) or b"") == record["sha256"]
        lost = same or (record["how"] == "moved" and not _there(host, path))
        return "is not brought back: what was kept of it is gone" if lost else ""
    if record["how"] == "moved":
        if _there(host, path):
            return f"somebody made another one since; as it was it is in {place(path)}"
        host.move(place(path), path)
        return ""
    now = host.read_bytes(path)
    if now is None or record.get("changed") or _sha256(now) != record["sha256"]:
        return f"somebody changed it since; as it was it is in {place(path)}"
    host.write(path, first(host, path), mode=int(record["mode"]))
    host.remove(place(path))
    return ""


def _note(host: Host, known: dict[str, Any], path: str, record: dict[str, Any], after: str) -> None:
    files = {**known["files"], path: record}
    waiting = [*known["after"], after] if after and after not in known["after"] else known["after"]
    store(host, {**known, "files": files, "after": waiting})


def _private(host: Host) -> None:
    directory = host.path(DIRECTORY)
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    directory.chmod(0o700)


def _there(host: Host, path: str) -> bool:
    return os.path.lexists(host.path(path, follow=False))


def _apart(data: bytes) -> tuple[bytes, list[str]]:
    text, blocks = without_ours(data.decode("utf-8", "surrogateescape"))
    if not blocks:
        return data, []
    return text.encode("utf-8", "surrogateescape"), blocks


def _together(data: bytes, blocks: list[str]) -> bytes:
    text = with_ours(data.decode("utf-8", "surrogateescape"), blocks)
    return text.encode("utf-8", "surrogateescape")


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
