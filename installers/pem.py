"""Which certificates may become trusted on a node, and why another one may not."""

from __future__ import annotations

import base64
import hashlib
import re
from datetime import datetime, timezone
from typing import Optional

from installers import asn1, strict
from installers.errors import NodeError

_WHERE = "http-proxy-pem-uri"
_BLOCK = re.compile(
    rb"-----BEGIN ([A-Z0-9 ]+)-----[ \t\r]*\n([A-Za-z0-9+/=\s]*)-----END \1-----", re.ASCII
)
_MIN_RSA = 2048
# OpenSSL 3, GnuTLS and Go refuse SHA-1 and MD5 signatures; each of these is accepted by all.
_SIGNATURES = frozenset(
    f"{hash}WithRSAEncryption" for hash in ("sha256", "sha384", "sha512")
) | frozenset(f"ecdsa-with-{hash}" for hash in ("SHA256", "SHA384", "SHA512"))


def authorities(data: bytes, now: datetime) -> list[asn1.Certificate]:
    """Every certificate of a PEM file, each of them a CA that may be trusted at ``now`` (aware).

    Raises NodeError with what is wrong with which certificate.
    """
    blocks = [(kind.decode(), body) for kind, body in _BLOCK.findall(data)]
    if any("PRIVATE KEY" in kind for kind, _ in blocks) or b"PRIVATE KEY-----" in data:
        raise NodeError(
            "holds a private key",
            where=_WHERE,
            remedy="publish the certificate alone, and replace that key: it is no secret any more",
        )
    if data.count(b"-----BEGIN ") != len(blocks):
        raise NodeError("holds a damaged PEM block", where=_WHERE, remedy=_export())
    if not blocks:
        kind = "DER, not PEM" if data[:1] == b"\x30" else "no PEM certificate"
        raise NodeError(f"is {kind}", where=_WHERE, remedy=_export())
    found: dict[str, asn1.Certificate] = {}
    for number, (kind, body) in enumerate(blocks, 1):
        if kind not in ("CERTIFICATE", "X509 CERTIFICATE"):
            raise NodeError(f"block {number} is a {kind}", where=_WHERE, remedy=_export())
        try:
            certificate = asn1.read_certificate(base64.b64decode(body))
        except ValueError as error:
            raise NodeError(
                f"block {number} is not a certificate: {error}", where=_WHERE, remedy=_export()
            ) from None
        why = refusal(certificate, now)
        if why:
            what, remedy = why
            raise NodeError(
                f"certificate {number} ({name(certificate)}) {what}", where=_WHERE, remedy=remedy
            )
        found.setdefault(certificate.sha256, certificate)
    return list(found.values())


def refusal(certificate: asn1.Certificate, now: datetime) -> Optional[tuple[str, str]]:
    """``(what, remedy)`` why this certificate must not be trusted as a CA; None when it may."""
    if not certificate.is_ca:
        return (
            "is not a CA certificate",
            "give the certificate of the CA that signs for the proxy, not the proxy's own",
        )
    if certificate.key_usage is not None and "keyCertSign" not in certificate.key_usage:
        return "is not allowed to sign certificates", "make a CA with keyUsage keyCertSign"
    outside = validity(certificate, now)
    if outside:
        return outside
    if certificate.key_type == "rsa":
        if (certificate.key_bits or 0) < _MIN_RSA:
            return (
                f"has an RSA key of {certificate.key_bits} bits",
                f"make a CA with at least {_MIN_RSA} bits: OpenSSL refuses shorter ones",
            )
    elif certificate.key_type != "ec" or not certificate.key_bits:
        return (
            f"has a key of a kind that not every tool knows ({certificate.key_type})",
            "make a CA with an RSA key, or EC on P-256, P-384 or P-521",
        )
    if certificate.signature_algorithm not in _SIGNATURES:
        return (
            f"is signed with {certificate.signature_algorithm}",
            "make a CA that is signed with SHA-256 or better",
        )
    return None


def validity(certificate: asn1.Certificate, now: datetime) -> Optional[tuple[str, str]]:
    """``(what, remedy)`` when ``now`` lies outside the certificate's time; None otherwise."""
    if now < certificate.not_before:
        return (
            f"is not valid before {certificate.not_before:%Y-%m-%d %H:%M} UTC",
            f"check the clock of this node, it says {now:%Y-%m-%d %H:%M} UTC",
        )
    if now > certificate.not_after:
        return (
            f"expired on {certificate.not_after:%Y-%m-%d %H:%M} UTC",
            "publish the renewed certificate of the proxy's CA",
        )
    return None


def notes(certificate: asn1.Certificate) -> list[str]:
    """What a reader of the plan should know about a CA that is accepted."""
    return [
        f"CA {name(certificate)}: Python 3.13 and newer refuse it, {what}"
        for what in strict.violations(certificate)
    ]


def name(certificate: asn1.Certificate) -> str:
    """A short name for people."""
    return certificate.subject_cn or f"sha256 {certificate.sha256[:16]}"


def encode(certificate: asn1.Certificate) -> bytes:
    """One PEM block, 64 characters a line."""
    text = base64.b64encode(certificate.der).decode()
    lines = [text[at : at + 64] for at in range(0, len(text), 64)]
    whole = ["-----BEGIN CERTIFICATE-----", *lines, "-----END CERTIFICATE-----", ""]
    return "\n".join(whole).encode()


def fingerprints(bundle: bytes) -> set[str]:
    """SHA-256 fingerprints (hex) of the certificates in a bundle, readable or not to us."""
    found = set()
    for kind, body in _BLOCK.findall(bundle):
        if kind == b"CERTIFICATE":
            found.add(hashlib.sha256(base64.b64decode(body)).hexdigest())
    return found


def utc_now() -> datetime:
    """The node's clock."""
    return datetime.now(timezone.utc)  # noqa: UP017 - datetime.UTC came with 3.11


def _export() -> str:
    return "export the CA as PEM: openssl x509 -in CA -out ca.pem"
