"""An environment in a few archives that can be unpacked at another prefix.

conda's packages hold the prefix that they were installed at: in texts, and in programs as strings
that end with NUL. Both are found when packing and rewritten when unpacking, so nothing of an
environment remembers where it was built. Its archives are unpacked by several processes at once,
beside its place, and one rename makes it appear.

An archive is a zip of blocks, each a large file or small ones one behind the other: to open a
member takes longer than to unpack most files, and one that was damaged can still be taken out
without reading the others. What was unpacked is read back and compared with the manifest, so nobody
has to hash an archive first.
"""

from __future__ import annotations

import errno
import hashlib
import io
import multiprocessing
import os
import re
import shutil
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Optional, TypeVar, Union

from installers.cache.store import Content, TamperedError
from installers.envmanifest import MANIFEST, File, Manifest
from installers.errors import NodeError

SHARDS = 4
_BLOCK = 1 << 20
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
Buffer = Union[bytes, memoryview]


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
    for shard, blocks in shards.items():
        with zipfile.ZipFile(into / shard, "w", zipfile.ZIP_DEFLATED) as archive:
            for number, names in enumerate(blocks):
                data = b"".join((prefix / name).read_bytes() for name in names)
                member = zipfile.ZipInfo(str(number), _NO_DATE)
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


def _share_out(files: Mapping[str, File]) -> dict[str, list[list[str]]]:
    """Archive → blocks of files, of about the same size each."""
    shards: list[list[str]] = [[] for _ in range(SHARDS)]
    sizes = [0] * SHARDS
    for name in sorted(files, key=lambda n: (-files[n].size, n)):
        least = sizes.index(min(sizes))
        shards[least].append(name)
        # A file costs something however small it is.
        sizes[least] += files[name].size + 4096
    return {
        f"part-{number}.zip": _blocks_of(sorted(names), files)
        for number, names in enumerate(shards)
        if names
    }


def _blocks_of(names: Sequence[str], files: Mapping[str, File]) -> list[list[str]]:
    """Files that follow one another, a block's worth at a time; a larger one is alone."""
    blocks: list[list[str]] = []
    room = 0
    for name in names:
        size = files[name].size
        if not blocks or size > room:
            blocks.append([])
            room = max(_BLOCK, size)
        blocks[-1].append(name)
        room -= size
    return blocks


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
    for shard, blocks in manifest.shards.items():
        rows = [
            (str(number), [(name, manifest.files[name]) for name in names])
            for number, names in enumerate(blocks)
            if wanted is None or not wanted.isdisjoint(names)
        ]
        if rows:
            jobs.append((archives[shard], shard, rows, str(target), prefixes, wanted))
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
    content, shard, rows, target, (old, new), wanted = job
    digests: dict[str, str] = {}
    made: set[str] = set()
    try:
        with zipfile.ZipFile(
            io.BytesIO(content) if isinstance(content, bytes) else content
        ) as zip_:
            for member, files in rows:
                for name, stated, parts in _unpacked(zip_, member, files):
                    if wanted is not None and name not in wanted:
                        continue
                    digests[name] = stated.sha256
                    if stated.how is not None:
                        data = b"".join(parts)
                        if hashlib.sha256(data).hexdigest() != stated.sha256:
                            raise TamperedError(f"{name} has other content", where=shard)
                        data = rewritten(data, stated.how, old, new)
                        digests[name] = hashlib.sha256(data).hexdigest()
                        parts = [data]
                    _write(f"{target}/{name}", parts, stated, made)
    except _DAMAGED as error:
        raise TamperedError(f"is damaged: {error}", where=shard) from error
    except OSError as error:
        if error.errno == errno.EINVAL:  # it points to before its beginning
            raise TamperedError("is damaged: its index is wrong", where=shard) from error
        raise
    except KeyError as error:
        raise TamperedError(f"lacks block {member}", where=shard) from error
    if wrong := _differing((target, digests)):
        raise TamperedError(f"{wrong[0]} has other content", where=shard)
    return digests


def _unpacked(
    archive: zipfile.ZipFile, member: str, files: Sequence[tuple[str, File]]
) -> Iterator[tuple[str, File, Iterable[Buffer]]]:
    """Each file of a block: name, what is stated of it, content in parts."""
    length = archive.getinfo(member).file_size
    if length != sum(stated.size for _, stated in files):
        raise zipfile.BadZipFile(f"block {member} has {length} bytes")
    if len(files) == 1:
        yield (*files[0], _parts(archive, member))
        return
    whole, start = memoryview(archive.read(member)), 0
    for name, stated in files:
        yield name, stated, [whole[start : start + stated.size]]
        start += stated.size


def _parts(archive: zipfile.ZipFile, member: str) -> Iterator[bytes]:
    """A member's content; zipfile compares its length and its CRC."""
    with archive.open(member) as source:
        while part := source.read(_BUFFER):
            yield part


def _shared(mode: int) -> int:
    """An environment is everybody's: some solvers write their records for their own user alone, and
    'conda list' of any other then ends in an error.
    """
    return 0o755 if mode & 0o100 else 0o644


def _write(path: str, parts: Iterable[Buffer], stated: File, made: set[str]) -> None:
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
        for part in parts:
            left = memoryview(part)
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
