"""What ``airlock cache`` does to a store: list, verify, fill from another one, clean up."""

from __future__ import annotations

import datetime as dt
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from harness.errors import InfraError, UsageError
from installers.cache import manifest
from installers.cache.cache import Cache
from installers.cache.filestore import FileStore
from installers.cache.manifest import Manifest, Sign, Trust
from installers.cache.settings import open_store
from installers.cache.store import (
    ENTRIES,
    LEASES,
    OBJECTS,
    QUARANTINE,
    Info,
    Store,
    TamperedError,
    entry_name,
    object_name,
)
from installers.cache.web import Web
from installers.errors import NodeError

#: Content younger than this may belong to an entry whose manifest is on its way.
GRACE = 24 * 3600.0
Say = Callable[[str], None]


def open_url(url: str) -> Store:
    """The store of a URL or a path; gs:// with Google's library. Raises UsageError."""
    if url.startswith("gs://"):
        from harness.cachetool.bucket import BucketStore

        return BucketStore(url)
    if "://" not in url:
        url = f"file://{Path(url).absolute()}"
    try:
        return open_store(url, Web(), "")
    except NodeError as error:
        raise UsageError(str(error)) from error


@dataclass
class Row:
    """One entry of a store. ``problem``: why it cannot be used, empty when it can."""

    key: str
    info: Info
    manifest: Manifest | None = None
    signer: str = ""
    problem: str = ""

    @property
    def line(self) -> str:
        """For people: key, kind, size, date, who signed it, what it is made for."""
        if self.manifest is None:
            return f"{self.key[:16]}  {self.problem}"
        day = dt.datetime.fromtimestamp(self.info.updated, dt.UTC).date().isoformat()
        by = f"signed by {self.signer[:16]}" if self.signer else "unsigned"
        about = self.manifest.inputs.get("kernel", "")
        text = f"{self.key[:16]}  {self.manifest.kind:16} {self.manifest.size:>12,}  {day}  {by}"
        return f"{text}  {about}  {self.problem}".rstrip()


def rows(store: Store, trust: Trust | None = None) -> Iterator[Row]:
    """Every entry by its manifest; with ``trust``, whether its signature is believed."""
    for info in store.list(f"{ENTRIES}/"):
        key = info.name.removeprefix(f"{ENTRIES}/").removesuffix(".json")
        row = Row(key, info)
        try:
            blob = store.read(info.name)
            if blob is None:
                continue  # removed while we looked
            row.manifest, signature = manifest.decode(blob.data, key)
            if signature is not None:
                row.signer = manifest.fingerprint(signature)
            if trust is not None:
                row.problem = trust.against(row.manifest, signature) or ""
        except TamperedError as wrong:
            row.problem = wrong.what
        yield row


def verify(store: Store, trust: Trust | None, say: Say, *, quarantine: bool = False) -> int:
    """Read everything and compare; how many entries are bad. With ``quarantine`` they go aside."""
    bad = 0
    checked: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="airlock-cache-", dir="/var/tmp") as folder:
        for row in rows(store, trust):
            problem = row.problem
            files = row.manifest.files.items() if row.manifest and not problem else ()
            for name, content in files:
                if content.sha256 not in checked:
                    checked[content.sha256] = _look(store, content, Path(folder) / "content")
                if checked[content.sha256]:
                    problem = f"{name}: {checked[content.sha256]}"
            say(f"{'bad ' if problem else 'good'}  {row.key[:16]}  {problem}".rstrip())
            bad += bool(problem)
            if problem and quarantine:
                store.set_aside(row.info.name, row.info.generation, problem)
    return bad


def _look(store: Store, content: manifest.Content, scratch: Path) -> str:
    """What is wrong with one content, empty when nothing is."""
    try:
        fetched = store.fetch(object_name(content.sha256), scratch, content.size)
        if fetched is None:
            return "its content is missing"
        return "" if fetched.sha256 == content.sha256 else "its content was changed"
    except TamperedError as wrong:
        return wrong.what
    finally:
        scratch.unlink(missing_ok=True)


def warm(
    source: Store,
    target: Store,
    say: Say,
    *,
    keys: Iterable[str] = (),
    trust: Trust | None = None,
    sign: Sign | None = None,
    plan: bool = False,
) -> tuple[int, int]:
    """Copy verified entries that the target lacks: (copied, failed). ``keys`` are prefixes.

    A shared source is believed by ``trust`` only; entries are signed anew with ``sign``.
    """
    wanted = tuple(keys)
    have = {info.name for info in target.list(f"{ENTRIES}/")}
    copied = failed = 0
    with tempfile.TemporaryDirectory(prefix="airlock-cache-", dir="/var/tmp") as folder:
        local = source if isinstance(source, FileStore) else FileStore(Path(folder))
        cache = Cache([source], local, trust=trust, sign=sign, say=say)
        for row in rows(source, trust if source.shared else None):
            if wanted and not row.key.startswith(wanted):
                continue
            if row.manifest is None or row.problem:
                say(f"left  {row.key[:16]}  {row.problem}")
                failed += 1
            elif entry_name(row.key) not in have:
                say(f"{'would copy' if plan else 'copy'}  {row.line}")
                if plan or cache.copy(source, row.key, target) is not None:
                    copied += 1
                else:
                    failed += 1
    return copied, failed


@dataclass
class Rubbish:
    """What a clean-up removes: ``names`` to generations, in the order of removal."""

    entries: dict[str, Info] = field(default_factory=dict)
    objects: dict[str, Info] = field(default_factory=dict)
    others: dict[str, Info] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Bytes that become free."""
        every = (*self.entries.values(), *self.objects.values(), *self.others.values())
        return sum(info.size for info in every)


def rubbish(store: Store, older: float | None, size: int | None) -> Rubbish:
    """What may go: entries older than ``older`` seconds, the oldest until ``size`` bytes are left.

    Content goes with the last entry that needs it, when it is older than a day; leases and
    quarantine when they are older than a day, or than ``older`` if that is longer.
    """
    now = time.time()
    found = Rubbish()
    objects = {info.name: info for info in store.list(f"{OBJECTS}/")}
    kept: list[Row] = []
    for row in sorted(rows(store), key=lambda row: row.info.updated):
        if older is not None and row.info.updated < now - older:
            found.entries[row.info.name] = row.info
        else:
            kept.append(row)
    while size is not None and kept and _bytes(kept, objects) > size:
        row = kept.pop(0)
        found.entries[row.info.name] = row.info
    if any(row.manifest is None for row in kept):
        # What a damaged manifest needs nobody knows; its content may be needed after a repair.
        return found
    needed = _needed(kept)
    for name, info in objects.items():
        if name not in needed and info.updated < now - GRACE:
            found.objects[name] = info
    for prefix in (LEASES, QUARANTINE):
        for info in store.list(f"{prefix}/"):
            if info.updated < now - max(GRACE, older or 0.0):
                found.others[info.name] = info
    return found


def remove(store: Store, found: Rubbish, say: Say) -> int:
    """Remove exactly what was found, manifests first; how many objects. Changed ones stay."""
    count = 0
    for part in (found.entries, found.objects, found.others):
        for name, info in part.items():
            if store.delete(name, info.generation):
                say(f"removed  {name}")
                count += 1
    if isinstance(store, FileStore):
        count += store.sweep()
    return count


def _needed(kept: Iterable[Row]) -> set[str]:
    return {
        object_name(content.sha256)
        for row in kept
        if row.manifest is not None
        for content in row.manifest.files.values()
    }


def _bytes(kept: Iterable[Row], objects: dict[str, Info]) -> int:
    return sum(objects[name].size for name in _needed(kept) if name in objects)


def guarded(action: Callable[[], int]) -> int:
    """Run it; a store's failure is one of the lab, not of a node."""
    try:
        return action()
    except NodeError as error:
        raise InfraError(str(error)) from error
