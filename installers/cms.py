"""Writes what ``modsig`` reads: a detached CMS with one RSA signer and nothing around it.

The structure is that of the kernel's own ``scripts/sign-file`` (RFC 5652, no attributes, no
certificates), so that whoever holds a key - a file, a token, a service - only has to give the raw
RSA signature over ``digest_info``.
"""

from __future__ import annotations

import hashlib

from installers import asn1, modsig
from installers.asn1 import Certificate

DIGEST = "sha256"
_SIGNED_DATA, _DATA = "1.2.840.113549.1.7.2", "1.2.840.113549.1.7.1"
_RSA, _SHA256 = "1.2.840.113549.1.1.1", "2.16.840.1.101.3.4.2.1"
_NULL = bytes([asn1.NULL, 0])


def element(tag: int, *parts: bytes) -> bytes:
    """One DER element with the given content."""
    body = b"".join(parts)
    if len(body) < 0x80:
        return bytes([tag, len(body)]) + body
    size = len(body).to_bytes((len(body).bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(size)]) + size + body


def integer(value: int) -> bytes:
    """An INTEGER in its shortest form."""
    return element(asn1.INTEGER, value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True))


def oid(dotted: str) -> bytes:
    """An OBJECT IDENTIFIER."""
    arcs = [int(arc) for arc in dotted.split(".")]
    body = b""
    for arc in [arcs[0] * 40 + arcs[1], *arcs[2:]]:
        groups = [arc & 0x7F]
        while arc > 0x7F:
            arc >>= 7
            groups.append(0x80 | (arc & 0x7F))
        body += bytes(reversed(groups))
    return element(asn1.OID, body)


def digest_info(data: bytes) -> bytes:
    """What an RSA key signs for ``data`` (PKCS#1 v1.5, before padding): DigestInfo with SHA-256."""
    return modsig.digest_prefix(DIGEST) + hashlib.new(DIGEST, data).digest()


def detached(certificate: Certificate, signature: bytes) -> bytes:
    """The CMS in DER for a raw RSA signature (PKCS#1 v1.5, SHA-256) by the certificate's key."""
    algorithm = element(asn1.SEQUENCE, oid(_SHA256), _NULL)
    signer = element(
        asn1.SEQUENCE,
        integer(1),
        element(asn1.SEQUENCE, certificate.issuer, integer(certificate.serial)),
        algorithm,
        element(asn1.SEQUENCE, oid(_RSA), _NULL),
        element(asn1.OCTET_STRING, signature),
    )
    signed = element(
        asn1.SEQUENCE,
        integer(1),
        element(asn1.SET, algorithm),
        element(asn1.SEQUENCE, oid(_DATA)),
        element(asn1.SET, signer),
    )
    return element(asn1.SEQUENCE, oid(_SIGNED_DATA), element(0xA0, signed))
