"""An RSA private key in memory: for the weaker choice, where the node itself signs.

The key is never written anywhere, not even to memory-backed files, which is why no program is asked
to sign. Python's arithmetic is not of constant time: who can measure it is on the node already.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass, field

from installers import asn1, cms
from installers.asn1 import Certificate, DERError

_PEM = re.compile(rb"-----BEGIN ([A-Z ]*PRIVATE KEY)-----(.*?)-----END \1-----", re.DOTALL)
_RSA = "1.2.840.113549.1.1.1"


class BadKey(ValueError):
    """The bytes are not a private key that can be used; the text names why and holds none of it."""


@dataclass(frozen=True)
class PrivateKey:
    """RFC 8017's RSAPrivateKey. Nothing of it is ever shown."""

    n: int
    e: int
    d: int = field(repr=False)
    p: int = field(repr=False)
    q: int = field(repr=False)

    def sign(self, data: bytes) -> bytes:
        """The raw PKCS#1 v1.5 signature with SHA-256 over ``data``.

        Raises BadKey when the result does not verify: a fault must not leak the key.
        """
        width = (self.n.bit_length() + 7) // 8
        info = cms.digest_info(data)
        block = b"\x00\x01" + b"\xff" * (width - len(info) - 3) + b"\x00" + info
        message = int.from_bytes(block, "big")
        first = pow(message, self.d % (self.p - 1), self.p)
        second = pow(message, self.d % (self.q - 1), self.q)
        signed = second + self.q * ((first - second) * pow(self.q, -1, self.p) % self.p)
        if pow(signed, self.e, self.n) != message:
            raise BadKey("the key's parts do not belong together")
        return signed.to_bytes(width, "big")

    def belongs_to(self, certificate: Certificate) -> bool:
        """Whether the certificate vouches for this key."""
        return (certificate.rsa_n, certificate.rsa_e) == (self.n, self.e)


def load(pem: bytes) -> PrivateKey:
    """The one RSA key of a PEM file (PKCS#8 or PKCS#1, not encrypted). Raises BadKey."""
    blocks = _PEM.findall(pem)
    if len(blocks) != 1:
        raise BadKey(f"{len(blocks)} private keys in PEM instead of one")
    kind, text = blocks[0]
    if b"ENCRYPTED" in kind or b"Proc-Type" in text:
        raise BadKey("the private key is encrypted; give it without a passphrase")
    try:
        return _read(kind, base64.b64decode(b"".join(text.split()), validate=True))
    except (binascii.Error, DERError):
        raise BadKey("the private key is damaged") from None


def _read(kind: bytes, der: bytes) -> PrivateKey:
    node = asn1.parse(der)
    if kind == b"PRIVATE KEY":
        _, algorithm, wrapped = asn1.fields(node, 3)
        if asn1.fields(algorithm, 1)[0].oid() != _RSA:
            raise BadKey("the private key is not RSA")
        node = asn1.parse(wrapped.expect(asn1.OCTET_STRING).value)
    elif kind != b"RSA PRIVATE KEY":
        raise BadKey("the private key is not RSA")
    numbers = [part.integer() for part in asn1.fields(node, 9)]
    version, n, e, d, p, q = numbers[:6]
    if version != 0 or p * q != n or min(numbers[1:6]) <= 1:
        raise BadKey("the key's parts do not belong together")
    return PrivateKey(n, e, d, p, q)
