"""``https://``: a copy of a store on any web server. It is read, and never written to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn, Optional
from urllib.parse import urlsplit

from installers.cache.download import Download
from installers.cache.store import (
    MANIFEST_LIMIT,
    Blob,
    DeniedError,
    Fetched,
    Info,
)
from installers.cache.web import Web, is_private
from installers.errors import ConfigError


class MirrorStore:
    """A folder of a web server with ``entries/`` and ``objects/`` in it."""

    shared = True
    writable = False

    def __init__(self, url: str, web: Web) -> None:
        parts = urlsplit(url)
        if not parts.hostname or not is_private(url) or "@" in parts.netloc or parts.query:
            raise ConfigError(
                "a mirror is https://host/folder, without credentials", where="airlock-cache"
            )
        self.url = url.rstrip("/")
        self._web = web

    def read(self, name: str) -> Optional[Blob]:
        address = f"{self.url}/{name}"
        answer = self._web.whole("GET", address, limit=MANIFEST_LIMIT, accept=(404,))
        return None if answer.status == 404 else Blob(answer.data, answer.headers.get("ETag", ""))

    def fetch(self, name: str, target: Path, size: int) -> Optional[Fetched]:
        try:
            return Download(self._web, f"{self.url}/{name}", target, size).run()
        except FileNotFoundError:
            return None

    def create(self, *_: object, **__: object) -> NoReturn:
        raise self._denied()

    def replace(self, *_: object, **__: object) -> NoReturn:
        raise self._denied()

    def delete(self, *_: object, **__: object) -> NoReturn:
        raise self._denied()

    def set_aside(self, name: str, generation: str, why: str) -> None:
        """A mirror keeps what it has; the caller's notes say what is wrong with it."""

    def list(self, *_: object, **__: object) -> Iterator[Info]:
        raise self._denied()

    def _denied(self) -> DeniedError:
        return DeniedError("a mirror can only be read, entry by entry", where=self.url)
