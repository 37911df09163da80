"""Where the CA's PEM file is: on the node, at a pinned URL, in an object store, or a secret."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Optional
from urllib.parse import quote, urlsplit

from installers import metadata, secretmanager
from installers.config import Config
from installers.errors import ConfigError, NodeError
from installers.fetching import LIMIT, fetch
from installers.host import Host

KEY = "http-proxy-pem-uri"
_MANAGED = "secret-manager:"
_FORMS = (
    "write file:///path, gs://bucket/object, secret-manager:projects/P/secrets/S/versions/N, "
    "or https://host/path#sha256=HEX with the SHA-256 of the file"
)


@dataclass(frozen=True)
class PemSource:
    """A checked URI. ``kind`` is file, url, gs or secret; ``pin`` the content's SHA-256, if any."""

    kind: str
    location: str
    pin: Optional[str]

    @property
    def is_remote(self) -> bool:
        """True when reading it needs the network."""
        return self.kind != "file"


def parse(uri: str) -> PemSource:
    """Check the URI. Raises ConfigError: what it is not, and the forms it may have."""
    base, _, fragment = uri.partition("#")
    pin = _pin(fragment)
    if not base.isascii() or not base.isprintable() or " " in base:
        raise ConfigError("holds characters that no URI has", where=KEY, remedy=_FORMS)
    if base.startswith("file://"):
        path = base[len("file://") :]
        if not path.startswith("/"):
            raise ConfigError("a file is named by its absolute path", where=KEY, remedy=_FORMS)
        return PemSource("file", path, pin)
    if base.startswith("gs://"):
        if not re.fullmatch(r"gs://[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]/[^/].*", base):
            raise ConfigError("is not gs://bucket/object", where=KEY, remedy=_FORMS)
        return PemSource("gs", base, pin)
    if base.startswith(_MANAGED):
        name = base[len(_MANAGED) :]
        if not secretmanager.VERSION.fullmatch(name):
            raise ConfigError(
                "is not secret-manager:projects/P/secrets/S/versions/NUMBER", where=KEY
            )
        return PemSource("secret", name, pin)
    if base.startswith(("http://", "https://")):
        if pin is None:
            # Who serves the CA decides whom the node trusts: only a pin makes that the operator.
            raise ConfigError("a URL needs the hash of its content", where=KEY, remedy=_FORMS)
        parts = urlsplit(base)
        if not parts.hostname or "@" in parts.netloc:
            raise ConfigError("is not a URL without credentials", where=KEY, remedy=_FORMS)
        return PemSource("url", base, pin)
    raise ConfigError("has a scheme that is not known", where=KEY, remedy=_FORMS)


def read(source: PemSource, host: Host, config: Config) -> bytes:
    """The content, at most 1 MiB, equal to its pin.

    Raises NodeError for a file that is not there or another content than pinned, UnreachableError
    when it cannot be fetched.
    """
    if source.kind == "file":
        data = host.read_bytes(source.location)
        if data is None:
            raise NodeError("there is no such file", where=f"{KEY} {source.location}")
    elif source.kind == "gs":
        data = _object(source, config)
    elif source.kind == "secret":
        data = secretmanager.read(source.location, config)
    else:
        data = fetch(source.location, config, {}, pinned=True)
    if len(data) > LIMIT:
        raise NodeError(f"is larger than {LIMIT} bytes", where=KEY, remedy="give a CA's PEM file")
    found = hashlib.sha256(data).hexdigest()
    if source.pin is not None and found != source.pin:
        raise NodeError(
            f"the content has SHA-256 {found}, not the pinned {source.pin}",
            where=KEY,
            remedy="somebody replaced the file: check it, then update the pin",
        )
    return data


def address(source: PemSource, config: Config) -> str:
    """The URL that will be asked; the host of it is for the plan. Empty for a file."""
    if source.kind == "gs":
        return object_url(source, config)
    if source.kind == "secret":
        return secretmanager.url(source.location, config)
    return source.location if source.kind == "url" else ""


def object_url(source: PemSource, config: Config) -> str:
    """The REST address of a gs:// object; the endpoint follows the universe domain."""
    bucket, _, name = source.location[len("gs://") :].partition("/")
    base = config.raw.get("airlock-storage-endpoint") or f"https://storage.{config.universe_domain}"
    return f"{base.rstrip('/')}/storage/v1/b/{bucket}/o/{quote(name, safe='')}?alt=media"


def _pin(fragment: str) -> Optional[str]:
    if not fragment:
        return None
    if not re.fullmatch(r"sha256=[0-9a-fA-F]{64}", fragment):
        raise ConfigError("the part after # is not sha256= and 64 hex digits", where=KEY)
    return fragment[len("sha256=") :].lower()


def _object(source: PemSource, config: Config) -> bytes:
    token = metadata.access_token(config.metadata_server)
    # Without a service account the object may still be public.
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return fetch(object_url(source, config), config, headers, pinned=source.pin is not None)
