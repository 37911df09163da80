"""A packed environment on a node, against solving and installing it, and against tar."""

from __future__ import annotations

import atexit
import functools
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.record import Measurement, against, timed
from fixtures.channel import Channel, small
from harness.envs import build, solve
from installers import envbuild, envfiles, envmanifest, envpack
from installers.cache.cache import Cache
from installers.cache.filestore import FileStore
from installers.envfiles import Lock, Spec

_PACKAGES, _FILES = 20, 1050
_RATE = 20e6
_ROUNDS = 3
_SPEC = {
    "schema": 1,
    "name": "bench",
    "packages": ["models", "ipykernel", "pip", *(f"data{n}" for n in range(_PACKAGES))],
    "imports": ["models", "tensors"],
}


@dataclass(frozen=True)
class _Tree:
    """Files of ``size`` bytes, of which ``noise`` is left by a compressor. Both trees take half a
    gigabyte to fetch.
    """

    size: int
    noise: float

    @property
    def words(self) -> str:
        mib = _PACKAGES * _FILES * self.size >> 20
        return (
            f"{_PACKAGES * _FILES} files, {mib} MiB, {1 / self.noise:.2g} to 1 as packages, "
            "every file compared, imports, pip check"
        )


_DENSE = _Tree(25 << 10, 1.0)
# What wheels of PyTorch, CUDA, cuDNN, NCCL, Triton, NumPy, SciPy and pandas have together: 17,775
# files, 5.66 GB, 3.09 GB as packages (read from their directories, November 2026).
_LIBRARIES = _Tree(44 << 10, 0.55)


@functools.cache
def _folder() -> Path:
    """Removed when all is measured.

    ext4 keeps numbers of files that were deleted in the last minutes from being used again, and
    looks past all of them for each new file (fs/ext4/ialloc.c, recently_deleted): a tree that was
    made just after such a one was removed took this project's bench ten times as long.
    """
    folder = Path(tempfile.mkdtemp(dir=os.environ.get("TMPDIR", "/var/tmp"), prefix="bench-env-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for _ in range(40):
        place = Path(tempfile.mkdtemp(dir=folder))
        if timed(lambda place=place: [(place / str(n)).touch() for n in range(500)]) < 0.05:  # type: ignore[misc]
            break
        print("waiting for a disk on which nothing was deleted a moment ago", file=sys.stderr)
        time.sleep(10)
    return folder


def _channel(folder: Path, tree: _Tree) -> Channel:
    random_ = random.Random(1)
    noise = int(tree.size * tree.noise)

    def content() -> bytes:
        return random_.randbytes(noise) + bytes(tree.size - noise)

    channel = small(folder)
    for number in range(_PACKAGES):
        names = (f"share/data{number}/{n % 40}/f{n}" for n in range(_FILES))
        channel.add(f"data{number}", "1.0", {name: content() for name in names}, conda=True)
    channel.index()
    return channel


def _tried(prefix: Path) -> None:
    """What both sides do at their end, when every file has been compared."""
    for words in (["-c", "import models, tensors"], ["-m", "pip", "check"]):
        subprocess.run([prefix / "bin/python", "-B", *words], check=True, capture_output=True)


def _ours(store: FileStore, lock: Lock, place: Path) -> None:
    held = Cache([store], store).get(envfiles.KIND, lock.inputs, unread=True)
    if held is None:
        sys.exit("the entry is gone")
    manifest = envmanifest.read_manifest(held.read(envmanifest.MANIFEST).decode())
    new = place.with_name(f"{place.name}.new")
    new.mkdir()
    envpack.unpack(held.files, manifest, new, seen_as=str(place))
    envpack.replace_directory(new, place)
    _tried(place)


def _install(spec: Spec, place: Path, digests: Mapping[str, str]) -> None:
    """Nothing is taken from an earlier round: its package cache lies beside it and is new."""
    lock = solve.lock(spec, tool="rattler")
    build.install(lock, place, place.with_name(f"{place.name}.packages"))
    if envpack.differing(place, digests, {}):
        sys.exit("files differ")
    _tried(place)


@functools.cache
def _measure(tree: _Tree) -> dict[str, list[float]]:
    """Seconds of each way: ours, solve and install, tar."""
    found: dict[str, list[float]] = {"ours": [], "install": [], "tar": []}
    folder = Path(tempfile.mkdtemp(dir=_folder()))
    channel = _channel(folder / "channel", tree)
    with channel:
        spec = envfiles.spec_of({**_SPEC, "channels": [channel.url]}, "bench")
        lock = solve.lock(spec, tool="rattler")
        # As harness.envs.build does, without its deleting afterwards.
        prefix = Path(envbuild.long_prefix(str(folder)))
        build.install(lock, prefix, folder / "packages")
        manifest = envpack.pack(prefix, folder / "out")
        files = {name: folder / "out" / name for name in [*manifest.shards, envmanifest.MANIFEST]}
        store = FileStore(folder / "store")
        Cache([store], store).put(envfiles.KIND, lock.inputs, files, {})
        # Files that tell where they are have other content at each place.
        plain = {name: file.sha256 for name, file in manifest.files.items() if file.how is None}
        digests = {n: d for n, d in plain.items() if not n.endswith((".pyc", ".json"))}
        tarball = folder / "env.tar.gz"
        subprocess.run(["tar", "-czf", tarball, "-C", prefix, "."], check=True)
        channel.limit(_RATE)
        for number in range(_ROUNDS):
            place = folder / f"tar{number}"
            place.mkdir()
            tar = ["tar", "-xzf", str(tarball), "-C", str(place)]
            for kind, way in (
                ("install", lambda n=number: _install(spec, folder / f"peer{n}", digests)),
                ("ours", lambda n=number: _ours(store, lock, folder / f"ours{n}")),
                ("tar", lambda words=tar: subprocess.run(words, check=True)),
            ):
                # What the other side wrote is not to be waited for by this one.
                os.sync()
                found[kind].append(timed(way))
    return found


def _against_install(name: str, tree: _Tree) -> Measurement:
    found = _measure(tree)
    words = [f"{tree.words}; channel at {_RATE / 1e6:.0f} MB/s, no package cache"]
    return against(name, found["ours"], found["install"], "py-rattler", "s", words)


def bench_env_restore() -> Measurement:
    """Restore from the node's cache against solve and install, both verified."""
    return _against_install("env_restore", _DENSE)


def bench_env_restore_libraries() -> Measurement:
    """The same for files that compress as those of PyTorch and CUDA do."""
    return _against_install("env_restore_libraries", _LIBRARIES)


def bench_env_restore_vs_tar() -> Measurement:
    """The same against unpacking a tar of the tree, which rewrites and verifies nothing."""
    found = _measure(_LIBRARIES)
    words = [_LIBRARIES.words]
    return against("env_restore_vs_tar", found["ours"], found["tar"], "tar -xzf", "s", words)
