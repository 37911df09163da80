"""What every place of a signing key gives: a certificate, and raw signatures that fit it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from fixtures.pki import Identity
from fixtures.signer import SigningRefused
from harness.errors import AirlockError, UsageError
from installers import cms, modsig
from installers.asn1 import Certificate, DERError, load_certificate
from installers.signed import modulus_md5

_PROBE = b"airlock: does this key belong to this certificate?"


class Backend(ABC):
    """One key. ``where`` names it for people and holds no secret."""

    def __init__(self, where: str, certificate: Certificate) -> None:
        self.where = where
        self.certificate = certificate

    @abstractmethod
    def raw(self, data: bytes) -> bytes:
        """The RSA signature (PKCS#1 v1.5, SHA-256) over ``data``. Raises AirlockError."""

    def close(self) -> None:  # noqa: B027 - a key in memory needs nothing
        """Give up what the key is held by."""


class Key:
    """A checked key, as the signing server and ``airlock keys`` use it (a fixtures.ModuleKey)."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.certificate = backend.certificate

    @property
    def der(self) -> bytes:
        """The certificate in DER."""
        return self.certificate.der

    @property
    def sha256(self) -> str:
        """The certificate's fingerprint, lower-case hex."""
        return self.certificate.sha256

    def cms(self, data: bytes) -> bytes:
        """A detached CMS over ``data``; SigningRefused when the key's place does not give it."""
        try:
            return cms.detached(self.certificate, self.backend.raw(data))
        except AirlockError as error:
            raise SigningRefused(error.message, in_step=True) from error

    def sign(self, name: str, module: bytes) -> tuple[bytes, str]:
        """The same for ``installers.signfile``: (CMS, fingerprint)."""
        del name
        return self.cms(module), self.sha256


@dataclass(frozen=True)
class OneKey:
    """What a signing server serves (fixtures.signer.Keys) where there is no stranger to compare."""

    module: Key

    @property
    def stranger(self) -> Identity:
        """There is none: only the lab makes signatures that must be refused."""
        raise UsageError("this signer has no stranger")


def certificate_of(data: bytes, where: str) -> Certificate:
    """The one certificate in ``data`` (DER or PEM). UsageError when there is not exactly one."""
    try:
        return load_certificate(data)
    except DERError as error:
        raise UsageError(f"{where}: no certificate: {error}") from error


def checked(backend: Backend, fingerprint: str = "") -> Key:
    """A key whose signature verifies with its certificate, which is the expected one.

    ``fingerprint``: SHA-256 of the certificate, or MD5 of the modulus as today's metadata has it;
    empty: any. Raises UsageError.
    """
    certificate = backend.certificate
    expected = fingerprint.replace(":", "").lower()
    found = modulus_md5(certificate) if len(expected) == 32 else certificate.sha256
    if expected and expected != found:
        raise UsageError(
            f"{backend.where}: the certificate is {found}, not the expected {expected}",
            hint="name the key that the images trust, or correct the expected fingerprint",
        )
    if certificate.key_type != "rsa" or (certificate.key_bits or 0) < 2048:
        raise UsageError(f"{backend.where}: kernels take RSA keys of 2048 bits or more")
    signer = modsig.read_cms(cms.detached(certificate, backend.raw(_PROBE)))
    if not modsig.verify(_PROBE, signer, certificate):
        raise UsageError(
            f"{backend.where}: the private key is not that of the certificate "
            f"({certificate.subject_cn})",
            hint="name a key and its own certificate",
        )
    return Key(backend)
