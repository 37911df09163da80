"""Who signs a module: the socket's client, and what a certificate must be.

Behind the socket the private key stays on the control side. Protocol: a client sends one line of
JSON and, for ``sign``, the stripped module's bytes; the answer is one line of JSON and ``size``
bytes (a DER certificate, or a detached CMS in DER). One connection serves several requests.
"""

from __future__ import annotations

import hashlib
import json
import socket
import time
from datetime import datetime, timezone
from typing import Any, Optional, Protocol

from installers import asn1
from installers.asn1 import Certificate, DERError
from installers.errors import NodeError
from installers.exits import Exit

_MAX_LINE = 64 * 1024
_MAX_ANSWER = 1024 * 1024  # certificates and signatures have a few kilobytes


class SigningError(NodeError):
    """The signer cannot be reached, refused, or answered something else than the protocol."""

    exit = Exit.UNKNOWN


class ModuleSigner(Protocol):
    """What the driver asks for signatures: a socket's client, or a key on this node."""

    def certificate(self) -> Certificate:
        """The certificate whose key signs."""

    def sign(self, name: str, module: bytes) -> tuple[bytes, str]:
        """(detached CMS in DER, fingerprint of the certificate) for one stripped module."""


class Signer:
    """An open connection to the signing socket; use it as a context manager.

    ``timeout`` is the number of seconds one request may take in all. ``connection`` is used where
    the signer is not on a unix socket; ``path`` is then its name in messages.
    """

    def __init__(
        self, path: str, timeout: float = 120.0, connection: Optional[socket.socket] = None
    ) -> None:
        self._path = path
        self._timeout = timeout
        self._buffer = b""
        if connection is not None:
            self._socket = connection
            return
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.settimeout(timeout)
            self._socket.connect(path)
        except OSError as wrong:
            self._socket.close()
            raise SigningError(f"the signing socket {path} does not answer: {wrong}") from wrong

    def __enter__(self) -> Signer:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def certificate(self) -> Certificate:
        """The certificate whose key signs, checked against the fingerprint the signer states."""
        answer, der = self._ask({"op": "certificate"}, b"")
        try:
            found = asn1.read_certificate(der)
        except DERError as wrong:
            raise SigningError(f"the signer's certificate cannot be read: {wrong}") from wrong
        if answer.get("fingerprint") != found.sha256:
            raise SigningError("the signer's certificate has another fingerprint than it states")
        return found

    def sign(self, name: str, module: bytes) -> tuple[bytes, str]:
        """(detached CMS in DER, fingerprint of the certificate) for one stripped module."""
        digest = hashlib.sha256(module).hexdigest()
        request = {"op": "sign", "name": name, "sha256": digest, "size": len(module)}
        answer, cms = self._ask(request, module)
        return cms, str(answer.get("fingerprint"))

    def _ask(self, request: dict[str, Any], payload: bytes) -> tuple[dict[str, Any], bytes]:
        """One request and its whole answer."""
        deadline = time.monotonic() + self._timeout
        try:
            self._socket.settimeout(self._timeout)
            self._socket.sendall(json.dumps(request).encode() + b"\n" + payload)
            while b"\n" not in self._buffer:
                if len(self._buffer) > _MAX_LINE:
                    raise SigningError("the signer's answer has no end of line")
                self._receive(deadline)
            line, _, self._buffer = self._buffer.partition(b"\n")
            answer = self._header(line)
            size = answer.get("size")
            if not isinstance(size, int) or not 0 < size <= _MAX_ANSWER:
                raise SigningError(f"the signer states a size of {size!r}")
            while len(self._buffer) < size:
                self._receive(deadline)
        except OSError as wrong:
            raise SigningError(f"the signing socket {self._path} failed: {wrong}") from wrong
        body, self._buffer = self._buffer[:size], self._buffer[size:]
        return answer, body

    def _header(self, line: bytes) -> dict[str, Any]:
        """The JSON line of an answer; SigningError with the signer's words when it refuses."""
        try:
            answer = json.loads(line)
        except ValueError as wrong:
            raise SigningError(f"the signer's answer is not JSON: {line[:80]!r}") from wrong
        if not isinstance(answer, dict):
            raise SigningError("the signer's answer is not an object")
        if answer.get("ok") is not True:
            raise SigningError(f"the signer refuses: {answer.get('error', 'no reason given')}")
        return answer

    def _receive(self, deadline: float) -> None:
        """Add what arrives to the buffer; SigningError at the deadline or when the peer is gone."""
        left = deadline - time.monotonic()
        if left <= 0:
            raise SigningError(f"the signer did not answer within {self._timeout:.0f} s")
        self._socket.settimeout(left)
        arrived = self._socket.recv(65536)
        if not arrived:
            raise SigningError("the signer closed the connection in the middle of an answer")
        self._buffer += arrived


def reasons_against(
    certificate: Certificate, now: Optional[datetime] = None, *, any_purpose: bool = False
) -> list[str]:
    """Why modules must not be signed with this certificate; an empty list when they may.

    Kernels with CONFIG_CHECK_CODESIGN_EKU want the codeSigning purpose, and firmware accepts RSA
    certificates widely, other keys seldom (UEFI 2.10, 32.4). ``any_purpose``: a certificate that
    names no purpose at all will do, as it does for all other kernels.
    """
    now = now or datetime.now(timezone.utc)  # noqa: UP017 - datetime.UTC needs 3.11
    found = []
    purposes = certificate.extended_key_usage
    if not (purposes is None and any_purpose) and asn1.EKU_CODE_SIGNING not in (purposes or ()):
        found.append("the extended key usage codeSigning is missing")
    if now > certificate.not_after:
        found.append(f"it expired at {certificate.not_after:%Y-%m-%d %H:%M} UTC")
    if now < certificate.not_before:
        found.append(f"it is not valid before {certificate.not_before:%Y-%m-%d %H:%M} UTC")
    if certificate.key_type != "rsa" or (certificate.key_bits or 0) < 2048:
        found.append(
            f"its key is {certificate.key_type} {certificate.key_bits}, not RSA-2048 or more"
        )
    return found
