"""What a store is: named objects with generations, and the ways in which it fails.

A store holds three kinds of names: ``entries/KEY.json`` (manifests), ``objects/SHA256`` (content)
and ``leases/KEY.json``. An object is content-addressed, so two writers of one name write the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Optional, Protocol, Union

from installers.errors import NodeError, UnreachableError

#: A manifest is JSON of a few kilobytes; a larger one is somebody's attempt to fill the memory.
MANIFEST_LIMIT = 4 << 20
ENTRIES, OBJECTS, LEASES, QUARANTINE = "entries", "objects", "leases", "quarantine"
_BLOCK = 1 << 20

Content = Union[bytes, Path]


class StoreError(UnreachableError):
    """A store did not answer, or not as its protocol says. Exit 3; the next tier is tried."""


class DeniedError(StoreError):
    """A store refuses what was asked: no permission. Asking again would not help."""


class TamperedError(NodeError):
    """What a store holds is not what was put there. ``what`` says how that shows."""


@dataclass(frozen=True)
class Blob:
    """A small object, whole, and the generation that was read."""

    data: bytes
    generation: str


@dataclass(frozen=True)
class Fetched:
    """A large object that was brought here: its generation, and the SHA-256 of what was written."""

    generation: str
    sha256: str


@dataclass(frozen=True)
class Info:
    """One object of a listing: ``size`` in bytes, ``updated`` in seconds since 1970."""

    name: str
    size: int
    generation: str
    updated: float


class Store(Protocol):
    """One tier. ``shared``: others write to it; ``writable``: it takes entries and leases.

    Every method raises StoreError when the store cannot be asked.
    """

    url: str
    shared: bool
    writable: bool

    def read(self, name: str) -> Optional[Blob]:
        """A small object, None when there is none. TamperedError above MANIFEST_LIMIT."""
        ...

    def fetch(self, name: str, target: Path, size: int) -> Optional[Fetched]:
        """Bring ``size`` bytes into ``target``, going on where an earlier call was cut off.

        None when there is no such object; TamperedError when it has another size. The caller
        compares the hash.
        """
        ...

    def create(self, name: str, data: Content) -> Optional[str]:
        """Write an object that is not there yet: its generation, None when there was one."""
        ...

    def replace(self, name: str, data: Content, generation: str) -> Optional[str]:
        """Write over exactly this generation: the new one, None when it is another by now."""
        ...

    def delete(self, name: str, generation: str) -> bool:
        """Remove exactly this generation. False when it is another one, or gone."""
        ...

    def set_aside(self, name: str, generation: str, why: str) -> None:
        """Keep a copy of a bad object under ``quarantine/``. A shared store's own stays there."""
        ...

    def list(self, prefix: str) -> Iterator[Info]:
        """Every object whose name begins with ``prefix``, in the order of names."""
        ...


def entry_name(key: str) -> str:
    """Name of the manifest of ``key``."""
    return f"{ENTRIES}/{key}.json"


def object_name(sha256: str) -> str:
    """Name of the content with this hash."""
    return f"{OBJECTS}/{sha256}"


def lease_name(key: str) -> str:
    """Name of the lease of whoever builds ``key``."""
    return f"{LEASES}/{key}.json"


def size_of(data: Content) -> int:
    """Bytes of a content."""
    return len(data) if isinstance(data, bytes) else data.stat().st_size


def digest_of(data: Content, name: str = "sha256") -> str:
    """Hash of a content, lower-case hex; a file is read in blocks."""
    digest = hashlib.new(name, usedforsecurity=name != "md5")
    if isinstance(data, bytes):
        digest.update(data)
    else:
        with data.open("rb") as stream:
            while block := stream.read(_BLOCK):
                digest.update(block)
    return digest.hexdigest()


def disk_error(error: OSError, where: object) -> NodeError:
    """An error of the local disk, in words."""
    return NodeError(
        error.strerror or str(error),
        where=str(where),
        remedy="free some space there, or name another directory in airlock-cache",
    )
