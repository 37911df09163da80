"""Modules and certificates that the driver's tests share; everything is made by real code."""

from __future__ import annotations

import datetime as dt
import struct
from collections.abc import Iterable
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import pkcs7
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fixtures.pki import Identity

DETACHED = (pkcs7.PKCS7Options.DetachedSignature, pkcs7.PKCS7Options.Binary)
KERNEL_STYLE = (*DETACHED, pkcs7.PKCS7Options.NoAttributes, pkcs7.PKCS7Options.NoCerts)


def module(fields: dict[str, str], *, order: str = "<", bits: int = 64) -> bytes:
    """A relocatable ELF file with a ``.modinfo`` section, laid out as ld lays out a ``.ko``."""
    info = b"".join(f"{key}={value}\0".encode() for key, value in fields.items())
    names = b"\0.modinfo\0.shstrtab\0.bss\0"
    wide = bits == 64
    start = 64 if wide else 52
    names_at = start + len(info)
    table = (names_at + len(names) + 7) // 8 * 8
    rows = [
        (0, 0, 0, 0),
        (names.index(b".modinfo"), 1, start, len(info)),
        (names.index(b".shstrtab"), 3, names_at, len(names)),
        (names.index(b".bss"), 8, table, 1 << 20),  # NOBITS: takes no room in the file
    ]
    row = order + ("IIQQQQIIQQ" if wide else "IIIIIIIIII")
    ident = b"\x7fELF" + bytes([2 if wide else 1, 1 if order == "<" else 2, 1]) + bytes(9)
    head = ident + struct.pack(
        order + ("HHIQQQIHHHHHH" if wide else "HHIIIIIHHHHHH"),
        *(1, 62, 1, 0, 0, table, 0, start, 0, 0, struct.calcsize(row), len(rows), 2),
    )
    body = (head + info + names).ljust(table, b"\0")
    return body + b"".join(struct.pack(row, n, t, 0, 0, o, s, 0, 0, 1, 0) for n, t, o, s in rows)


def certificate(
    key: Any,
    *,
    name: str = "Test signing",
    issuer: str | None = None,
    days: tuple[int, int] = (-1, 365),
    purposes: Iterable[x509.ObjectIdentifier] | None = (ExtendedKeyUsageOID.CODE_SIGNING,),
    ca: bool | None = False,
    serial: int | None = None,
) -> x509.Certificate:
    """A self-signed certificate (``issuer`` only changes the name that is written)."""

    def common_name(text: str) -> x509.Name:
        return x509.Name(
            [
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Prüfstelle"),
                x509.NameAttribute(NameOID.COMMON_NAME, text),
            ]
        )

    now = dt.datetime.now(dt.UTC).replace(microsecond=0)
    builder = x509.CertificateBuilder(
        subject_name=common_name(name),
        issuer_name=common_name(issuer or name),
        public_key=key.public_key(),
        serial_number=serial or x509.random_serial_number(),
        not_valid_before=now + dt.timedelta(days=days[0]),
        not_valid_after=now + dt.timedelta(days=days[1]),
    ).add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    if ca is not None:
        builder = builder.add_extension(x509.BasicConstraints(ca, None), critical=True)
    if purposes is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
    return builder.sign(key, hashes.SHA256())


def identity(bits: int = 2048, **options: Any) -> Identity:
    """An RSA key and a certificate for it."""
    key = rsa.generate_private_key(65537, bits)
    return Identity(key, certificate(key, **options))


def ec_identity(**options: Any) -> Identity:
    """The same with an EC key, which modules are not signed with."""
    key = ec.generate_private_key(ec.SECP384R1())
    return Identity(key, certificate(key, **options))


def sign(
    who: Identity,
    data: bytes,
    options: Iterable[pkcs7.PKCS7Options] = KERNEL_STYLE,
    digest: hashes.HashAlgorithm | None = None,
) -> bytes:
    """A detached CMS over ``data``, as the signing authority makes them."""
    builder = pkcs7.PKCS7SignatureBuilder().set_data(data)
    builder = builder.add_signer(who.cert, who.key, digest or hashes.SHA256())  # type: ignore[arg-type]
    return builder.sign(serialization.Encoding.DER, list(options))
