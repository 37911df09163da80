"""``--key SPEC``: which key, in one word."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qsl

from harness.errors import UsageError
from harness.signers.base import Backend, Key, checked

FORMS = (
    "file:PATH[?certificate=PATH], "
    "secret-manager:projects/P/secrets/S/versions/N?certificate=projects/P/secrets/C/versions/N, "
    "pkcs11:token=T;object=LABEL?module-path=LIB&pin-source=FILE, "
    "remote:HOST:PORT?ca=FILE&identity=FILE"
)


@contextlib.contextmanager
def open_key(spec: str, fingerprint: str = "") -> Iterator[Key]:
    """The key that ``spec`` names, checked against its certificate and the expected fingerprint.

    Raises UsageError for what is written wrong or does not match, InfraError for what does not
    answer.
    """
    backend = _backend(spec)
    try:
        yield checked(backend, fingerprint)
    finally:
        backend.close()


def _backend(spec: str) -> Backend:
    kind, colon, rest = spec.partition(":")
    if not colon or not rest:
        raise UsageError(f"--key {spec}: names no key", hint=FORMS)
    if kind == "pkcs11":
        from harness.signers.pkcs11 import TokenKey

        return TokenKey(spec)
    place, _, text = rest.partition("?")
    if kind == "file":
        from harness.signers.file import FileKey

        query = _query(spec, text, optional=("certificate",))
        beside = Path(query["certificate"]) if query.get("certificate") else None
        return FileKey(Path(place), beside)
    if kind == "secret-manager":
        from harness.signers.secret_manager import SecretManagerKey

        return SecretManagerKey(place, _query(spec, text, "certificate")["certificate"])
    if kind == "remote":
        from harness.signers.remote import RemoteKey

        query = _query(spec, text, "ca", "identity")
        host, _, port = place.rpartition(":")
        if not host or not port.isdigit():
            raise UsageError(f"--key {spec}: is not HOST:PORT", hint=FORMS)
        return RemoteKey(host, int(port), Path(query["ca"]), Path(query["identity"]))
    raise UsageError(f"--key {spec}: there is no {kind!r}", hint=FORMS)


def _query(spec: str, text: str, *needed: str, optional: tuple[str, ...] = ()) -> dict[str, str]:
    found = dict(parse_qsl(text))
    for name in needed:
        if name not in found:
            raise UsageError(f"--key {spec.partition('?')[0]}: needs {name}=", hint=FORMS)
    unknown = sorted(set(found) - {*needed, *optional})
    if unknown:
        raise UsageError(f"--key {spec.partition('?')[0]}: does not know {', '.join(unknown)}")
    return found
