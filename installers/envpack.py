"""An environment in a few archives that can be unpacked at another prefix.

conda's packages hold the prefix that they were installed at: in texts, and in programs as strings
that end with NUL. Both are found when packing and rewritten when unpacking, so nothing of an
environment remembers where it was built. Its archives are unpacked by several processes at once,
beside its place, and one rename makes it appear.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import multiprocessing
import os
import re
import shutil
import tarfile
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from installers.cache.store import Content, TamperedError
from installers.errors import NodeError

MANIFEST = "manifest.json"
SHARDS = 4
#: A build's prefix has this length. Programs have no more room; and a script's first line may have
#: 127 bytes on old kernels.
PREFIX_LENGTH = 100
TEXT, BINARY = "text", "binary"
# A test for programs of the kind that conda itself uses.
_LOOKED_AT = 8192
_BUFFER = 1 << 20


@dataclass(frozen=True)
class File:
    """A file of an environment. ``how`` its prefix is rewritten: text, binary or None."""

    sha256: str
    size: int
    mode: int
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
        files = {name: [f.sha256, f.size, f.mode, f.how] for name, f in self.files.items()}
        links, shards = dict(self.links), dict(self.shards)
        document = {"schema": 1, "prefix": self.prefix, "files": files}
        return json.dumps({**document, "links": links, "shards": shards}, sort_keys=True)


def read_manifest(text: str) -> Manifest:
    """The JSON of a manifest. TamperedError when it names anything outside of the environment."""
    try:
        document = json.loads(text)
        files = {name: File(*row) for name, row in document["files"].items()}
        made = Manifest(document["prefix"], files, document["links"], document["shards"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise TamperedError(f"is no manifest: {error}", where=MANIFEST) from None
    for name in [*made.files, *made.links, *made.shards]:
        parts = name.split("/")
        if name.startswith("/") or ".." in parts or "" in parts or "\0" in name:
            raise TamperedError(f"names {name!r}", where=MANIFEST)
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
            files[name] = File(digest, len(data), path.stat().st_mode & 0o755, how)
    for name in [n for n, file in files.items() if file.how == TEXT and n.endswith(".py")]:
        folder, _, stem = name.rpartition("/")
        compiled = f"{folder}/__pycache__/{stem[:-3]}.".lstrip("/")
        for stale in [n for n in files if n.startswith(compiled) and n.endswith(".pyc")]:
            del files[stale]
    shards = _share_out(files)
    for shard, names in shards.items():
        # dereference: hard links would depend on what else is in the same archive.
        with tarfile.open(into / shard, "w:gz", compresslevel=1, dereference=True) as tar:
            for name in names:
                tar.add(prefix / name, name, recursive=False, filter=_plain)
    made = Manifest(str(prefix), files, links, shards)
    (into / MANIFEST).write_text(made.text())
    return made


def _plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Without who built it. Times stay: compiled Python is bound to those of its sources."""
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mtime = int(member.mtime)
    return member


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
    return {f"part-{number}.tar.gz": sorted(names) for number, names in enumerate(shards) if names}


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

    ``only``: just these files, written over what is there. Raises NodeError when ``seen_as`` is too
    long for the programs inside, TamperedError when an archive is not what its manifest says.
    """
    if len(seen_as) > len(manifest.prefix):
        raise NodeError(
            f"{seen_as} is longer than {len(manifest.prefix)} characters",
            where="airlock-environments-root",
            remedy="choose a shorter directory: programs have no room for a longer one",
        )
    wanted = None if only is None else frozenset(only)
    jobs = [
        (archives[shard], shard, names, manifest, str(target), seen_as, wanted)
        for shard, names in manifest.shards.items()
        if wanted is None or wanted & set(names)
    ]
    workers = min(len(jobs), len(os.sched_getaffinity(0)))
    if workers > 1:
        with multiprocessing.get_context("fork").Pool(workers) as pool:
            parts = pool.map(_unpack_shard, jobs, 1)
    else:
        parts = [_unpack_shard(job) for job in jobs]
    # Links last: no file is ever written through one.
    for name, to in manifest.links.items():
        path = target / name
        if wanted is not None and name not in wanted:
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.symlink_to(to)
    return {name: digest for part in parts for name, digest in part.items()}


def _unpack_shard(job: Any) -> dict[str, str]:
    content, shard, names, manifest, target, seen_as, wanted = job
    old, new = manifest.prefix.encode(), seen_as.encode()
    found: dict[str, str] = {}
    made: set[str] = set()
    try:
        # tarfile seeks before each header, which costs less in a buffer of its own.
        with gzip.open(content) as packed:
            stream = io.BufferedReader(packed, _BUFFER)
            with tarfile.open(fileobj=stream, mode="r:") as tar:
                for member in tar:
                    if wanted is not None and member.name not in wanted:
                        continue
                    data, mode, digest = _content(tar, member, manifest, old, new)
                    _write(f"{target}/{member.name}", data, mode, member.mtime, made)
                    found[member.name] = digest
    except (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError, KeyError) as error:
        raise TamperedError(f"is damaged: {error}", where=shard) from error
    missing = set(names if wanted is None else wanted & set(names)) - set(found)
    if missing:
        raise TamperedError(f"lacks {min(missing)}", where=shard)
    return found


def _content(
    tar: tarfile.TarFile, member: tarfile.TarInfo, manifest: Manifest, old: bytes, new: bytes
) -> tuple[bytes, int, str]:
    """What is to be written of one member, its mode, and the SHA-256 of that."""
    stated = manifest.files[member.name]
    stream = tar.extractfile(member) if member.isfile() else None
    if stream is None:
        raise TamperedError(f"{member.name} is no file", where="environment")
    data = stream.read()
    if stated.how is None:
        return data, _shared(stated.mode), stated.sha256
    data = rewritten(data, stated.how, old, new)
    return data, _shared(stated.mode), hashlib.sha256(data).hexdigest()


def _shared(mode: int) -> int:
    """An environment is everybody's: some solvers write their records for their own user alone, and
    'conda list' of any other then ends in an error.
    """
    return 0o755 if mode & 0o100 else 0o644


def _write(path: str, data: bytes, mode: int, mtime: float, made: set[str]) -> None:
    """Write one file, over what is there; ``made``: directories that are there, of this archive.

    Strings and no Paths, descriptors and no streams: an environment has tens of thousands.
    """
    folder = path.rpartition("/")[0]
    if folder not in made:
        os.makedirs(folder, exist_ok=True)  # noqa: PTH103
        made.add(folder)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    try:
        descriptor = os.open(path, flags, mode)
    except FileExistsError:
        os.unlink(path)  # noqa: PTH108
        descriptor = os.open(path, flags, mode)
    try:
        left = memoryview(data)
        while left:
            left = left[os.write(descriptor, left) :]
        os.fchmod(descriptor, mode)
        os.utime(descriptor, (mtime, mtime))
    finally:
        os.close(descriptor)


def differing(target: Path, digests: Mapping[str, str], links: Mapping[str, str]) -> list[str]:
    """Names of files and links that are missing or have other content, sorted."""
    names = list(digests)
    cores = len(os.sched_getaffinity(0))
    chunks = [names[start::cores] for start in range(cores)] if len(names) > 512 else [names]
    jobs = [(target, {name: digests[name] for name in chunk}) for chunk in chunks if chunk]
    if len(jobs) > 1:
        with multiprocessing.get_context("fork").Pool(len(jobs)) as pool:
            parts = pool.map(_differing, jobs, 1)
    else:
        parts = [_differing(job) for job in jobs]
    found = [name for part in parts for name in part]
    for name, to in links.items():
        path = target / name
        if not path.is_symlink() or str(path.readlink()) != to:
            found.append(name)
    return sorted(found)


def _differing(job: tuple[Path, Mapping[str, str]]) -> list[str]:
    target, digests = job
    found = []
    for name, digest in digests.items():
        try:
            data = b"" if (target / name).is_symlink() else (target / name).read_bytes()
        except OSError:
            data = b""
            digest = ""
        if hashlib.sha256(data).hexdigest() != digest:
            found.append(name)
    return found


def replace_directory(new: Path, place: Path) -> None:
    """Make ``new`` the directory ``place``; what was there goes away, last."""
    old = place.with_name(f".{place.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if place.exists():
        place.rename(old)
    new.rename(place)
    shutil.rmtree(old, ignore_errors=True)
