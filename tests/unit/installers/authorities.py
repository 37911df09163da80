"""Certificates for tests, good and bad, made with the real thing."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, rsa
from cryptography.x509.oid import NameOID

Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | dsa.DSAPrivateKey
NOW = dt.datetime(2030, 6, 1, tzinfo=dt.UTC)
DAY = dt.timedelta(days=1)


@dataclass(frozen=True)
class Made:
    """A certificate's PEM, its fingerprint (hex) and its key as PEM."""

    pem: bytes
    sha256: str
    key_pem: bytes


def make(
    name: str = "Lab proxy CA",
    *,
    key: Key | None = None,
    ca: bool | None = True,
    key_usage: str | None = "keyCertSign",
    start: dt.datetime = NOW - DAY,
    end: dt.datetime = NOW + 365 * DAY,
    san: str | None = None,
) -> Made:
    """A self-signed certificate. ``key_usage`` None leaves the extension out, as does ``ca``."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
    )
    if ca is not None:
        builder = builder.add_extension(x509.BasicConstraints(ca, None), critical=True)
    if san is not None:
        builder = builder.add_extension(
            x509.SubjectAlternativeName([x509.DNSName(san)]), critical=False
        )
    if key_usage is not None:
        sign = key_usage == "keyCertSign"
        usage = x509.KeyUsage(not sign, False, False, False, False, sign, False, False, False)
        builder = builder.add_extension(usage, critical=True)
    certificate = builder.sign(key, hashes.SHA256())
    return Made(
        certificate.public_bytes(serialization.Encoding.PEM),
        certificate.fingerprint(hashes.SHA256()).hex(),
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
    )
