"""What every store promises, on each kind of store."""

from __future__ import annotations

import hashlib
import os
import socket
import threading
from pathlib import Path

import pytest

from fixtures.storage import Storage
from installers.cache.filestore import FileStore
from installers.cache.gcs import GcsStore
from installers.cache.mirror import MirrorStore
from installers.cache.store import (
    MANIFEST_LIMIT,
    DeniedError,
    Fetched,
    Store,
    StoreError,
    TamperedError,
)
from installers.cache.web import Web
from installers.config import ProxySettings
from installers.errors import ConfigError
from installers.proxyurl import ProxyURL
from tests.unit.installers_cache.conftest import BUCKET, TOKEN, URL

NAME = "entries/" + "a" * 64 + ".json"


def test_an_object_is_created_once(store: Store, tmp_path: Path) -> None:
    assert store.read(NAME) is None
    first = store.create(NAME, b"one")
    assert first
    assert store.create(NAME, b"two") is None
    blob = store.read(NAME)
    assert blob is not None
    assert (blob.data, blob.generation) == (b"one", first)
    (tmp_path / "content").write_bytes(b"three")
    assert store.create("objects/" + "b" * 64, tmp_path / "content")
    assert [(info.name, info.size) for info in store.list("")] == [
        (NAME, 3),
        ("objects/" + "b" * 64, 5),
    ]
    assert [info.name for info in store.list("objects/")] == ["objects/" + "b" * 64]


def test_only_the_generation_that_was_seen_is_replaced_or_deleted(store: Store) -> None:
    first = store.create(NAME, b"one")
    assert first is not None
    second = store.replace(NAME, b"two", first)
    assert second not in (None, first)
    assert store.replace(NAME, b"three", first) is None
    assert store.delete(NAME, first) is False
    blob = store.read(NAME)
    assert blob is not None
    assert blob.data == b"two"
    assert store.delete(NAME, str(second)) is True
    assert store.delete(NAME, str(second)) is False
    assert store.read(NAME) is None


def test_a_race_has_one_winner(store: Store) -> None:
    won: list[str | None] = []
    barrier = threading.Barrier(16)

    def race(text: bytes) -> None:
        barrier.wait()
        won.append(store.create(NAME, text))

    threads = [threading.Thread(target=race, args=(b"%d" % n,)) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(generation is not None for generation in won) == 1


def test_what_is_set_aside_is_kept(store: Store) -> None:
    generation = store.create(NAME, b"bad")
    store.set_aside(NAME, str(generation), "it is bad")
    kept = list(store.list("quarantine/"))
    assert [info.size for info in kept if not info.name.endswith(".reason")] == [3]
    # A second one is no error, whether the object is still there or not.
    store.set_aside(NAME, str(generation), "it is bad")
    assert (store.read(NAME) is not None) == store.shared


def test_content_is_fetched_or_missing_or_of_another_size(store: Store, tmp_path: Path) -> None:
    data = os.urandom(100_000)
    name = "objects/" + "c" * 64
    generation = store.create(name, data)
    assert store.fetch(name, tmp_path / "target", len(data)) == Fetched(
        str(generation), hashlib.sha256(data).hexdigest()
    )
    assert (tmp_path / "target").read_bytes() == data
    assert store.fetch("objects/" + "d" * 64, tmp_path / "other", 3) is None
    for size in (len(data) - 1, len(data) + 1):
        with pytest.raises(TamperedError, match=r"bytes"):
            store.fetch(name, tmp_path / f"{size}", size)


def test_a_manifest_that_would_fill_the_memory(store: Store) -> None:
    store.create(NAME, bytes(MANIFEST_LIMIT + 1))
    with pytest.raises(TamperedError, match="bytes"):
        store.read(NAME)


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "objects/../../x", "objects/.x", "x"])
def test_names_lead_nowhere_else(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="no name"):
        FileStore(tmp_path).read(name)


def test_a_lost_answer_is_no_lost_race(bucket: GcsStore, storage: Storage) -> None:
    """The object was written, the answer got lost, the repeated request fails its precondition."""
    storage.fail("POST", "upload", status=503, lose=True)
    assert bucket.create(NAME, b"ours") is not None
    storage.fail("POST", "upload", status=503, lose=True)
    assert bucket.create("leases/x.json", b"ours") is not None
    assert bucket.create("leases/x.json", b"theirs") is None


def test_busy_is_retried_and_refused_is_not(bucket: GcsStore, storage: Storage) -> None:
    bucket.create(NAME, b"x")
    for status in (429, 500, 503):
        storage.fail("GET", status=status)
    assert bucket.read(NAME) is not None
    for status in (403, 401, 401):
        storage.fail("GET", status=status)
    asked = len(storage.requests)
    with pytest.raises(DeniedError, match="answered 403"):
        bucket.read(NAME)
    assert len(storage.requests) == asked + 1
    # A token that ran out is renewed once.
    with pytest.raises(DeniedError, match="answered 401"):
        bucket.read(NAME)
    assert bucket.read(NAME) is not None


def test_a_renewed_token_is_used(storage: Storage) -> None:
    tokens = iter(["old", TOKEN])
    store = GcsStore(URL, Web(token=lambda: next(tokens), patience=1.0), storage.url)
    assert store.create(NAME, b"x")


def test_an_answer_that_is_cut_off_is_asked_for_again(bucket: GcsStore, storage: Storage) -> None:
    bucket.create(NAME, b"x" * 1000)
    storage.fail("GET", "entries", cut=500, times=2)
    blob = bucket.read(NAME)
    assert blob is not None
    assert blob.data == b"x" * 1000


def test_a_store_that_is_gone(bucket: GcsStore, storage: Storage) -> None:
    storage.close()
    with pytest.raises(StoreError, match="does not answer"):
        bucket.read(NAME)


def test_no_bucket(storage: Storage, web: Web) -> None:
    with pytest.raises(StoreError, match="no such bucket"):
        GcsStore("gs://another-bucket", web, storage.url).create(NAME, b"x")


def test_the_token_goes_nowhere_else(storage: Storage) -> None:
    """Not over plain http to another machine, and not where a redirect points."""
    asked: list[str] = []
    web = Web(token=lambda: asked.append("token") or TOKEN, patience=0.1)  # type: ignore[func-returns-value]
    with pytest.raises(StoreError):
        GcsStore(URL, web, "http://storage.invalid").read(NAME)
    assert asked == []
    storage.fail("GET", status=307)
    with pytest.raises(DeniedError, match="points elsewhere"):
        GcsStore(URL, web, storage.url).read(NAME)


@pytest.mark.parametrize(("status", "words"), [(407, "other credentials"), (403, "answered 403")])
def test_a_proxy_that_refuses_is_not_asked_for_a_minute(status: int, words: str) -> None:
    listener = socket.create_server(("127.0.0.1", 0))

    def answer() -> None:
        connection, _ = listener.accept()
        connection.recv(4096)
        connection.sendall(b"HTTP/1.1 %d No\r\nContent-Length: 0\r\n\r\n" % status)
        connection.close()

    thread = threading.Thread(target=answer)
    thread.start()
    proxy = ProxyURL("http", "127.0.0.1", listener.getsockname()[1], "user", "sesame")
    web = Web(ProxySettings(proxy, proxy), token=lambda: TOKEN)
    with pytest.raises(DeniedError, match=words) as error:
        GcsStore(URL, web, "https://storage.invalid").read(NAME)
    thread.join()
    listener.close()
    assert "sesame" not in str(error.value)
    assert TOKEN not in str(error.value)


def test_a_listing_has_many_pages(web: Web) -> None:
    with Storage(BUCKET, page=3) as storage:
        for number in range(8):
            storage.put(BUCKET, f"airlock-cache/objects/{number}", b"x")
            storage.put(BUCKET, f"other/{number}", b"x")
        store = GcsStore(URL, web, storage.url)
        names = [info.name for info in store.list("objects/")]
        assert names == [f"objects/{number}" for number in range(8)]


def test_a_mirror_is_read_and_never_written(storage: Storage, tmp_path: Path) -> None:
    storage.token = None
    storage.put(BUCKET, f"airlock-cache/{NAME}", b"manifest")
    storage.put(BUCKET, "airlock-cache/objects/" + "e" * 64, b"content")
    mirror = MirrorStore(f"{storage.url}/mirror/{BUCKET}/airlock-cache", Web(patience=1.0))
    blob = mirror.read(NAME)
    assert blob is not None
    assert blob.data == b"manifest"
    assert mirror.read("entries/none.json") is None
    assert mirror.fetch("objects/" + "e" * 64, tmp_path / "x", 7) is not None
    assert mirror.fetch("objects/" + "f" * 64, tmp_path / "y", 7) is None
    asked = len(storage.requests)
    for action in (mirror.create, mirror.replace, mirror.delete, mirror.list):
        with pytest.raises(DeniedError, match="only be read"):
            action(NAME, b"x", "1")
    mirror.set_aside(NAME, "1", "bad")
    assert len(storage.requests) == asked


@pytest.mark.parametrize(
    "url", ["http://mirror.invalid/x", "https://user:secret@mirror.invalid/", "https:///x"]
)
def test_a_mirror_that_is_none(url: str) -> None:
    with pytest.raises(ConfigError) as error:
        MirrorStore(url, Web())
    assert "secret" not in str(error.value)


@pytest.mark.parametrize("url", ["gs://", "gs://UP", "gs://bucket/../x", "gs://bucket/a//b"])
def test_a_bucket_that_is_none(url: str) -> None:
    with pytest.raises(ConfigError):
        GcsStore(url, Web(), "https://storage.invalid")
