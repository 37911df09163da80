"""Appended signatures of kernel modules: find, read, verify, attach.

Layout (include/linux/module_signature.h): module, CMS in DER, 12-byte trailer, magic. The kernel
reads the last signature only, so a module that was signed twice carries one nobody checks:
``split`` returns them all. Which certificate signed is decided by issuer and serial number or by
the subject key identifier, as the kernel decides it, never by a name.
"""

from __future__ import annotations

import gzip
import hashlib
import lzma
import shutil
import struct
import subprocess
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from installers import asn1
from installers.asn1 import Certificate, DERError, Node

MAGIC = b"~Module signature appended~\n"
SUFFIXES = (".ko", ".ko.xz", ".ko.zst", ".ko.gz")
# algo, hash, id_type, signer_len, key_id_len, 3 bytes of padding, sig_len
_TRAILER = struct.Struct(">BBBBB3xI")
_ID_PKCS7 = 2

_SIGNED_DATA, _DATA = "1.2.840.113549.1.7.2", "1.2.840.113549.1.7.1"
_CONTENT_TYPE, _MESSAGE_DIGEST = "1.2.840.113549.1.9.3", "1.2.840.113549.1.9.4"
# OID -> (name for hashlib, DigestInfo prefix of RFC 8017 9.2)
_DIGESTS = {
    "1.3.14.3.2.26": ("sha1", "3021300906052b0e03021a05000414"),
    "2.16.840.1.101.3.4.2.1": ("sha256", "3031300d060960864801650304020105000420"),
    "2.16.840.1.101.3.4.2.2": ("sha384", "3041300d060960864801650304020205000430"),
    "2.16.840.1.101.3.4.2.3": ("sha512", "3051300d060960864801650304020305000440"),
    "2.16.840.1.101.3.4.2.4": ("sha224", "302d300d06096086480165030402040500041c"),
}
_PREFIX = dict(_DIGESTS.values())


class SignatureError(ValueError):
    """A module or its signature cannot be read; the message names what is wrong."""


class Undecodable(SignatureError):
    """The module is compressed in a way that this machine has no program for."""


@dataclass(frozen=True)
class Split:
    """A module without its signatures, and each appended CMS, the last one (the kernel's) first."""

    body: bytes
    signatures: list[bytes]


@dataclass(frozen=True)
class SignerInfo:
    """The one signer of a module's CMS: by (issuer, serial) or by ski, the others are None."""

    issuer: Optional[bytes]  # the Name, as encoded
    issuer_cn: Optional[str]
    serial: Optional[int]
    ski: Optional[bytes]
    digest: str  # a hashlib name
    attributes: Optional[bytes]  # signed attributes as a SET, as they are hashed
    message_digest: Optional[bytes]  # from the signed attributes
    signature: bytes

    def made_by(self, certificate: Certificate) -> bool:
        """Whether the signer is the holder of this certificate, going by what the CMS says."""
        if self.ski is not None:
            return certificate.ski == self.ski
        return (certificate.issuer, certificate.serial) == (self.issuer, self.serial)


def read_module(path: Path) -> bytes:
    """The uncompressed bytes of ``.ko``, ``.ko.xz``, ``.ko.zst`` or ``.ko.gz``.

    Raises Undecodable when there is no ``zstd`` program, SignatureError when the file is damaged.
    """
    data = path.read_bytes()
    try:
        if path.suffix == ".xz":
            return lzma.decompress(data)
        if path.suffix == ".gz":
            return gzip.decompress(data)
    except (lzma.LZMAError, EOFError, OSError, zlib.error) as wrong:
        raise SignatureError(f"{path.name} is damaged: {wrong}") from wrong
    if path.suffix != ".zst":
        return data
    zstd = shutil.which("zstd")
    if zstd is None:
        raise Undecodable(
            f"{path.name} is compressed with zstd; install the package zstd to read it"
        )
    unpacked = subprocess.run([zstd, "-dcq"], input=data, capture_output=True, check=False)
    if unpacked.returncode:
        raise SignatureError(f"{path.name} is damaged: {unpacked.stderr.decode(errors='replace')}")
    return unpacked.stdout


def split(data: bytes) -> Split:
    """Take every appended signature off an uncompressed module.

    Raises SignatureError when one is damaged.
    """
    signatures = []
    while data.endswith(MAGIC):
        end = len(data) - len(MAGIC) - _TRAILER.size
        if end < 0:
            raise SignatureError("the signature's trailer is cut off")
        algo, digest, kind, signer, key_id, size = _TRAILER.unpack_from(data, end)
        if (algo, digest, kind, signer, key_id) != (0, 0, _ID_PKCS7, 0, 0):
            raise SignatureError("the signature's trailer is not that of a PKCS#7 signature")
        if not 0 < size <= end:
            raise SignatureError("the signature's trailer states a size the file does not have")
        signatures.append(data[end - size : end])
        data = data[: end - size]
    return Split(data, signatures)


def attach(body: bytes, cms: bytes) -> bytes:
    """The module with one signature appended; SignatureError when it has one already."""
    if body.endswith(MAGIC):
        raise SignatureError(
            "the module is signed already; a second signature would hide the first"
        )
    return body + cms + _TRAILER.pack(0, 0, _ID_PKCS7, 0, 0, len(cms)) + MAGIC


def read_cms(cms: bytes) -> SignerInfo:
    """The signer of a detached CMS SignedData (RFC 5652) in DER, as the kernel accepts them.

    Raises SignatureError for anything else: content inside, no or several signers.
    """
    try:
        return _read_cms(cms)
    except DERError as wrong:
        raise SignatureError(f"the signature is not a CMS SignedData: {wrong}") from wrong


def _read_cms(cms: bytes) -> SignerInfo:
    kind, content = asn1.fields(asn1.parse(cms), 2)
    if kind.oid() != _SIGNED_DATA:
        raise SignatureError("the CMS is not SignedData")
    signed = asn1.fields(asn1.parse(content.expect(0xA0).value), 4)
    inner = asn1.fields(signed[2], 1)
    if inner[0].oid() != _DATA:
        raise SignatureError("the CMS signs something else than plain data")
    if len(signed[2].children()) != 1:
        raise SignatureError("the CMS holds its content; the kernel wants it detached")
    signers = asn1.parse(content.value).children()[-1].expect(asn1.SET).children()
    if len(signers) != 1:
        raise SignatureError(f"the CMS has {len(signers)} signers instead of one")
    parts = asn1.fields(signers[0], 5)
    sid, digest_algorithm = parts[1], asn1.fields(parts[2], 1)[0].oid()
    if digest_algorithm not in _DIGESTS:
        raise SignatureError(f"unknown digest algorithm {digest_algorithm}")
    attributes, message_digest, rest = None, None, signers[0].children()[3:]
    if rest[0].tag == 0xA0:
        attributes = b"\x31" + rest[0].raw[1:]  # RFC 5652 5.4: hashed as a SET OF
        message_digest = _message_digest(rest[0])
        rest = rest[1:]
    if len(rest) < 2:
        raise SignatureError("the signer holds no signature")
    issuer = serial = ski = name = None
    if sid.tag == 0x80:
        ski = sid.value
    else:
        issuer_name, number = asn1.fields(sid, 2)
        issuer, serial, name = issuer_name.raw, number.integer(), asn1.common_name(issuer_name)
    return SignerInfo(
        issuer=issuer,
        issuer_cn=name,
        serial=serial,
        ski=ski,
        digest=_DIGESTS[digest_algorithm][0],
        attributes=attributes,
        message_digest=message_digest,
        signature=rest[1].expect(asn1.OCTET_STRING).value,
    )


def _message_digest(attributes: Node) -> bytes:
    """The messageDigest among signed attributes, which must name plain data as their content."""
    found: dict[str, Node] = {}
    for attribute in attributes.children():
        kind, values = asn1.fields(attribute, 2)
        inner = values.expect(asn1.SET).children()
        if kind.oid() in found or len(inner) != 1:
            raise SignatureError("a signed attribute occurs twice or without one value")
        found[kind.oid()] = inner[0]
    if _MESSAGE_DIGEST not in found or _CONTENT_TYPE not in found:
        raise SignatureError("the signed attributes lack messageDigest or contentType")
    if found[_CONTENT_TYPE].oid() != _DATA:
        raise SignatureError("the signed attributes name another content type")
    return found[_MESSAGE_DIGEST].expect(asn1.OCTET_STRING).value


def digest_prefix(name: str) -> bytes:
    """What stands before a digest in a DigestInfo (RFC 8017 9.2); ``name`` as hashlib has it."""
    return bytes.fromhex(_PREFIX[name])


def verify(body: bytes, signer: SignerInfo, certificate: Certificate) -> bool:
    """Whether the RSA signature (PKCS#1 v1.5) over ``body`` is this certificate's key's.

    Says nothing about who the certificate belongs to. SignatureError when the key is not RSA.
    """
    n, e = certificate.rsa_n, certificate.rsa_e
    if n is None or e is None:
        raise SignatureError(f"cannot verify with a key of type {certificate.key_type}")
    digest = hashlib.new(signer.digest, body).digest()
    if signer.attributes is not None:
        if digest != signer.message_digest:
            return False
        digest = hashlib.new(signer.digest, signer.attributes).digest()
    width = (n.bit_length() + 7) // 8
    value = int.from_bytes(signer.signature, "big")
    if len(signer.signature) != width or value >= n:
        return False
    info = digest_prefix(signer.digest) + digest
    # The whole block is compared, so no padding trick leaves room for another value.
    expected = b"\x00\x01" + b"\xff" * (width - len(info) - 3) + b"\x00" + info
    return pow(value, e, n).to_bytes(width, "big") == expected


@dataclass(frozen=True)
class Examined:
    """One module, its outermost signature, and which of the given certificates made it."""

    body: bytes
    signatures: int
    signer: Optional[SignerInfo]  # None: unsigned
    certificate: Optional[Certificate]  # the one that the signer names, if it was given
    digest_ok: Optional[bool]  # None: unsigned, or no certificate to verify with


def examine(data: bytes, certificates: Sequence[Certificate]) -> Examined:
    """Read the outermost signature of an uncompressed module and verify it if we can.

    Raises SignatureError when a signature is there and cannot be read.
    """
    parts = split(data)
    if not parts.signatures:
        return Examined(parts.body, 0, None, None, None)
    signer = read_cms(parts.signatures[0])
    known = next((c for c in certificates if signer.made_by(c)), None)
    verified = None
    if known is not None and known.rsa_n is not None:
        # What an outer signature covers includes the inner ones.
        covered = len(data) - len(parts.signatures[0]) - _TRAILER.size - len(MAGIC)
        verified = verify(data[:covered], signer, known)
    return Examined(parts.body, len(parts.signatures), signer, known, verified)
