"""``gs://`` by the JSON API, with the standard library and the metadata server's token.

Every write carries a generation precondition. An answer that got lost makes the repeated request
fail its own precondition, so a 412 is checked against what is there: objects are compared by hash.
"""

from __future__ import annotations

import base64
import json
import re
import urllib.parse
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, Optional

from installers.cache.download import Download
from installers.cache.store import (
    MANIFEST_LIMIT,
    QUARANTINE,
    Blob,
    Content,
    Fetched,
    Info,
    StoreError,
    digest_of,
)
from installers.cache.web import Web
from installers.errors import ConfigError

BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]")
_PREFIX = re.compile(r"[A-Za-z0-9_=-][A-Za-z0-9_.=-]*(/[A-Za-z0-9_=-][A-Za-z0-9_.=-]*)*")
_ANSWER_LIMIT = 16 << 20


class GcsStore:
    """A bucket, or a folder of one. ``endpoint`` is the service's address, without a path."""

    shared = True
    writable = True

    def __init__(self, url: str, web: Web, endpoint: str) -> None:
        bucket, _, prefix = url[len("gs://") :].rstrip("/").partition("/")
        if not BUCKET.fullmatch(bucket) or (prefix and not _PREFIX.fullmatch(prefix)):
            raise ConfigError(
                f"{url} is not gs://bucket or gs://bucket/folder", where="airlock-cache"
            )
        self.url = f"gs://{bucket}/{prefix}".rstrip("/")
        self._prefix = f"{prefix}/" if prefix else ""
        self._web = web
        self._base = f"{endpoint.rstrip('/')}/storage/v1/b/{bucket}/o"
        self._upload = f"{endpoint.rstrip('/')}/upload/storage/v1/b/{bucket}/o"
        self._bucket = bucket

    def read(self, name: str) -> Optional[Blob]:
        address = f"{self._address(name)}?alt=media"
        answer = self._web.whole("GET", address, limit=MANIFEST_LIMIT, accept=(404,))
        if answer.status == 404:
            return None
        generation = answer.headers.get("x-goog-generation", "")
        return Blob(answer.data, _number(generation))

    def fetch(self, name: str, target: Path, size: int) -> Optional[Fetched]:
        try:
            return Download(self._web, f"{self._address(name)}?alt=media", target, size).run()
        except FileNotFoundError:
            return None

    def create(self, name: str, data: Content) -> Optional[str]:
        return self._insert(name, data, "0")

    def replace(self, name: str, data: Content, generation: str) -> Optional[str]:
        return self._insert(name, data, generation)

    def delete(self, name: str, generation: str) -> bool:
        address = f"{self._address(name)}?ifGenerationMatch={_number(generation)}"
        answer = self._web.whole("DELETE", address, limit=_ANSWER_LIMIT, accept=(404, 412))
        return answer.status < 300

    def set_aside(self, name: str, generation: str, why: str) -> None:
        """Copy it: a bucket has many readers, and none of them may take an object from another."""
        generation = _number(generation)
        flat = f"{QUARANTINE}/{name.replace('/', '-')}.{generation}"
        target = urllib.parse.quote(self._prefix + flat, safe="")
        address = (
            f"{self._address(name)}/rewriteTo/b/{self._bucket}/o/{target}"
            f"?sourceGeneration={generation}&ifGenerationMatch=0"
        )
        token = ""
        while True:
            more = f"&rewriteToken={urllib.parse.quote(token, safe='')}" if token else ""
            answer = self._web.whole("POST", address + more, limit=_ANSWER_LIMIT, accept=(404, 412))
            if answer.status in (404, 412):
                return  # gone, or somebody else was faster
            done = _json(answer.data, self.url)
            if done.get("done", True):
                break
            token = str(done.get("rewriteToken", ""))
        self._insert(f"{flat}.reason", f"{name}: {why}\n".encode(), "0")

    def list(self, prefix: str) -> Iterator[Info]:
        fields = "nextPageToken,items(name,size,generation,updated)"
        query = {"prefix": self._prefix + prefix, "fields": fields}
        while True:
            address = f"{self._base}?{urllib.parse.urlencode(query)}"
            page = _json(self._web.whole("GET", address, limit=_ANSWER_LIMIT).data, self.url)
            for item in page.get("items", []):
                yield _info(item, len(self._prefix), self.url)
            if not (token := page.get("nextPageToken")):
                return
            query["pageToken"] = str(token)

    def _address(self, name: str) -> str:
        return f"{self._base}/{urllib.parse.quote(self._prefix + name, safe='')}"

    def _insert(self, name: str, data: Content, generation: str) -> Optional[str]:
        query = {
            "uploadType": "media",
            "name": self._prefix + name,
            "ifGenerationMatch": _number(generation),
        }
        md5 = base64.b64encode(bytes.fromhex(digest_of(data, "md5"))).decode()
        address = f"{self._upload}?{urllib.parse.urlencode(query)}"
        answer = self._web.whole("POST", address, limit=_ANSWER_LIMIT, body=data, accept=(404, 412))
        if answer.status < 300:
            made = _json(answer.data, self.url)
            if made.get("md5Hash") != md5:
                raise StoreError("stored something else than was sent", where=self.url)
            return _number(str(made.get("generation")))
        if answer.status == 404 and generation == "0":
            raise StoreError("there is no such bucket", where=self.url)
        return self._mine(name, md5, generation)

    def _mine(self, name: str, md5: str, generation: str) -> Optional[str]:
        """After a failed precondition: the generation when what is there is what we sent.

        Of a new object only: an existing one of the same content is what ``create`` reports as
        there already, and for a lease the content holds its owner's random name.
        """
        answer = self._web.whole("GET", self._address(name), limit=_ANSWER_LIMIT, accept=(404,))
        if answer.status == 404:
            return None
        there = _json(answer.data, self.url)
        if there.get("md5Hash") == md5 and str(there.get("generation")) != generation:
            return str(there["generation"])
        return None


def _number(generation: str) -> str:
    if not generation.isdigit():
        raise StoreError(f"names {generation!r} as an object's generation", where="gs://")
    return generation


def _json(body: bytes, where: str) -> dict[str, Any]:
    try:
        value = json.loads(body)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise StoreError("did not answer with a JSON object", where=where)
    return value


def _info(item: Any, skip: int, where: str) -> Info:
    try:
        moment = datetime.fromisoformat(item["updated"].replace("Z", "+00:00"))
        generation = str(item["generation"])
        return Info(item["name"][skip:], int(item["size"]), generation, moment.timestamp())
    except (KeyError, ValueError, TypeError, AttributeError) as wrong:
        raise StoreError(f"lists an object that cannot be read: {wrong!r}", where=where) from wrong
