"""A packed environment on a node, against solving and installing it, and against tar."""

from __future__ import annotations

import functools
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.record import Measurement, against, timed
from fixtures.channel import Channel, small
from harness.envs import build, solve
from installers import envfiles, envpack
from installers.cache.cache import Cache
from installers.cache.filestore import FileStore

_PACKAGES, _FILES, _SIZE = 20, 1050, 24 << 10
_RATE = 20e6
_ROUNDS = 3
_SPEC = {
    "schema": 1,
    "name": "bench",
    "packages": ["models", "ipykernel", "pip", *(f"data{n}" for n in range(_PACKAGES))],
    "imports": ["models", "tensors"],
}


def _content(random_: random.Random) -> bytes:
    """Bytes that compress about as libraries do, 2.5 to 1; some hold a prefix."""
    noise = random_.randbytes(_SIZE * 2 // 5)
    return (noise + bytes(_SIZE - len(noise)))[:_SIZE]


@contextmanager
def _channel(folder: Path) -> Iterator[Channel]:
    """20 packages, 21,000 files, 500 MB, at 20 MB/s."""
    random_ = random.Random(1)
    channel = small(folder)
    channel._rate = _RATE
    for number in range(_PACKAGES):
        names = (f"share/data{number}/{n % 40}/f{n}" for n in range(_FILES))
        files = {name: _content(random_) for name in names}
        channel.add(f"data{number}", "1.0", files, conda=True)
    channel.index()
    with channel:
        yield channel


def _check(prefix: Path, digests: dict[str, str], links: dict[str, str]) -> None:
    """What both sides do at their end: every file's hash, the imports, pip check."""
    if envpack.differing(prefix, digests, links):
        sys.exit("files differ")
    for words in (["-c", "import models, tensors"], ["-m", "pip", "check"]):
        subprocess.run([prefix / "bin/python", "-B", *words], check=True, capture_output=True)


@functools.cache
def _measure() -> dict[str, list[float]]:
    """Seconds of each way: ours, solve and install, tar."""
    found: dict[str, list[float]] = {"ours": [], "install": [], "tar": []}
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as name:
        folder = Path(name)
        with _channel(folder / "channel") as channel:
            spec = envfiles.spec_of({**_SPEC, "channels": [channel.url]}, "bench")
            lock = solve.lock(spec, tool="rattler")
            store = FileStore(folder / "store")
            entry, _ = build.build(lock, Cache([store], store), folder / "work")
            manifest = envpack.read_manifest(entry.read(envpack.MANIFEST).decode())
            place = folder / "env"

            def ours() -> None:
                held = Cache([store], store).get(envfiles.KIND, lock.inputs)
                if held is None:
                    sys.exit("the entry is gone")
                new = folder / "new"
                new.mkdir()
                digests = envpack.unpack(held.files, manifest, new, seen_as=str(place))
                envpack.replace_directory(new, place)
                _check(place, digests, dict(manifest.links))

            def install() -> None:
                solved = solve.lock(spec, tool="rattler")
                build.install(solved, place, folder / "packages")
                names = [p for p in place.rglob("*") if p.is_file() and not p.is_symlink()]
                known = {n: f.sha256 for n, f in manifest.files.items() if f.how is None}
                there = {str(path.relative_to(place)) for path in names}
                same = {n: d for n, d in known.items() if n in there and not n.endswith(".json")}
                pure = {n: d for n, d in same.items() if not n.endswith(".pyc")}
                _check(place, pure, {})

            tarball = folder / "env.tar.gz"
            for _ in range(_ROUNDS):
                for kind, way in (("install", install), ("ours", ours)):
                    shutil.rmtree(place, ignore_errors=True)
                    shutil.rmtree(folder / "packages", ignore_errors=True)
                    # What the other side wrote is not to be waited for by this one.
                    os.sync()
                    found[kind].append(timed(way))
                if not tarball.exists():
                    subprocess.run(["tar", "-czf", tarball, "-C", place, "."], check=True)
                shutil.rmtree(place)
                place.mkdir()
                words = ["tar", "-xzf", tarball, "-C", place]
                os.sync()
                found["tar"].append(timed(lambda words=words: subprocess.run(words, check=True)))  # type: ignore[misc]
    return found


_WHAT = f"{_PACKAGES * _FILES} files, {_PACKAGES * _FILES * _SIZE >> 20} MiB, verified"


def bench_env_restore() -> Measurement:
    """Restore from the local cache against solve and install, both verified."""
    found = _measure()
    words = [f"{_WHAT}; channel at 20 MB/s, no package cache"]
    return against("env_restore", found["ours"], found["install"], "py-rattler", "s", words)


def bench_env_restore_vs_tar() -> Measurement:
    """The same against unpacking a tar of the tree, which rewrites and verifies nothing."""
    found = _measure()
    return against("env_restore_vs_tar", found["ours"], found["tar"], "tar -xzf", "s", [_WHAT])
