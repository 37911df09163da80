"""The cache: tiers of stores, asked in order; what is found is verified, what is not is built.

A hit in one tier asks no tier behind it. An entry that does not verify is put aside, never used,
and built anew; in a shared store its copy is kept and nothing is ever deleted.
"""

from __future__ import annotations

import contextlib
import os
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

from installers.cache import download, lease, manifest
from installers.cache.filestore import FileStore
from installers.cache.manifest import Manifest, Sign, Trust
from installers.cache.store import (
    Content,
    DeniedError,
    Store,
    StoreError,
    TamperedError,
    digest_of,
    entry_name,
    object_name,
    size_of,
)
from installers.errors import NodeError

#: ``() -> (files by name, provenance)``.
Build = Callable[[], "tuple[Mapping[str, Content], dict[str, Any]]"]
_LONGEST_PAUSE = 10.0
#: Seconds to wait for somebody else's build. Whoever keeps a lease for longer is not believed.
LONGEST_WAIT = 2 * 3600.0


@dataclass(frozen=True)
class Entry:
    """A verified entry. ``hit``: the store it came from, None when it was built just now.

    ``envelope``: manifest and signature as they are in the store.
    """

    manifest: Manifest
    files: dict[str, Content] = field(repr=False)
    hit: Optional[str] = None
    envelope: bytes = field(default=b"", repr=False)

    @property
    def key(self) -> str:
        """Under which it is found."""
        return self.manifest.key

    @property
    def details(self) -> dict[str, Any]:
        """What its builder noted."""
        return self.manifest.details

    def read(self, name: str) -> bytes:
        """One file, compared with its hash once more while it is read."""
        content = self.files[name]
        data = content if isinstance(content, bytes) else content.read_bytes()
        if digest_of(data) != self.manifest.files[name].sha256:
            raise TamperedError(f"{name} was changed after it was verified", where=self.key)
        return data


class Cache:
    """Tiers in the order in which they are asked.

    ``local`` is the directory that downloads go to, one of the tiers or a temporary one; without it
    nothing is kept. ``unsigned``: believe unsigned entries of shared stores too; ``strict``: not
    even those of directories. ``sign`` vouches for what is built here. ``say`` hears what went
    wrong without stopping anything.
    """

    def __init__(
        self,
        tiers: Sequence[Store],
        local: Optional[FileStore],
        *,
        trust: Optional[Trust] = None,
        unsigned: bool = False,
        strict: bool = False,
        sign: Optional[Sign] = None,
        say: Callable[[str], None] = lambda _: None,
        every: float = lease.EVERY,
        longest_wait: float = LONGEST_WAIT,
    ) -> None:
        self._tiers = list(tiers)
        self._local = local
        self._trust = trust or Trust()
        self._unsigned = unsigned
        self._strict = strict
        self._sign = sign
        self._say = say
        self._every = every
        self._longest_wait = longest_wait
        self._lock = threading.Lock()
        # What was found bad in a shared store may be written over, in exactly that generation.
        self._bad: dict[tuple[str, str], str] = {}
        # A store that did not answer for as long as we were patient is not asked again.
        self._gone: set[str] = set()

    def get(self, kind: str, inputs: Mapping[str, Any], *, unread: bool = False) -> Optional[Entry]:
        """The entry for these inputs from the first tier that has it whole, or None.

        ``unread``: files that are on this machine are not hashed. Who asks so compares what he
        takes out of them with a manifest that he got by ``Entry.read``, and ``refuse``s what
        differs.
        """
        wanted = Manifest(kind, dict(inputs), {})
        for tier in self._present():
            try:
                entry = self._from(tier, wanted.key, unread=unread)
            except StoreError as error:
                self._failed(tier, error)
                continue
            if entry is not None:
                return entry
        return None

    def obtain(
        self, kind: str, inputs: Mapping[str, Any], build: Build, *, unread: bool = False
    ) -> Entry:
        """The entry, built by ``build`` when no tier has it and nobody else is at it.

        ``unread``: as for ``get``.
        """
        if (found := self.get(kind, inputs, unread=unread)) is not None:
            return found
        held, found = self._turn(kind, inputs)
        try:
            if found is None:
                files, details = build()
                found = self.put(kind, inputs, files, details)
            return found
        finally:
            if held is not None:
                held.release()

    def put(
        self,
        kind: str,
        inputs: Mapping[str, Any],
        files: Mapping[str, Content],
        details: Mapping[str, Any],
        *,
        renew: bool = False,
    ) -> Entry:
        """Store a build in every tier that takes it; content first, the manifest last.

        A tier that has the entry already keeps its own, unless ``renew``. A tier that fails is told
        of and left out: what was built is not lost because it cannot be kept.
        """
        held = {
            manifest.check_name(name): manifest.Content(digest_of(data), size_of(data))
            for name, data in files.items()
        }
        made = Manifest(kind, dict(inputs), held, dict(details))
        wanted = self._strict or any(tier.shared and tier.writable for tier in self._tiers)
        try:
            envelope = manifest.encode(made, self._sign if wanted else None)
        except NodeError as error:
            self._say(f"the entry is not signed: {error}")
            envelope = manifest.encode(made)
        signed = b'"signature": null' not in envelope
        for tier in self._present():
            demanded = self._strict or (tier.shared and not self._unsigned)
            if not tier.writable or (demanded and not signed):
                continue
            try:
                for name, data in files.items():
                    self._write(tier, object_name(held[name].sha256), data)
                self._write(tier, entry_name(made.key), envelope, renew=renew)
            except NodeError as error:
                self._failed(tier, error)
        return Entry(made, dict(files), envelope=envelope)

    def copy(self, source: Store, key: str, target: Store) -> Optional[Manifest]:
        """Bring one verified entry from a store to another, signed anew if we can sign.

        None when the source has no such entry or not a good one.
        """
        entry = self._from(source, key)
        if entry is None:
            return None
        for name, content in entry.manifest.files.items():
            self._write(target, object_name(content.sha256), entry.files[name])
        blob = source.read(entry_name(key))
        if blob is None:
            return None
        envelope = manifest.encode(entry.manifest, self._sign) if self._sign else blob.data
        self._write(target, entry_name(key), envelope, renew=True)
        return entry.manifest

    def refuse(self, entry: Entry, why: str) -> None:
        """Put aside what is wrong with an entry that was got unread: a file, or all of it."""
        held = entry.manifest.files.values() if self._local is not None else ()
        with contextlib.suppress(StoreError):
            if [content for content in held if not self._kept_well(content)]:
                return
        name = entry_name(entry.key)
        for tier in self._present():
            with contextlib.suppress(StoreError):
                if (blob := tier.read(name)) is not None and blob.data == entry.envelope:
                    self._set_aside(tier, name, blob.generation, why)

    def _from(self, tier: Store, key: str, *, unread: bool = False) -> Optional[Entry]:
        """The entry as one tier has it; None when it has none or none that verifies."""
        name, generation = entry_name(key), ""
        try:
            blob = tier.read(name)
            if blob is None:
                return None
            generation = blob.generation
            found, signature = manifest.decode(blob.data, key)
            if self._strict or (tier.shared and not self._unsigned):
                why = self._trust.against(found, signature)
                if why is not None:
                    raise TamperedError(why)
            files = self._all(tier, found, unread)
        except TamperedError as wrong:
            self._set_aside(tier, name, generation, str(wrong))
            return None
        if self._local is not None and tier is not self._local and self._local in self._tiers:
            with contextlib.suppress(StoreError):
                self._write(self._local, name, blob.data)
        return Entry(found, files, tier.url, blob.data)

    def _all(self, tier: Store, found: Manifest, unread: bool) -> dict[str, Content]:
        """Every file of an entry; those that are here already are hashed on all cores."""
        workers = len(os.sched_getaffinity(0)) if tier is self._local else 1

        def bring(content: manifest.Content) -> Path:
            return self._bring(tier, content, unread)

        with ThreadPoolExecutor(min(workers, len(found.files))) as pool:
            paths = pool.map(bring, found.files.values())
            return dict(zip(found.files, paths))  # noqa: B905 - 3.9

    def _bring(self, tier: Store, content: manifest.Content, unread: bool) -> Path:
        """The verified content as a local file, fetched at most once on this machine."""
        if self._local is None:
            raise StoreError("there is no directory to fetch to", where=tier.url)
        name = object_name(content.sha256)
        path = self._local.path(name)
        if (unread and _is_there(path, content)) or self._verified(path, content):
            return path
        if tier is self._local:
            raise TamperedError("its content is missing")
        with self._local.claim(name) as partial:
            if self._verified(path, content):  # somebody else was faster
                return path
            resumed = partial.exists()
            while True:
                try:
                    fetched = tier.fetch(name, partial, content.size)
                except TamperedError as wrong:
                    self._set_aside(tier, name, _generation(tier, name), str(wrong))
                    raise
                if fetched is None:
                    raise TamperedError(f"its content {content.sha256} is missing")
                if fetched.sha256 == content.sha256:
                    return self._local.adopt(name, partial)
                download.forget(partial)
                if not resumed:
                    break
                resumed = False  # what a killed run left may not have reached the disk
        why = f"the content of {content.sha256} is not what its name says"
        self._set_aside(tier, name, fetched.generation, why)
        raise TamperedError(why)

    def _kept_well(self, content: manifest.Content) -> bool:
        assert self._local is not None
        return self._verified(self._local.path(object_name(content.sha256)), content)

    def _verified(self, path: Path, content: manifest.Content) -> bool:
        """Whether the local file is there and right; a wrong one is put aside."""
        assert self._local is not None
        try:
            if digest_of(path) == content.sha256:
                return True
        except FileNotFoundError:
            return False
        except OSError as error:
            raise StoreError(f"cannot be read: {error.strerror}", where=str(path)) from error
        name = object_name(content.sha256)
        generation = _generation(self._local, name)
        self._set_aside(self._local, name, generation, "its hash is another one")
        return False

    def _set_aside(self, tier: Store, name: str, generation: str, why: str) -> None:
        """Quarantine; where we may not write, remember it and go on."""
        with self._lock:
            if generation and self._bad.get((tier.url, name)) == generation:
                return  # who waits for a builder looks again and again
            self._say(f"{tier.url}/{name} is not used: {why}")
            self._bad[tier.url, name] = generation
        try:
            if generation:
                tier.set_aside(name, generation, why)
        except StoreError as error:
            self._say(f"{tier.url}: the bad entry could not be put aside: {error}")

    def _present(self) -> list[Store]:
        return [tier for tier in self._tiers if tier.url not in self._gone]

    def _failed(self, tier: Store, error: NodeError) -> None:
        """Tell it; whoever did not answer is not waited for again."""
        self._say(f"{tier.url} cannot be used: {error}")
        if tier.shared and isinstance(error, StoreError) and not isinstance(error, DeniedError):
            self._gone.add(tier.url)

    def _write(self, tier: Store, name: str, data: Content, *, renew: bool = False) -> None:
        """Create the object; one that is there stays, unless it is known to be bad."""
        if tier.create(name, data) is not None:
            return
        bad = self._bad.pop((tier.url, name), "")
        if bad:
            tier.replace(name, data, bad)
        elif renew and isinstance(data, bytes):
            there = tier.read(name)
            if there is not None and there.data != data:
                tier.replace(name, data, there.generation)

    def _turn(
        self, kind: str, inputs: Mapping[str, Any]
    ) -> tuple[Optional[lease.Lease], Optional[Entry]]:
        """Wait until it is our turn to build, or until somebody else has built it."""
        places = [tier for tier in self._present() if tier.writable]
        place = next((tier for tier in places if tier.shared), places[0] if places else None)
        if place is None:
            return None, None
        mine = lease.Lease(place, Manifest(kind, dict(inputs), {}).key, every=self._every)
        pause = min(0.1, self._every)
        end = time.monotonic() + self._longest_wait
        while True:
            try:
                if mine.acquire():
                    break
            except StoreError as error:
                self._say(f"{place.url}: no lease, others may build the same")
                self._failed(place, error)
                return None, None
            if time.monotonic() > end:
                self._say(f"{place.url}: somebody has been building for too long; we build too")
                return None, None
            time.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
            pause = min(pause * 1.5, _LONGEST_PAUSE, self._every)
            if (found := self.get(kind, inputs)) is not None:
                return None, found
        # Between our look and our turn, the builder before us may have published.
        found = self.get(kind, inputs)
        return mine, found


def _is_there(path: Path, content: manifest.Content) -> bool:
    """Whether the file has its length."""
    with contextlib.suppress(OSError):
        return path.stat().st_size == content.size
    return False


def _generation(tier: Store, name: str) -> str:
    """Generation of an object that could not be read as it should be; "" when it is not told."""
    with contextlib.suppress(StoreError):
        return next((info.generation for info in tier.list(name) if info.name == name), "")
    return ""
