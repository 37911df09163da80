"""The cache against one stream of a link that gives each connection 50 MB/s."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import sys
import tempfile
import urllib.request
from multiprocessing.connection import Connection
from pathlib import Path

from bench.record import Measurement, against, timed
from fixtures.storage import Storage
from installers.cache.cache import Cache
from installers.cache.filestore import FileStore
from installers.cache.gcs import GcsStore
from installers.cache.manifest import Content, Manifest, encode
from installers.cache.store import entry_name, object_name
from installers.cache.web import Web

_BUCKET = "bench"
_SIZE = 256 << 20
_RATE = 50e6
_FIRST_BYTE = 0.03
_ROUNDS = 5


def _serve(pipe: Connection) -> None:
    """The store, in a process of its own: the client's interpreter is not to pay for it."""
    data = os.urandom(_SIZE)
    sha256 = hashlib.sha256(data).hexdigest()
    made = Manifest("bench", {}, {"big": Content(sha256, len(data))})
    with Storage(_BUCKET, rate=_RATE, delay=_FIRST_BYTE) as storage:
        # The service hashes an object once; the first download is not to wait for it.
        assert storage.put(_BUCKET, object_name(sha256), data).hashes
        storage.put(_BUCKET, entry_name(made.key), encode(made))
        pipe.send((storage.url, sha256))
        pipe.recv()


def bench_parallel_download() -> Measurement:
    """A cached object of 256 MiB, verified: with the cache, and with one stream."""
    here, there = multiprocessing.Pipe()
    server = multiprocessing.Process(target=_serve, args=(there,), daemon=True)
    server.start()
    url, sha256 = here.recv()
    media = f"{url}/storage/v1/b/{_BUCKET}/o/{object_name(sha256).replace('/', '%2F')}?alt=media"

    def ours(folder: Path) -> None:
        local = FileStore(folder)
        store = GcsStore(f"gs://{_BUCKET}", Web(), url)
        entry = Cache([local, store], local, unsigned=True).get("bench", {})
        if entry is None:
            sys.exit("the entry was not found")

    def one_stream(folder: Path) -> None:
        digest = hashlib.sha256()
        with urllib.request.urlopen(media) as answer, (folder / "big").open("wb") as out:
            while block := answer.read(1 << 20):
                out.write(block)
                digest.update(block)
        if digest.hexdigest() != sha256:
            sys.exit("the content is another one")

    samples: dict[str, list[float]] = {"ours": [], "peer": []}
    for _ in range(_ROUNDS):
        for name, way in (("ours", ours), ("peer", one_stream)):
            # In memory: a disk would be measured instead of the link.
            with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
                samples[name].append(timed(lambda way=way, folder=folder: way(Path(folder))))  # type: ignore[misc]
    here.send("done")
    server.join()
    return against(
        "parallel_download",
        samples["ours"],
        samples["peer"],
        "one stream, 50 MB/s a connection",
        "s",
        [f"GET {_SIZE >> 20} MiB, 30 ms to the first byte, 8 parts of 8 MiB at a time"],
    )
