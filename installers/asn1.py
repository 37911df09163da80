"""A strict DER reader, and what the installers need to know of an X.509 certificate.

Nodes have no ``cryptography`` package, and calling ``openssl`` would make the answer depend on its
version and locale. X.690 (DER) and RFC 5280 are small where certificates of ours are concerned.
Everything that is not DER is refused: a module signature or a CA certificate that only a lenient
parser understands would be read differently by the kernel.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Optional

INTEGER, BIT_STRING, OCTET_STRING, NULL, OID = 0x02, 0x03, 0x04, 0x05, 0x06
BOOLEAN, UTC_TIME, GENERALIZED_TIME, SEQUENCE, SET = 0x01, 0x17, 0x18, 0x30, 0x31

_OID_CN = "2.5.4.3"
_OID_RSA = "1.2.840.113549.1.1.1"
_OID_EC = "1.2.840.10045.2.1"
_EXT_SKI, _EXT_KEY_USAGE = "2.5.29.14", "2.5.29.15"
_EXT_BASIC_CONSTRAINTS, _EXT_EKU = "2.5.29.19", "2.5.29.37"
EKU_CODE_SIGNING = "1.3.6.1.5.5.7.3.3"

_CURVES = {
    "1.2.840.10045.3.1.7": ("secp256r1", 256),
    "1.3.132.0.34": ("secp384r1", 384),
    "1.3.132.0.35": ("secp521r1", 521),
}
_SIGNATURES = {
    "1.2.840.113549.1.1.5": "sha1WithRSAEncryption",
    "1.2.840.113549.1.1.10": "rsassaPss",
    "1.2.840.113549.1.1.11": "sha256WithRSAEncryption",
    "1.2.840.113549.1.1.12": "sha384WithRSAEncryption",
    "1.2.840.113549.1.1.13": "sha512WithRSAEncryption",
    "1.2.840.10045.4.3.2": "ecdsa-with-SHA256",
    "1.2.840.10045.4.3.3": "ecdsa-with-SHA384",
    "1.2.840.10045.4.3.4": "ecdsa-with-SHA512",
    "1.3.101.112": "ed25519",
}
# RFC 5280 4.2.1.3, bit 0 first.
_KEY_USAGES = (
    "digitalSignature",
    "nonRepudiation",
    "keyEncipherment",
    "dataEncipherment",
    "keyAgreement",
    "keyCertSign",
    "cRLSign",
    "encipherOnly",
    "decipherOnly",
)
# Byte length of the base-128 text types of a Name; BMPString (0x1e) is UTF-16.
_TEXT = {0x0C: "utf-8", 0x13: "ascii", 0x14: "latin-1", 0x16: "ascii", 0x1E: "utf-16-be"}


class DERError(ValueError):
    """The bytes are not DER, or not the structure that was asked for."""


@dataclass(frozen=True)
class Node:
    """One DER element: its tag byte, its content, and its whole encoding."""

    tag: int
    value: bytes
    raw: bytes

    def children(self) -> list[Node]:
        """The elements inside a constructed element, in order."""
        if not self.tag & 0x20:
            raise DERError(f"element with tag 0x{self.tag:02x} is not constructed")
        found, at = [], 0
        while at < len(self.value):
            child, at = _element(self.value, at)
            found.append(child)
        return found

    def expect(self, tag: int) -> Node:
        """This element, or DERError when its tag is another one."""
        if self.tag != tag:
            raise DERError(f"expected tag 0x{tag:02x}, found 0x{self.tag:02x}")
        return self

    def integer(self) -> int:
        """The value of an INTEGER in its shortest encoding."""
        body = self.expect(INTEGER).value
        if not body or (len(body) > 1 and body[0] in (0, 0xFF) and (body[0] ^ body[1]) < 0x80):
            raise DERError("INTEGER is not in its shortest form")
        return int.from_bytes(body, "big", signed=True)

    def boolean(self) -> bool:
        """The value of a BOOLEAN: DER knows 0x00 and 0xff only."""
        body = self.expect(BOOLEAN).value
        if body not in (b"\x00", b"\xff"):
            raise DERError("BOOLEAN is neither 00 nor ff")
        return body == b"\xff"

    def oid(self) -> str:
        """An OBJECT IDENTIFIER in dotted form."""
        body = self.expect(OID).value
        if not body or body[-1] & 0x80:
            raise DERError("OBJECT IDENTIFIER is cut off")
        arcs, arc, fresh = [], 0, True
        for byte in body:
            if fresh and byte == 0x80:
                raise DERError("OBJECT IDENTIFIER is not in its shortest form")
            arc, fresh = (arc << 7) | (byte & 0x7F), not byte & 0x80
            if fresh:
                arcs.append(arc)
                arc = 0
        first = min(arcs[0] // 40, 2)
        return ".".join(str(a) for a in [first, arcs[0] - 40 * first, *arcs[1:]])

    def bits(self) -> bytes:
        """The bytes of a BIT STRING; unused bits must be zero and belong to the last byte."""
        body = self.expect(BIT_STRING).value
        if not body or body[0] > 7 or (len(body) == 1 and body[0]):
            raise DERError("BIT STRING has no valid count of unused bits")
        if len(body) > 1 and body[-1] & ((1 << body[0]) - 1):
            raise DERError("BIT STRING has unused bits that are set")
        return body[1:]

    def text(self) -> str:
        """The text of a directory string (UTF8String, PrintableString, ...)."""
        if self.tag not in _TEXT:
            raise DERError(f"tag 0x{self.tag:02x} is not a text type")
        try:
            return self.value.decode(_TEXT[self.tag])
        except UnicodeDecodeError as wrong:
            raise DERError(f"text is not {_TEXT[self.tag]}") from wrong

    def time(self) -> datetime:
        """A UTCTime or GeneralizedTime, which RFC 5280 wants in seconds and in UTC."""
        text = self.value.decode("ascii", "replace")
        if self.tag == UTC_TIME and re.fullmatch(r"\d{12}Z", text):
            text = ("19" if text[:2] >= "50" else "20") + text
        elif self.tag != GENERALIZED_TIME or not re.fullmatch(r"\d{14}Z", text):
            raise DERError(f"{text!r} is not a time of RFC 5280")
        try:
            naive = datetime.strptime(text, "%Y%m%d%H%M%SZ")
        except ValueError as wrong:
            raise DERError(f"{text!r} is not a time") from wrong
        return naive.replace(tzinfo=timezone.utc)  # noqa: UP017 - datetime.UTC needs 3.11


def _element(data: bytes, at: int) -> tuple[Node, int]:
    """The element that starts at ``at``, and where the next one starts."""
    if at + 2 > len(data):
        raise DERError("cut off inside a header")
    tag, length, start = data[at], data[at + 1], at + 2
    if tag & 0x1F == 0x1F:
        raise DERError("tags above 30 do not occur in what we read")
    if length & 0x80:
        count = length & 0x7F
        body = data[start : start + count]
        if not 1 <= count <= 4 or len(body) < count:
            raise DERError("length is indefinite, too large or cut off")
        length = int.from_bytes(body, "big")
        if length < 0x80 or body[0] == 0:
            raise DERError("length is not in its shortest form")
        start += count
    end = start + length
    if end > len(data):
        raise DERError("cut off inside a value")
    return Node(tag, data[start:end], data[at:end]), end


def parse(data: bytes) -> Node:
    """The one DER element that fills ``data`` exactly; DERError otherwise."""
    node, end = _element(data, 0)
    if end != len(data):
        raise DERError(f"{len(data) - end} bytes follow the element")
    return node


def fields(node: Node, count: int) -> list[Node]:
    """The first ``count`` children of a SEQUENCE; DERError when there are fewer."""
    found = node.expect(SEQUENCE).children()
    if len(found) < count:
        raise DERError(f"SEQUENCE with {len(found)} elements where {count} are needed")
    return found[:count]


@dataclass(frozen=True)
class Certificate:
    """The parts of an X.509 certificate (RFC 5280) that decide whether we may use it."""

    der: bytes
    tbs: bytes  # signed part, as encoded
    signature: bytes
    signature_algorithm: str  # e.g. sha256WithRSAEncryption, or the dotted OID
    serial: int
    issuer: bytes  # the Name as encoded: comparisons are by bytes, as the kernel does
    subject: bytes
    issuer_cn: Optional[str]
    subject_cn: Optional[str]
    not_before: datetime  # aware, UTC
    not_after: datetime
    key_type: str  # "rsa", "ec" or the dotted OID
    key_bits: Optional[int]
    rsa_n: Optional[int]
    rsa_e: Optional[int]
    ec_curve: Optional[str]
    is_ca: Optional[bool]  # None: no basicConstraints
    key_usage: Optional[frozenset[str]]  # None: any
    extended_key_usage: Optional[frozenset[str]]  # dotted OIDs; None: any
    ski: Optional[bytes]
    sha256: str  # fingerprint, lower-case hex of the whole DER

    @property
    def self_issued(self) -> bool:
        """Whether subject and issuer are the same name."""
        return self.issuer == self.subject

    def expired(self, now: datetime) -> bool:
        """Whether ``now`` (aware) lies outside the validity."""
        return not self.not_before <= now <= self.not_after


def common_name(name: Node) -> Optional[str]:
    """The last commonName of a Name element (the most specific one), if it has any."""
    found = None
    for rdn in name.expect(SEQUENCE).children():
        for attribute in rdn.expect(SET).children():
            kind, value = fields(attribute, 2)
            if kind.oid() == _OID_CN:
                found = value.text()
    return found


def _public_key(info: Node) -> tuple[str, Optional[int], Optional[int], Optional[int], str]:
    """(type, bits, RSA n, RSA e, EC curve or "") of a SubjectPublicKeyInfo."""
    algorithm, key = fields(info, 2)
    parts = algorithm.expect(SEQUENCE).children()
    kind = parts[0].oid() if parts else ""
    if kind == _OID_RSA:
        n, e = (number.integer() for number in fields(parse(key.bits()), 2))
        if n <= 0 or e <= 0:
            raise DERError("RSA key with a modulus or exponent that is not positive")
        return "rsa", n.bit_length(), n, e, ""
    if kind == _OID_EC and len(parts) == 2 and parts[1].tag == OID:
        curve, bits = _CURVES.get(parts[1].oid(), (parts[1].oid(), 0))
        return "ec", bits or None, None, None, curve
    return kind, None, None, None, ""


def _extensions(nodes: list[Node]) -> dict[str, bytes]:
    """extnValue by OID of the [3] Extensions element, if there is one."""
    found: dict[str, bytes] = {}
    for wrapper in (n for n in nodes if n.tag == 0xA3):
        for extension in parse(wrapper.value).expect(SEQUENCE).children():
            name = fields(extension, 2)[0].oid()
            value = extension.children()[-1].expect(OCTET_STRING).value
            if name in found:
                raise DERError(f"extension {name} occurs twice")
            found[name] = value
    return found


def _flag_names(bits: bytes) -> frozenset[str]:
    """The names of the bits set in a KeyUsage."""
    return frozenset(
        name
        for i, name in enumerate(_KEY_USAGES)
        if i // 8 < len(bits) and bits[i // 8] & (0x80 >> i % 8)
    )


def read_certificate(der: bytes) -> Certificate:
    """Parse one DER certificate; DERError names what is wrong. Verifies no signature."""
    tbs, algorithm, signature = fields(parse(der), 3)
    parts = tbs.expect(SEQUENCE).children()
    if parts and parts[0].tag == 0xA0:  # [0] version; absent means v1
        parts = parts[1:]
    if len(parts) < 6:
        raise DERError("tbsCertificate is too short")
    serial, _inner, issuer, validity, subject, key = parts[:6]
    not_before, not_after = (moment.time() for moment in fields(validity, 2))
    key_type, bits, n, e, curve = _public_key(key)
    extensions = _extensions(parts[6:])
    is_ca = usage = eku = ski = None
    if _EXT_BASIC_CONSTRAINTS in extensions:
        inner = parse(extensions[_EXT_BASIC_CONSTRAINTS]).expect(SEQUENCE).children()
        is_ca = bool(inner) and inner[0].tag == BOOLEAN and inner[0].boolean()
    if _EXT_KEY_USAGE in extensions:
        usage = _flag_names(parse(extensions[_EXT_KEY_USAGE]).bits())
    if _EXT_EKU in extensions:
        purposes = parse(extensions[_EXT_EKU]).expect(SEQUENCE).children()
        eku = frozenset(purpose.oid() for purpose in purposes)
    if _EXT_SKI in extensions:
        ski = parse(extensions[_EXT_SKI]).expect(OCTET_STRING).value
    signed_with = fields(algorithm, 1)[0].oid()
    return Certificate(
        der=der,
        tbs=tbs.raw,
        signature=signature.bits(),
        signature_algorithm=_SIGNATURES.get(signed_with, signed_with),
        serial=serial.integer(),
        issuer=issuer.raw,
        subject=subject.raw,
        issuer_cn=common_name(issuer),
        subject_cn=common_name(subject),
        not_before=not_before,
        not_after=not_after,
        key_type=key_type,
        key_bits=bits,
        rsa_n=n,
        rsa_e=e,
        ec_curve=curve or None,
        is_ca=is_ca,
        key_usage=usage,
        extended_key_usage=eku,
        ski=ski,
        sha256=hashlib.sha256(der).hexdigest(),
    )


_PEM = re.compile(
    rb"-----BEGIN (?:X509 )?CERTIFICATE-----(.*?)-----END (?:X509 )?CERTIFICATE-----", re.DOTALL
)


def read_pem(data: bytes) -> list[Certificate]:
    """Every certificate of a PEM bundle, in order; an empty list when there is none.

    Raises DERError when a block is not base64 or not a certificate.
    """
    found = []
    for block in _PEM.findall(data):
        try:
            der = base64.b64decode(b"".join(block.split()), validate=True)
        except binascii.Error as wrong:
            raise DERError(f"PEM block is not base64: {wrong}") from wrong
        found.append(read_certificate(der))
    return found


def load_certificate(data: bytes) -> Certificate:
    """The one certificate in ``data``, DER or PEM; DERError when there is not exactly one."""
    if data[:1] == b"\x30":
        return read_certificate(data)
    found = read_pem(data)
    if len(found) != 1:
        raise DERError(f"expected one certificate, found {len(found)}")
    return found[0]
