"""A key in a PKCS#11 token (an HSM, a smart card, SoftHSM): it signs there and never leaves."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from harness.errors import InfraError, UsageError
from harness.signers.base import Backend, certificate_of
from harness.signers.file import read_private

MODULE = "AIRLOCK_PKCS11_MODULE"
PIN = "AIRLOCK_PKCS11_PIN"


class TokenKey(Backend):
    """An RFC 7512 URI: ``pkcs11:token=T;object=LABEL?module-path=LIB&pin-source=FILE``.

    The PIN comes from ``pin-source``'s file (0600) or AIRLOCK_PKCS11_PIN, never from the URI. The
    certificate is the token's object of the same label, or ``certificate=FILE``.
    """

    def __init__(self, uri: str) -> None:
        path, query = parse_uri(uri)
        where = uri.partition("?")[0]
        pkcs11 = _library()
        module = query.get("module-path") or os.environ.get(MODULE, "")
        if not module:
            raise UsageError(f"{where}: no module-path", hint=f"add it to the URI, or set {MODULE}")
        self._session: Any = None
        try:
            token = pkcs11.lib(module).get_token(token_label=path["token"])
            self._session = token.open(user_pin=_pin(query, where))
            attributes = {pkcs11.Attribute.LABEL: path["object"]}
            self._key = self._session.get_key(
                object_class=pkcs11.ObjectClass.PRIVATE_KEY, label=path["object"]
            )
            if "certificate" in query:
                held = Path(query["certificate"]).read_bytes()
            else:
                attributes[pkcs11.Attribute.CLASS] = pkcs11.ObjectClass.CERTIFICATE
                objects = list(self._session.get_objects(attributes))
                held = objects[0][pkcs11.Attribute.VALUE] if objects else b""
        except (pkcs11.PKCS11Error, RuntimeError, OSError) as error:
            self.close()
            raise InfraError(f"{where}: {_said(error)}") from error
        super().__init__(where, certificate_of(held, where))
        self._mechanism = pkcs11.Mechanism.SHA256_RSA_PKCS
        self._error = pkcs11.PKCS11Error

    def raw(self, data: bytes) -> bytes:
        """Signed by the token."""
        try:
            return bytes(self._key.sign(data, mechanism=self._mechanism))
        except self._error as error:
            raise InfraError(f"{self.where}: {_said(error)}") from error

    def close(self) -> None:
        """Log out."""
        if self._session is not None:
            self._session.close()


def parse_uri(uri: str) -> tuple[dict[str, str], dict[str, str]]:
    """(path attributes, query attributes) of a PKCS#11 URI. UsageError names what is wrong."""
    scheme, _, rest = uri.partition(":")
    if scheme != "pkcs11":
        raise UsageError(f"{uri}: is not a pkcs11: URI")
    where = uri.partition("?")[0]
    path_text, _, query_text = rest.partition("?")
    parts = []
    for text, separator in ((path_text, ";"), (query_text, "&")):
        found = {}
        for item in filter(None, text.split(separator)):
            name, equals, value = item.partition("=")
            if not equals:
                raise UsageError(f"{where}: {name!r} has no value")
            found[name] = unquote(value)
        parts.append(found)
    path, query = parts
    for name in ("token", "object"):
        if name not in path:
            raise UsageError(f"{where}: names no {name}", hint="pkcs11:token=T;object=LABEL")
    if "pin-value" in query:
        raise UsageError(
            f"{where}: a PIN in the URI is seen by everybody", hint=f"use pin-source=FILE or {PIN}"
        )
    unknown = sorted(set(query) - {"module-path", "pin-source", "certificate"})
    if unknown:
        raise UsageError(f"{where}: does not know {', '.join(unknown)}")
    return path, query


def _pin(query: dict[str, str], where: str) -> str:
    source = query.get("pin-source", "").removeprefix("file:")
    pin = read_private(Path(source)).decode().strip() if source else os.environ.get(PIN, "")
    if not pin:
        raise UsageError(f"{where}: no PIN", hint=f"add pin-source=FILE (0600), or set {PIN}")
    return pin


def _library() -> Any:
    try:
        import pkcs11
    except ImportError as error:
        raise InfraError(
            "python-pkcs11 is not installed", hint="pip install gpu-airlock[hsm]"
        ) from error
    return pkcs11


def _said(error: BaseException) -> str:
    """pkcs11's errors often have a name and no text."""
    return f"{type(error).__name__} {error}".strip()
