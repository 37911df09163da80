"""A capsule as a file: a tar of plain files, packed by gzip, with a manifest of their digests.

The same contents give the same bytes. The manifest finds damage and careless edits; it is no
signature: whoever changes a file can change its digest too.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import os
import stat
import tarfile
import tempfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import UsageError
from installers.cache import extract
from installers.cache.store import TamperedError

FORMAT = 1
KIND = "airlock capsule"
MANIFEST = "manifest.json"
SUFFIX = ".tar.gz"
#: Bytes of a capsule, packed and unpacked, and its files: a real one has under 10 MB, and a dozen.
LARGEST_PACKED = 64 << 20
LARGEST = 256 << 20
MOST_FILES = 64
_MAGIC = b"\x1f\x8b"
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Capsule:
    """What a capsule holds: ``members`` (name -> bytes), and its manifest."""

    path: Path
    manifest: Mapping[str, Any]
    members: Mapping[str, bytes]

    @property
    def digest(self) -> str:
        """SHA-256 of the manifest, which holds the digests of all else."""
        return hashlib.sha256(_json(self.manifest)).hexdigest()

    def json(self, name: str) -> Any:
        """A member that is JSON; None where there is none. UsageError where it is no JSON."""
        if name not in self.members:
            return None
        try:
            return json.loads(self.members[name])
        except ValueError as error:
            raise UsageError(f"{self.path}: {name} is not JSON: {error}") from error

    def table(self, name: str) -> dict[str, Any]:
        """A member that is a JSON object, ``{}`` where there is none. UsageError for another."""
        value = self.json(name)
        if value is not None and not isinstance(value, dict):
            raise UsageError(f"{self.path}: {name} is no JSON object")
        return value or {}


def manifest(members: Mapping[str, bytes], notes: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest of these files. ``notes``: what else is to be said; JSON-able."""
    return {
        "kind": KIND,
        "format": FORMAT,
        **notes,
        "members": {
            name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
            for name, data in sorted(members.items())
        },
    }


def pack(members: Mapping[str, bytes], notes: Mapping[str, Any]) -> bytes:
    """The capsule's bytes. The manifest comes first, so that it can be read without the rest."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in [(MANIFEST, _json(manifest(members, notes))), *sorted(members.items())]:
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(data), 0o600
            tar.addfile(member, io.BytesIO(data))
    return gzip.compress(out.getvalue(), mtime=0)


def write(data: bytes, target: Path) -> None:
    """Write a capsule as a new file, readable by its owner only: whole, or not at all.

    UsageError if something is there already, or the place cannot be written to.
    """
    try:
        handle, partial = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.link(partial, target)  # replaces nothing, unlike a rename
        finally:
            Path(partial).unlink()
    except FileExistsError as error:
        raise UsageError(f"{target} is there already", hint="name another with -o") from error
    except OSError as error:
        hint = "name a place with -o that can be written to"
        raise UsageError(f"{target} was not written: {error.strerror}", hint=hint) from error


def read(path: Path) -> Capsule:
    """A capsule, every byte of it as its manifest says. UsageError for anything else.

    Nothing is unpacked but into a private directory that is gone afterwards.
    """
    try:
        with tempfile.TemporaryDirectory(prefix="airlock-capsule-") as folder:
            plain = Path(folder, "capsule.tar")
            _unzip(path, plain)
            place = Path(folder, "in")
            extract.unpack(plain, place, max_bytes=LARGEST, max_members=MOST_FILES)
            said, members = _members(path, place)
    except TamperedError as error:
        # Python's tarfile tells of each way it tried on a line of its own.
        first = (error.what.splitlines() or [""])[0]
        raise UsageError(f"{path}: {first}", hint=_HINT) from error
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}") from error
    _verify(path, said, members)
    return Capsule(path, said, members)


_HINT = "airlock capture makes a capsule; ask for it again, it may have been damaged on its way"


def _unzip(path: Path, into: Path) -> None:
    """Unpack within the limits: what a tar's headers claim is believed only after that."""
    with path.open("rb") as file, into.open("wb") as out:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise UsageError(f"{path} is no file", hint=_HINT)
        if os.fstat(file.fileno()).st_size > LARGEST_PACKED:
            raise UsageError(f"{path} is larger than a capsule may be ({LARGEST_PACKED >> 20} MiB)")
        if file.read(len(_MAGIC)) != _MAGIC:
            raise UsageError(f"{path} is no capsule: it is not packed by gzip", hint=_HINT)
        file.seek(0)
        try:
            with gzip.open(file) as packed:
                size = 0
                while chunk := packed.read(_CHUNK):
                    size += len(chunk)
                    if size > LARGEST:
                        raise UsageError(f"{path} unpacks to more than {LARGEST >> 20} MiB")
                    out.write(chunk)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise UsageError(f"{path} is cut off or damaged: {error}", hint=_HINT) from error


def _members(path: Path, place: Path) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The manifest and the other files. UsageError for what no capsule has."""
    found: dict[str, bytes] = {}
    for entry in sorted(place.rglob("*")):
        name = str(entry.relative_to(place))
        if not stat.S_ISREG(entry.lstat().st_mode) or entry.lstat().st_nlink != 1:
            raise UsageError(f"{path}: {name!r} is no plain file", hint=_HINT)
        found[name] = entry.read_bytes()
    said: Any = None
    with contextlib.suppress(ValueError, RecursionError):
        said = json.loads(found.pop(MANIFEST, b""))
    if not isinstance(said, dict) or said.get("kind") != KIND:
        raise UsageError(f"{path} is no capsule: it has no manifest of one", hint=_HINT)
    return said, found


def _verify(path: Path, said: Mapping[str, Any], members: Mapping[str, bytes]) -> None:
    number = said.get("format")
    if not isinstance(number, int) or isinstance(number, bool) or number < 1:
        raise UsageError(f"{path}: its manifest names no format", hint=_HINT)
    if number > FORMAT:
        raise UsageError(
            f"{path} has format {number}; this airlock knows {FORMAT}", hint="use a newer airlock"
        )
    wanted = said.get("members")
    if not isinstance(wanted, dict):
        raise UsageError(f"{path}: its manifest names no files", hint=_HINT)
    for name in sorted({*wanted, *members}):
        entry = wanted.get(name)
        if name not in members:
            raise UsageError(f"{path}: {name!r} is missing", hint=_HINT)
        if not isinstance(entry, dict):
            raise UsageError(f"{path}: {name!r} is not in its manifest", hint=_HINT)
        if entry.get("sha256") != hashlib.sha256(members[name]).hexdigest():
            raise UsageError(f"{path}: {name!r} is not as it was captured", hint=_HINT)


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=1, sort_keys=True) + "\n").encode("ascii")
