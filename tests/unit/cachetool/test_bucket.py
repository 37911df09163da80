"""Google's own library against our object store: the fake is faithful, and both sides agree."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fixtures.pki import make_signer
from fixtures.storage import Storage
from harness.cli import main
from installers.cache.cache import Cache
from installers.cache.filestore import FileStore
from installers.cache.gcs import GcsStore
from installers.cache.manifest import Trust
from installers.cache.store import DeniedError, Fetched, Store, StoreError, TamperedError
from installers.cache.web import Web

google_storage = pytest.importorskip("google.cloud.storage")
BUCKET, URL = "lab-bucket", "gs://lab-bucket/airlock-cache"
NAME = "entries/" + "a" * 64 + ".json"


@pytest.fixture
def storage(monkeypatch: pytest.MonkeyPatch) -> Iterator[Storage]:
    with Storage(BUCKET, page=3) as running:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", running.url)
        yield running


@pytest.fixture
def ours(storage: Storage) -> Store:
    return GcsStore(URL, Web(patience=2.0), storage.url)


@pytest.fixture
def theirs(storage: Storage) -> Store:
    from harness.cachetool.bucket import BucketStore

    assert storage.url
    return BucketStore(URL, patience=3.0)


def test_both_sides_see_the_same(ours: Store, theirs: Store, tmp_path: Path) -> None:
    data = os.urandom(9 << 20)  # above 8 MiB: a resumable upload, a download in parts
    (tmp_path / "big").write_bytes(data)
    first = theirs.create(NAME, b"one")
    second = theirs.create("objects/big", tmp_path / "big")
    third = ours.create("objects/other", data)
    assert None not in (first, second, third)
    for store in (ours, theirs):
        blob = store.read(NAME)
        assert blob is not None
        assert (blob.data, blob.generation) == (b"one", first)
        assert store.read("entries/none.json") is None
        for name, generation in (("objects/big", second), ("objects/other", third)):
            target = tmp_path / "target"
            fetched = store.fetch(name, target, len(data))
            assert fetched == Fetched(str(generation), hashlib.sha256(data).hexdigest())
            assert target.read_bytes() == data
            target.unlink()
            with pytest.raises(TamperedError):
                store.fetch(name, target, len(data) - 1)
            target.unlink(missing_ok=True)
        assert store.fetch("objects/none", tmp_path / "none", 3) is None
    seen = [[(i.name, i.size, i.generation) for i in store.list("")] for store in (ours, theirs)]
    assert seen[0] == seen[1]
    assert len(seen[0]) == 3


def test_preconditions(ours: Store, theirs: Store, storage: Storage) -> None:
    first = theirs.create(NAME, b"one")
    assert first is not None
    assert theirs.create(NAME, b"two") is None
    assert ours.create(NAME, b"two") is None
    second = ours.replace(NAME, b"two", first)
    assert second is not None
    assert theirs.replace(NAME, b"three", first) is None
    third = theirs.replace(NAME, b"three", second)
    assert third is not None
    assert theirs.delete(NAME, second) is False
    theirs.set_aside(NAME, third, "it is bad")
    theirs.set_aside(NAME, third, "it is bad")
    aside = [name for name in storage.names(BUCKET) if "/quarantine/" in name]
    assert len(aside) == 2
    assert theirs.delete(NAME, third) is True
    assert theirs.delete(NAME, third) is False


def test_a_race_between_both_has_one_winner(ours: Store, theirs: Store) -> None:
    won: list[str] = []
    barrier = threading.Barrier(12)

    def race(store: Store, text: bytes) -> None:
        barrier.wait()
        if store.create(NAME, text):
            won.append(text.decode())

    threads = [
        threading.Thread(target=race, args=((ours, theirs)[n % 2], b"%d" % n)) for n in range(12)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1


def test_lost_answers_and_errors(theirs: Store, storage: Storage) -> None:
    storage.fail("POST", "upload", status=503, lose=True)
    assert theirs.create(NAME, b"ours") is not None
    storage.fail("GET", status=403)
    with pytest.raises(DeniedError):
        theirs.read(NAME)
    storage.fail("GET", status=503, times=100)
    with pytest.raises(StoreError):
        theirs.read(NAME)


def test_the_library_itself_is_content_with_the_store(storage: Storage, tmp_path: Path) -> None:
    """Features beyond ours, so that others may use the fixture: checksums, ranges, copies."""
    client = google_storage.Client(project="p")
    bucket = client.bucket(BUCKET)
    blob = bucket.blob("x")
    blob.metadata = {"owner": "me"}
    blob.upload_from_string(b"hello world", "text/plain", if_generation_match=0)
    blob.reload()
    assert (blob.metadata, blob.content_type, blob.size) == ({"owner": "me"}, "text/plain", 11)
    assert blob.download_as_bytes(start=6) == b"world"
    assert blob.download_as_bytes(start=0, end=4) == b"hello"
    copied = bucket.copy_blob(blob, bucket, "y")
    assert copied.download_as_bytes(checksum="md5") == b"hello world"
    storage.put(BUCKET, "folder/z", b"z")
    found = client.list_blobs(BUCKET, delimiter="/")
    assert [item.name for item in found] == ["x", "y"]
    assert found.prefixes == {"folder/"}
    with pytest.raises(Exception, match="conditions"):
        blob.delete(if_generation_match=1)
    storage.fail("GET", cut=4)
    blob.download_to_filename(str(tmp_path / "x"))  # cut once, resumed by the library
    assert (tmp_path / "x").read_bytes() == b"hello world"


def test_the_command_from_a_directory_to_a_bucket_to_a_node(
    storage: Storage, tmp_path: Path, capsys: Any
) -> None:
    who = make_signer("Publisher")
    path = tmp_path / "key.pem"
    path.write_bytes(who.key_and_cert())
    path.chmod(0o600)
    local = FileStore(tmp_path / "lab")
    Cache([local], local).put("x", {"kernel": "6.1"}, {"a": b"a", "big": bytes(9 << 20)}, {})
    assert main(["cache", "warm", local.url, URL, "--key", f"file:{path}"]) == 0
    assert main(["cache", "verify", URL, "--trust", who.sha256]) == 0
    assert main(["cache", "ls", URL]) == 0
    assert "1 entries" in capsys.readouterr().out
    node = FileStore(tmp_path / "node")
    bucket = GcsStore(URL, Web(), storage.url)
    cache = Cache([node, bucket], node, trust=Trust(frozenset({who.sha256})))
    entry = cache.get("x", {"kernel": "6.1"})
    assert entry is not None
    assert entry.hit == URL
    big = next(name for name in storage.names(BUCKET) if "objects/" in name)
    storage.put(BUCKET, big, b"evil")
    assert main(["cache", "verify", URL, "--quarantine"]) == 1
    assert [name for name in storage.names(BUCKET) if "/quarantine/" in name]
    assert main(["cache", "gc", URL]) == 0


def test_without_the_library(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "google.cloud", None)
    assert main(["cache", "ls", URL]) == 2
    assert "gpu-airlock[gcp]" in capsys.readouterr().err
