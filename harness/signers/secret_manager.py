"""A key in Google's Secret Manager, read by the machine that signs and never by a node."""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Callable
from typing import Any, TypeVar

from harness.errors import InfraError, UsageError
from harness.signers.base import Backend, certificate_of
from installers import rsakey

#: Another endpoint: private access, or a double. A URL; with http there are no credentials.
ENDPOINT = "AIRLOCK_SECRETS_ENDPOINT"
_VERSION = re.compile(r"projects/[\w:.-]+/secrets/[\w-]+/versions/(\S+)")
_T = TypeVar("_T")


class SecretManagerKey(Backend):
    """``secret-manager:projects/P/secrets/S/versions/N?certificate=projects/.../versions/N``."""

    def __init__(self, private: str, public: str) -> None:
        where = f"secret-manager:{private}"
        secrets = Secrets()
        try:
            self._key = rsakey.load(secrets.read(private))
        except rsakey.BadKey as error:
            raise UsageError(f"{where}: {error}") from None
        content = secrets.read(public)
        if content[:1] != b"\x30" and b"-----BEGIN" not in content:
            try:  # today's helper stores base64 of DER
                content = base64.b64decode(b"".join(content.split()), validate=True)
            except ValueError as error:
                raise UsageError(f"{public}: no certificate: {error}") from error
        super().__init__(where, certificate_of(content, public))

    def raw(self, data: bytes) -> bytes:
        """Signed in this process, with the key in its memory."""
        try:
            return self._key.sign(data)
        except rsakey.BadKey as error:
            raise UsageError(f"{self.where}: {error}") from None


class Secrets:
    """Google's client for versions of secrets. The library is asked for when it is needed."""

    def __init__(self) -> None:
        try:
            from google.cloud import secretmanager_v1
        except ImportError as error:
            raise InfraError(
                "google-cloud-secret-manager is not installed", hint="pip install gpu-airlock[gcp]"
            ) from error
        self._client: Any = secretmanager_v1.SecretManagerServiceClient(**_transport())

    def read(self, name: str) -> bytes:
        """The content of one fixed version, checked against its CRC32C.

        Raises UsageError for a name without a fixed version, InfraError for everything else.
        """
        found = _VERSION.fullmatch(name)
        if not found or not found[1].isdigit():
            raise UsageError(
                f"{name}: is not projects/P/secrets/S/versions/NUMBER",
                hint="latest and its like would change the key unseen: give a number",
            )
        payload = self._call(name, lambda: self._client.access_secret_version(name=name)).payload
        self._check(name, bytes(payload.data), int(payload.data_crc32c))
        return bytes(payload.data)

    def store(self, secret: str, data: bytes) -> str:
        """A new version of ``projects/P/secrets/S``, made if missing; the version's name."""
        import google_crc32c

        parent, _, short = secret.partition("/secrets/")
        known = self._exists(secret)
        if not known:
            new: dict[str, Any] = {"parent": parent, "secret_id": short}
            new["secret"] = {"replication": {"automatic": {}}}
            self._call(secret, lambda: self._client.create_secret(request=new))
        payload = {"data": data, "data_crc32c": google_crc32c.value(data)}
        version = {"parent": secret, "payload": payload}
        made = self._call(secret, lambda: self._client.add_secret_version(request=version))
        return str(made.name)

    def _exists(self, secret: str) -> bool:
        from google.api_core import exceptions

        try:
            self._client.get_secret(name=secret)
        except exceptions.NotFound:
            return False
        except exceptions.GoogleAPICallError as error:
            raise InfraError(f"{secret}: {error.message}") from error
        return True

    def _call(self, name: str, ask: Callable[[], _T]) -> _T:
        from google.api_core import exceptions
        from google.auth import exceptions as auth

        try:
            return ask()
        except exceptions.GoogleAPICallError as error:
            raise InfraError(f"{name}: {error.message}") from error
        except auth.GoogleAuthError as error:
            raise InfraError(
                f"{name}: {error}", hint="gcloud auth application-default login"
            ) from error

    @staticmethod
    def _check(name: str, data: bytes, stated: int) -> None:
        import google_crc32c

        if google_crc32c.value(data) != stated:
            raise InfraError(f"{name}: arrived damaged: its CRC32C is another one")


def _transport() -> dict[str, Any]:
    """Arguments of the client: Google's own endpoint, or the one in the environment."""
    endpoint = os.environ.get(ENDPOINT, "")
    if not endpoint:
        return {}
    scheme, _, place = endpoint.rstrip("/").partition("://")
    if scheme not in ("http", "https") or not place:
        raise UsageError(f"{ENDPOINT}: {endpoint!r} is not a URL")
    if scheme == "https":
        return {"client_options": {"api_endpoint": place}}
    from google.auth.credentials import AnonymousCredentials
    from google.cloud.secretmanager_v1.services.secret_manager_service import transports

    rest = transports.SecretManagerServiceRestTransport
    credentials = AnonymousCredentials()  # type: ignore[no-untyped-call]
    return {"transport": rest(host=place, url_scheme="http", credentials=credentials)}
