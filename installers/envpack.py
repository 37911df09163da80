"""An environment in a few archives that can be unpacked at another prefix.

conda's packages hold the prefix that they were installed at: in texts, and in programs as strings
that end with NUL. Both are found when packing and rewritten when unpacking, so nothing of an
environment remembers where it was built. Its archives are unpacked by several processes at once,
beside its place, and one rename makes it appear.

An archive is a zip: one file of an environment can be taken out without reading the others. What
was unpacked is read back and compared with the manifest, so nobody has to hash an archive first.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import multiprocessing
import os
import re
import shutil
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional, TypeVar

from installers.cache.store import Content, TamperedError
from installers.errors import NodeError

MANIFEST = "manifest.json"
#: Of archives and manifest; part of the cache's key.
FORMAT = 2
SHARDS = 4
#: A build's prefix has this length. Programs have no more room; and a script's first line may have
#: 127 bytes on old kernels.
PREFIX_LENGTH = 100
TEXT, BINARY = "text", "binary"
# A test for programs of the kind that conda itself uses.
_LOOKED_AT = 8192
_BUFFER = 1 << 20
# The same in each archive, for the same bytes from the same tree; times are in the manifest, since
# a zip's have steps of two seconds.
_NO_DATE = (1980, 1, 1, 0, 0, 0)
_UNIX = 3
#: What zipfile raises for archives that are not whole; RuntimeError: it says that it is encrypted.
_DAMAGED = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    NotImplementedError,
    RuntimeError,
    ValueError,
)


_Job = TypeVar("_Job")
_Made = TypeVar("_Made")


@dataclass(frozen=True)
class File:
    """A file as it was packed; ``mtime``: whole seconds since the epoch.

    ``how`` its prefix is rewritten: text, binary or None.
    """

    sha256: str
    size: int
    mode: int
    mtime: int
    how: Optional[str] = None


@dataclass(frozen=True)
class Manifest:
    """Everything in an environment; names are relative. ``shards``: archive → its files."""

    prefix: str
    files: Mapping[str, File]
    links: Mapping[str, str]
    shards: Mapping[str, list[str]]

    def text(self) -> str:
        """As JSON."""
        files = {name: [f.sha256, f.size, f.mode, f.mtime, f.how] for name, f in self.files.items()}
        links, shards = dict(self.links), dict(self.shards)
        document = {"schema": FORMAT, "prefix": self.prefix, "files": files}
        return json.dumps({**document, "links": links, "shards": shards}, sort_keys=True)


def read_manifest(text: str) -> Manifest:
    """The JSON of a manifest. TamperedError when it names anything outside of the environment."""
    try:
        document = json.loads(text)
        if document["schema"] != FORMAT:
            raise ValueError(f"of schema {document['schema']!r}")
        files = {name: File(*row) for name, row in document["files"].items()}
        made = Manifest(document["prefix"], files, document["links"], document["shards"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise TamperedError(f"is no manifest: {error}", where=MANIFEST) from None
    for name in [*made.files, *made.links, *made.shards]:
        parts = name.split("/")
        if name.startswith("/") or ".." in parts or "" in parts or "\0" in name:
            raise TamperedError(f"names {name!r}", where=MANIFEST)
    packed = [name for names in made.shards.values() for name in names]
    if sorted(packed) != sorted(made.files):
        raise TamperedError("does not say of each file which archive has it", where=MANIFEST)
    for name, target in made.links.items():
        inside = os.path.normpath(os.path.join(os.path.dirname(name), target))  # noqa: PTH118, PTH120
        if target.startswith("/") or inside.startswith(".."):
            raise TamperedError(f"links {name} to {target}", where=MANIFEST)
    return made


def pack(prefix: Path, into: Path) -> Manifest:
    """Write archives and manifest of the environment at ``prefix`` to the directory ``into``.

    Compiled Python of sources that will be rewritten is left out. Raises NodeError for a link that
    leads out of the environment.
    """
    into.mkdir(parents=True, exist_ok=True)
    old = str(prefix).encode()
    files: dict[str, File] = {}
    links: dict[str, str] = {}
    for path in sorted(prefix.rglob("*")):
        name = path.relative_to(prefix).as_posix()
        if path.is_symlink():
            links[name] = _relative(prefix, path)
        elif path.is_file():
            data = path.read_bytes()
            how = None
            if old in data and not name.endswith(".pyc"):
                how = BINARY if b"\0" in data[:_LOOKED_AT] or _is_program(data) else TEXT
            digest = hashlib.sha256(data).hexdigest()
            state = path.stat()
            files[name] = File(digest, len(data), state.st_mode & 0o755, int(state.st_mtime), how)
    for name in [n for n, file in files.items() if file.how == TEXT and n.endswith(".py")]:
        folder, _, stem = name.rpartition("/")
        compiled = f"{folder}/__pycache__/{stem[:-3]}.".lstrip("/")
        for stale in [n for n in files if n.startswith(compiled) and n.endswith(".pyc")]:
            del files[stale]
    shards = _share_out(files)
    for shard, names in shards.items():
        with zipfile.ZipFile(into / shard, "w", zipfile.ZIP_DEFLATED) as archive:
            for name in names:
                member = zipfile.ZipInfo(name, _NO_DATE)
                member.create_system = _UNIX
                member.external_attr = files[name].mode << 16
                data = (prefix / name).read_bytes()
                archive.writestr(member, data, zipfile.ZIP_DEFLATED, compresslevel=1)
    made = Manifest(str(prefix), files, links, shards)
    (into / MANIFEST).write_text(made.text())
    return made


def _is_program(data: bytes) -> bool:
    return data[:4] == b"\x7fELF"


def _relative(prefix: Path, path: Path) -> str:
    target = str(path.readlink())
    if target.startswith("/"):
        target = os.path.relpath(target, path.parent)
    inside = os.path.normpath(path.parent.relative_to(prefix) / target)
    if inside.startswith(".."):
        raise NodeError(f"links to {target}, outside of the environment", where=str(path))
    return target


def _share_out(files: Mapping[str, File]) -> dict[str, list[str]]:
    """Archive → files, of about the same size each."""
    shards: list[list[str]] = [[] for _ in range(SHARDS)]
    sizes = [0] * SHARDS
    for name in sorted(files, key=lambda n: (-files[n].size, n)):
        least = sizes.index(min(sizes))
        shards[least].append(name)
        # A file costs something however small it is.
        sizes[least] += files[name].size + 4096
    return {f"part-{number}.zip": sorted(names) for number, names in enumerate(shards) if names}


def rewritten(data: bytes, how: Optional[str], old: bytes, new: bytes) -> bytes:
    """The bytes at another prefix. In programs strings keep their room: it is filled with NUL."""
    if how is None or old == new:
        return data
    if how == TEXT:
        return data.replace(old, new)

    def inside(match: re.Match[bytes]) -> bytes:
        text = match.group().replace(old, new)
        return text.ljust(len(match.group()), b"\0")

    return re.sub(re.escape(old) + rb"[^\0]*", inside, data)


def unpack(
    archives: Mapping[str, Content],
    manifest: Manifest,
    target: Path,
    *,
    seen_as: str,
    only: Optional[Iterable[str]] = None,
) -> dict[str, str]:
    """Fill ``target`` with the environment that will be at ``seen_as``; name → SHA-256 of each.

    ``only``: just these files, written over what is there. What was written is read back. Raises
    NodeError when ``seen_as`` is too long for the programs inside, TamperedError when an archive is
    not what its manifest says.
    """
    if len(seen_as) > len(manifest.prefix):
        raise NodeError(
            f"{seen_as} is longer than {len(manifest.prefix)} characters",
            where="airlock-environments-root",
            remedy="choose a shorter directory: programs have no room for a longer one",
        )
    wanted = None if only is None else frozenset(only)
    prefixes = (manifest.prefix.encode(), seen_as.encode())
    jobs = []
    for shard, names in manifest.shards.items():
        files = [(n, manifest.files[n]) for n in names if wanted is None or n in wanted]
        if files:
            jobs.append((archives[shard], shard, files, str(target), prefixes))
    parts = _side_by_side(_unpack_shard, jobs)
    # Links last: no file is ever written through one.
    for name, to in manifest.links.items():
        path = target / name
        if wanted is not None and name not in wanted:
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.symlink_to(to)
    return {name: digest for part in parts for name, digest in part.items()}


def _side_by_side(work: Callable[[_Job], _Made], jobs: Sequence[_Job]) -> list[_Made]:
    """The results of ``jobs``, by as many processes as there are cores."""
    workers = min(len(jobs), len(os.sched_getaffinity(0)))
    if workers < 2:
        return [work(job) for job in jobs]
    with multiprocessing.get_context("fork").Pool(workers) as pool:
        return pool.map(work, jobs, 1)


def _unpack_shard(job: Any) -> dict[str, str]:
    content, shard, files, target, (old, new) = job
    digests: dict[str, str] = {}
    made: set[str] = set()
    try:
        with zipfile.ZipFile(
            io.BytesIO(content) if isinstance(content, bytes) else content
        ) as zip_:
            for name, stated in files:
                blocks = _blocks(zip_, name)
                digests[name] = stated.sha256
                if stated.how is not None:
                    data = b"".join(blocks)
                    if hashlib.sha256(data).hexdigest() != stated.sha256:
                        raise TamperedError(f"{name} has other content", where=shard)
                    data = rewritten(data, stated.how, old, new)
                    digests[name] = hashlib.sha256(data).hexdigest()
                    blocks = iter([data])
                _write(f"{target}/{name}", blocks, stated, made)
    except _DAMAGED as error:
        raise TamperedError(f"is damaged: {error}", where=shard) from error
    except OSError as error:
        if error.errno == errno.EINVAL:  # it points to before its beginning
            raise TamperedError("is damaged: its index is wrong", where=shard) from error
        raise
    except KeyError as error:
        raise TamperedError(f"lacks {name}", where=shard) from error
    if wrong := _differing((target, digests)):
        raise TamperedError(f"{wrong[0]} has other content", where=shard)
    return digests


def _blocks(archive: zipfile.ZipFile, name: str) -> Iterator[bytes]:
    """A member's content; zipfile compares its length and its CRC."""
    with archive.open(name) as source:
        while block := source.read(_BUFFER):
            yield block


def _shared(mode: int) -> int:
    """An environment is everybody's: some solvers write their records for their own user alone, and
    'conda list' of any other then ends in an error.
    """
    return 0o755 if mode & 0o100 else 0o644


def _write(path: str, blocks: Iterable[bytes], stated: File, made: set[str]) -> None:
    """Write one file, over what is there; ``made``: directories that are there, of this archive.

    Strings and no Paths, descriptors and no streams: an environment has tens of thousands.
    """
    folder = path.rpartition("/")[0]
    if folder not in made:
        os.makedirs(folder, exist_ok=True)  # noqa: PTH103
        made.add(folder)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    mode = _shared(stated.mode)
    try:
        descriptor = os.open(path, flags, mode)
    except FileExistsError:
        os.unlink(path)  # noqa: PTH108
        descriptor = os.open(path, flags, mode)
    try:
        for block in blocks:
            left = memoryview(block)
            while left:
                left = left[os.write(descriptor, left) :]
        os.fchmod(descriptor, mode)
        # Compiled Python is bound to the times of its sources.
        os.utime(descriptor, (stated.mtime, stated.mtime))
    finally:
        os.close(descriptor)


def differing(target: Path, digests: Mapping[str, str], links: Mapping[str, str]) -> list[str]:
    """Names of files and links that are missing or have other content, sorted."""
    names = list(digests)
    cores = len(os.sched_getaffinity(0))
    chunks = [names[start::cores] for start in range(cores)] if len(names) > 512 else [names]
    jobs = [(str(target), {name: digests[name] for name in chunk}) for chunk in chunks if chunk]
    found = [name for part in _side_by_side(_differing, jobs) for name in part]
    for name, to in links.items():
        path = target / name
        if not path.is_symlink() or str(path.readlink()) != to:
            found.append(name)
    return sorted(found)


def _differing(job: tuple[str, Mapping[str, str]]) -> list[str]:
    target, digests = job
    buffer = memoryview(bytearray(_BUFFER))
    return [
        name for name, digest in digests.items() if _digest(f"{target}/{name}", buffer) != digest
    ]


def _digest(path: str, buffer: memoryview) -> Optional[str]:
    """SHA-256 of a regular file; None for whatever else is there, or nothing."""
    # A named pipe would not let go of us.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
    digest = hashlib.sha256()
    try:
        descriptor = os.open(path, flags)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                return None
            while size := os.readv(descriptor, [buffer]):
                digest.update(buffer[:size])
        finally:
            os.close(descriptor)
    except OSError:
        return None
    return digest.hexdigest()


def replace_directory(new: Path, place: Path) -> None:
    """Make ``new`` the directory ``place``; what was there goes away, last."""
    old = place.with_name(f".{place.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if place.exists():
        place.rename(old)
    new.rename(place)
    shutil.rmtree(old, ignore_errors=True)
