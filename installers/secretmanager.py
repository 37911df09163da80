"""Secrets of Secret Manager by its REST interface (v1), read with the metadata server's token.

https://cloud.google.com/secret-manager/docs/reference/rest/v1/projects.secrets.versions/access
"""

from __future__ import annotations

import base64
import json
import re

from installers import metadata
from installers.config import Config
from installers.errors import NodeError, UnreachableError
from installers.fetching import fetch

ENDPOINT = "airlock-secrets-endpoint"
#: A version's name. By number: latest and its like would change the content unseen.
VERSION = re.compile(r"projects/[\w:.%-]+/secrets/[\w%-]+/versions/[1-9]\d*")
_POLYNOMIAL = 0x82F63B78  # CRC-32C (Castagnoli), reflected: RFC 3720 B.4


def crc32c(data: bytes) -> int:
    """The checksum that Secret Manager states for a payload."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (_POLYNOMIAL if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def endpoint(config: Config) -> str:
    """Base URL of Secret Manager; another one for private access, or as the universe has it."""
    found = config.raw.get(ENDPOINT) or f"https://secretmanager.{config.universe_domain}"
    return found.rstrip("/")


def url(name: str, config: Config) -> str:
    """Where the content of a version is read."""
    return f"{endpoint(config)}/v1/{name}:access"


def read(name: str, config: Config) -> bytes:
    """The content of ``projects/P/secrets/S/versions/N``, checked against its CRC32C.

    Raises NodeError where this node has no service account, UnreachableError for every answer that
    is not the content. Nothing of a content is in either.
    """
    token = metadata.access_token(config.metadata_server)
    if token is None:
        raise NodeError(
            "this node has no service account to read it with",
            where=name,
            remedy="give it one that may read secrets (secretAccessor)",
        )
    answer = fetch(url(name, config), config, {"Authorization": f"Bearer {token}"}, pinned=False)
    try:
        payload = json.loads(answer)["payload"]
        data = base64.b64decode(payload["data"], validate=True)
        stated = int(payload["dataCrc32c"])
    except (ValueError, KeyError, TypeError):
        raise UnreachableError("did not answer as Secret Manager does", where=name) from None
    if crc32c(data) != stated:
        raise UnreachableError("arrived damaged: its CRC32C is another one", where=name)
    return data
