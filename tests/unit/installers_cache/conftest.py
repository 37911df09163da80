"""Stores of every kind over real files and a real HTTP server; keys are made once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fixtures.pki import Identity, make_signer
from fixtures.signer import sign
from fixtures.storage import Storage
from installers.cache.cache import Cache
from installers.cache.filestore import FileStore
from installers.cache.gcs import GcsStore
from installers.cache.manifest import Sign, Trust
from installers.cache.store import Store
from installers.cache.web import Web

BUCKET = "lab-bucket"
TOKEN = "lab.token"
URL = f"gs://{BUCKET}/airlock-cache"


@pytest.fixture(scope="session")
def ours() -> Identity:
    """Whose entries are believed."""
    return make_signer("Ours")


@pytest.fixture(scope="session")
def stranger() -> Identity:
    """Whom nobody believes."""
    return make_signer("Stranger")


def signing(who: Identity) -> Sign:
    """Signs manifests with a key in memory."""
    return lambda data: (sign(who, data), who.der)


@pytest.fixture
def storage() -> Iterator[Storage]:
    """An object store with one bucket, that wants a token."""
    with Storage(BUCKET, token=TOKEN) as running:
        yield running


@pytest.fixture
def web() -> Web:
    """Impatient: a test that waits for a server to come back says so."""
    return Web(token=lambda: TOKEN, patience=3.0)


@pytest.fixture
def bucket(storage: Storage, web: Web) -> GcsStore:
    """The folder of the bucket, as the node sees it."""
    return GcsStore(URL, web, storage.url)


@pytest.fixture(params=["file", "gs"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """Each kind of store that is written to."""
    if request.param == "file":
        return FileStore(tmp_path / "store")
    found = request.getfixturevalue("bucket")
    assert isinstance(found, GcsStore)
    return found


Make = Callable[..., Cache]


@pytest.fixture
def node(tmp_path: Path, bucket: GcsStore, ours: Identity) -> Make:
    """``node("a")``: the cache of a node with a directory of its own before the shared bucket."""

    def make(
        name: str = "node", *, signer: Identity | None = ours, notes: list[str] | None = None
    ) -> Cache:
        local = FileStore(tmp_path / name)
        return Cache(
            [local, bucket],
            local,
            trust=Trust(frozenset({ours.sha256})),
            sign=signing(signer) if signer else None,
            say=(notes if notes is not None else []).append,
            every=0.1,
        )

    return make
