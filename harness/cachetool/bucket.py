"""``gs://`` with Google's own library, for people and CI: credentials of every kind, large uploads.

The library is imported inside the function that needs it: it costs a quarter of a second, and
belongs to the extra ``gpu-airlock[gcp]``.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness.errors import InfraError, UsageError
from installers.cache.gcs import BUCKET
from installers.cache.store import (
    MANIFEST_LIMIT,
    QUARANTINE,
    Blob,
    Content,
    DeniedError,
    Fetched,
    Info,
    StoreError,
    TamperedError,
    digest_of,
)

#: Measured with 50 MB/s a connection: 8 parts of 8 MiB at a time, by threads.
_PART = 8 << 20
_WORKERS = 8
_TIMEOUT = 60.0


class BucketStore:
    """A store in a bucket. ``patience``: seconds for one operation with all its repetitions.

    The address and the credentials are what the library finds (``STORAGE_EMULATOR_HOST``,
    application default credentials).
    """

    shared = True
    writable = True

    def __init__(self, url: str, *, patience: float = _TIMEOUT) -> None:
        name, _, prefix = url.removeprefix("gs://").rstrip("/").partition("/")
        if not BUCKET.fullmatch(name):
            raise UsageError(f"{url} is not gs://bucket or gs://bucket/folder")
        self.url = f"gs://{name}/{prefix}".rstrip("/")
        self._prefix = f"{prefix}/" if prefix else ""
        self._bucket = _client().bucket(name)
        from google.cloud.storage.retry import DEFAULT_RETRY

        self._how = {"retry": DEFAULT_RETRY.with_timeout(patience), "timeout": patience}

    def read(self, name: str) -> Blob | None:
        """A small object with its generation."""
        with _Errors(self.url):
            blob = self._bucket.get_blob(self._prefix + name, **self._how)
            if blob is None:
                return None
            if blob.size > MANIFEST_LIMIT:
                raise TamperedError(f"it has {blob.size} bytes", where=f"{self.url}/{name}")
            data = blob.download_as_bytes(if_generation_match=blob.generation, **self._how)
            return Blob(data, str(blob.generation))

    def fetch(self, name: str, target: Path, size: int) -> Fetched | None:
        """The content, in parallel parts. Ranges are not verified by the library: callers do."""
        from google.cloud.storage import transfer_manager

        with _Errors(self.url):
            blob = self._bucket.get_blob(self._prefix + name, **self._how)
            if blob is None:
                return None
            if blob.size != size:
                raise TamperedError(f"it has {blob.size} bytes, not {size}", where=self.url)
            if size <= _PART:
                target.write_bytes(blob.download_as_bytes(**self._how) if size else b"")
            else:
                transfer_manager.download_chunks_concurrently(
                    blob,
                    str(target),
                    chunk_size=_PART,
                    worker_type=transfer_manager.THREAD,
                    max_workers=_WORKERS,
                    download_kwargs=dict(self._how),
                )
            return Fetched(str(blob.generation), digest_of(target))

    def create(self, name: str, data: Content) -> str | None:
        """Write an object that is not there; its generation."""
        return self._write(name, data, 0)

    def replace(self, name: str, data: Content, generation: str) -> str | None:
        """Write over exactly this generation."""
        return self._write(name, data, int(generation))

    def delete(self, name: str, generation: str) -> bool:
        """Remove exactly this generation."""
        from google.api_core import exceptions

        with _Errors(self.url):
            try:
                blob = self._bucket.blob(self._prefix + name)
                blob.delete(if_generation_match=int(generation), **self._how)
            except (exceptions.NotFound, exceptions.PreconditionFailed):
                return False
            return True

    def set_aside(self, name: str, generation: str, why: str) -> None:
        """Copy it under ``quarantine/``; the original stays."""
        from google.api_core import exceptions

        flat = f"{QUARANTINE}/{name.replace('/', '-')}.{generation}"
        with _Errors(self.url):
            source = self._bucket.blob(self._prefix + name)
            target, token = self._bucket.blob(self._prefix + flat), None
            try:
                while True:
                    token, _, _ = target.rewrite(
                        source,
                        token=token,
                        if_generation_match=0,
                        if_source_generation_match=int(generation),
                        **self._how,
                    )
                    if token is None:
                        break
            except (exceptions.NotFound, exceptions.PreconditionFailed):
                return  # gone, or set aside already
        self._write(f"{flat}.reason", f"{name}: {why}\n".encode(), 0)

    def list(self, prefix: str) -> Iterator[Info]:
        """Objects by prefix."""
        with _Errors(self.url):
            blobs = self._bucket.list_blobs(prefix=self._prefix + prefix, **self._how)
            for blob in blobs:
                name = blob.name[len(self._prefix) :]
                yield Info(name, blob.size, str(blob.generation), blob.updated.timestamp())

    def _write(self, name: str, data: Content, generation: int) -> str | None:
        from google.api_core import exceptions

        blob = self._bucket.blob(self._prefix + name)
        how = {"if_generation_match": generation, "checksum": "crc32c", **self._how}
        with _Errors(self.url):
            try:
                if isinstance(data, bytes):
                    blob.upload_from_string(data, "application/octet-stream", **how)
                else:
                    blob.upload_from_filename(str(data), "application/octet-stream", **how)
                return str(blob.generation)
            except (exceptions.PreconditionFailed, exceptions.NotFound):
                # An answer that got lost: the object may be ours all the same. After a resumable
                # upload whose answer got lost, the library says NotFound.
                there = self._bucket.get_blob(self._prefix + name, **self._how)
                mine = base64.b64encode(bytes.fromhex(digest_of(data, "md5"))).decode()
                if there is None or there.generation == generation or there.md5_hash != mine:
                    return None
                return str(there.generation)


def _client() -> Any:
    try:
        from google.cloud import storage
    except ImportError as error:
        raise UsageError("gs:// needs Google's library", hint="install gpu-airlock[gcp]") from error
    from google.auth.exceptions import DefaultCredentialsError

    emulated = bool(os.environ.get("STORAGE_EMULATOR_HOST"))
    try:
        return storage.Client(project="emulated") if emulated else storage.Client()
    except (DefaultCredentialsError, OSError) as error:
        raise InfraError(
            f"no credentials for gs://: {str(error).splitlines()[0]}",
            hint="gcloud auth application-default login, or GOOGLE_APPLICATION_CREDENTIALS",
        ) from error


class _Errors:
    """The library's errors as those of a store."""

    def __init__(self, where: str) -> None:
        self._where = where

    def __enter__(self) -> None:
        """Nothing to prepare."""

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None or not isinstance(error, Exception):
            return
        import requests
        from google.api_core import exceptions
        from google.auth.exceptions import GoogleAuthError
        from google.cloud.storage.exceptions import DataCorruption

        if isinstance(error, DataCorruption):
            raise TamperedError("its checksum is another one", where=self._where) from error
        if isinstance(error, exceptions.Forbidden | exceptions.Unauthorized | GoogleAuthError):
            raise DeniedError(
                f"is not allowed: {type(error).__name__}",
                where=self._where,
                remedy="give the account a role on the bucket (storage.objectUser)",
            ) from error
        if isinstance(
            error,
            exceptions.GoogleAPIError | requests.exceptions.RequestException | ConnectionError,
        ):
            text = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise StoreError(
                f"does not do what was asked: {text[:200]}", where=self._where
            ) from error
