"""What the metadata says about the cache, checked, and the cache that follows from it.

========================== =======================================================================
``airlock-cache``          stores in the order in which they are asked, separated by commas or
                           blanks: ``file:///folder``, ``gs://bucket/folder``, ``https://host/folder``
``dataproc-temp-bucket``   without ``airlock-cache``: the store is a folder of that bucket
``airlock-cache-signers``  SHA-256 fingerprints of certificates whose entries are believed; where it
                           is given, entries of ``file://`` must be signed too
``airlock-cache-unsigned`` ``true``: believe unsigned entries of shared stores too
``airlock-offline``        ``true``: ask nobody but these stores
========================== =======================================================================
"""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Optional
from urllib.parse import urlsplit

from installers import metadata
from installers.cache.cache import Cache
from installers.cache.filestore import FileStore
from installers.cache.gcs import BUCKET, GcsStore
from installers.cache.manifest import Sign, Trust
from installers.cache.mirror import MirrorStore
from installers.cache.store import Store
from installers.cache.web import Web
from installers.config import Config
from installers.errors import ConfigError
from installers.signing import Signer

KEY = "airlock-cache"
SIGNERS = "airlock-cache-signers"
UNSIGNED = "airlock-cache-unsigned"
OFFLINE = "airlock-offline"
BUCKET_KEY = "dataproc-temp-bucket"
FOLDER = "airlock-cache"
#: Where downloads go when no store is a directory; removed afterwards, images keep nothing of it.
SCRATCH = Path("/var/cache/airlock")
_FORMS = "write file:///folder, gs://bucket/folder or https://host/folder, separated by commas"


@dataclass(frozen=True)
class Settings:
    """The checked settings. ``urls`` in their order; ``implied``: the bucket is a default."""

    config: Config
    urls: tuple[str, ...]
    trust: Trust
    unsigned: bool
    offline: bool

    @property
    def hosts(self) -> list[str]:
        """Hosts that will be contacted, for the plan."""
        found = []
        for url in self.urls:
            if url.startswith("gs://"):
                found.append(urlsplit(endpoint(self.config)).hostname or "")
            elif url.startswith("http"):
                found.append(urlsplit(url).hostname or "")
        return sorted(set(found))

    @property
    def strict(self) -> bool:
        """Whether nobody but the named signers is believed, not even a directory."""
        return bool(self.trust.pins) and not self.unsigned

    @property
    def notes(self) -> list[str]:
        """For the plan: where entries come from, and who is believed."""
        if not self.urls:
            return []
        notes = [f"the cache is {', then '.join(self.urls)}"]
        if any(not url.startswith("file:") for url in self.urls):
            if self.unsigned:
                notes.append(f"{UNSIGNED}: whoever writes to these stores decides what runs here")
            elif not self.trust.pins and not self.config.signer:
                notes.append(f"nobody is believed yet: {SIGNERS} names no certificate")
        return notes

    @contextlib.contextmanager
    def open(self, say: Callable[[str], None]) -> Iterator[Cache]:
        """The cache. Nothing is contacted before something is asked for."""
        web = Web(self.config.proxy, token=lambda: metadata.access_token(metadata_server))
        metadata_server = self.config.metadata_server
        tiers: list[Store] = [open_store(url, web, endpoint(self.config)) for url in self.urls]
        locals_ = [tier for tier in tiers if isinstance(tier, FileStore) and tier.writable]
        with contextlib.ExitStack() as stack:
            local: Optional[FileStore] = locals_[0] if locals_ else None
            if tiers and local is None:
                # Always the same place, so that a run that was killed is gone on with.
                local = FileStore(SCRATCH)
                stack.callback(shutil.rmtree, SCRATCH, ignore_errors=True)
            yield Cache(
                tiers,
                local,
                trust=self._trusted(),
                unsigned=self.unsigned,
                strict=self.strict,
                sign=socket_signer(self.config.signer) if self.config.signer else None,
                say=say,
            )

    def _trusted(self) -> Trust:
        """The named certificates, and that of the signing socket, which this node uses anyway."""
        pins = set(self.trust.pins)
        shared = any(not url.startswith("file:") for url in self.urls)
        if self.config.signer and (shared or self.strict):
            with Signer(self.config.signer) as signer:
                pins.add(signer.certificate().sha256)
        return Trust(frozenset(pins))


def parse(config: Config) -> Settings:
    """Read the keys. Raises ConfigError for what is none of the forms."""
    raw = config.raw
    urls = [url for url in re.split(r"[,\s]+", raw.get(KEY, "")) if url]
    bucket = raw.get(BUCKET_KEY, "").strip()
    if not urls and bucket:
        if not BUCKET.fullmatch(bucket):
            raise ConfigError("is not the name of a bucket", where=BUCKET_KEY)
        urls = [f"gs://{bucket}/{FOLDER}"]
    for url in urls:
        open_store(url, Web(), endpoint(config))
    pins = [pin.lower() for pin in re.split(r"[,\s]+", raw.get(SIGNERS, "")) if pin]
    for pin in pins:
        if not re.fullmatch(r"[0-9a-f]{64}", pin):
            raise ConfigError(
                f"{pin[:80]} is not a SHA-256 fingerprint of 64 hex digits", where=SIGNERS
            )
    return Settings(
        config,
        tuple(urls),
        Trust(frozenset(pins)),
        _flag(raw.get(UNSIGNED), UNSIGNED),
        _flag(raw.get(OFFLINE), OFFLINE),
    )


def open_store(url: str, web: Web, storage: str) -> Store:
    """The store of a URL; ``storage`` is the object service's address. Raises ConfigError."""
    if not url.isascii() or not url.isprintable():
        raise ConfigError("holds characters that no URL has", where=KEY, remedy=_FORMS)
    if url.startswith("file:///"):
        return FileStore(Path(url[len("file://") :]))
    if url.startswith("gs://"):
        return GcsStore(url, web, storage)
    if url.startswith(("https://", "http://")):
        return MirrorStore(url, web)
    raise ConfigError(f"{url} is not a store", where=KEY, remedy=_FORMS)


def endpoint(config: Config) -> str:
    """Address of the object service; it follows the universe domain."""
    given = config.raw.get("airlock-storage-endpoint", "").strip()
    return given or f"https://storage.{config.universe_domain}"


def socket_signer(path: str) -> Sign:
    """Signs by the socket that signs modules: the key stays on its other side."""

    def sign(data: bytes) -> tuple[bytes, bytes]:
        with Signer(path) as signer:
            certificate = signer.certificate()
            cms, _ = signer.sign("cache-manifest.json", data)
            return cms, certificate.der

    return sign


def _flag(value: Optional[str], where: str) -> bool:
    text = (value or "false").strip().lower() or "false"
    if text not in ("true", "false"):
        raise ConfigError("is neither true nor false", where=where)
    return text == "true"
