"""Java key stores, read without a JVM: which certificates they trust, by alias.

JKS is the format of every ``cacerts`` up to Java 17, a PKCS #12 without password the one of later
releases. Writing is left to ``keytool``.
"""

from __future__ import annotations

import struct
from typing import Optional

from installers import asn1

_JKS = b"\xfe\xed\xfe\xed"
_DATA = "1.2.840.113549.1.7.1"
_CERT_BAG = "1.2.840.113549.1.12.10.1.3"
_FRIENDLY_NAME = "1.2.840.113549.1.9.20"
_TRUSTED = 2
_CONTEXT_0 = 0xA0


def certificates(data: bytes) -> Optional[dict[str, bytes]]:
    """Alias → DER of each trusted certificate; None for a store that only its password opens."""
    try:
        return _jks(data) if data[:4] == _JKS else _pkcs12(data)
    except (asn1.DERError, struct.error, IndexError, UnicodeDecodeError):
        return None


def _jks(data: bytes) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    version, count = struct.unpack_from(">II", data, 4)
    at = 12

    def block(size: str) -> bytes:
        nonlocal at
        (length,) = struct.unpack_from(size, data, at)
        at += struct.calcsize(size) + length
        if at > len(data):
            raise struct.error("cut off")
        return data[at - length : at]

    def certificate() -> bytes:
        if version > 1:
            block(">H")
        return block(">I")

    for _ in range(count):
        (kind,) = struct.unpack_from(">I", data, at)
        at += 4
        alias = block(">H").decode("utf-8")
        at += 8  # when it was added
        if kind == _TRUSTED:
            found[alias] = certificate()
        else:
            block(">I")
            (chain,) = struct.unpack_from(">I", data, at)
            at += 4
            for _ in range(chain):
                certificate()
    return found


def _pkcs12(data: bytes) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for content in asn1.parse(_content(asn1.parse(data).children()[1])).children():
        kind, _ = content.children()[:2]
        if kind.oid() != _DATA:
            raise asn1.DERError("encrypted")
        for bag in asn1.parse(_content(content)).children():
            parts = bag.children()
            if parts[0].oid() != _CERT_BAG:
                continue
            der = asn1.parse(parts[1].value).children()[1].children()[0].value
            found[_friendly_name(parts[2:])] = der
    return found


def _content(info: asn1.Node) -> bytes:
    """The octets of a ContentInfo of type data."""
    kind, wrapper = info.children()[:2]
    if kind.oid() != _DATA or wrapper.tag != _CONTEXT_0:
        raise asn1.DERError("not data")
    return asn1.parse(wrapper.value).expect(asn1.OCTET_STRING).value


def _friendly_name(attributes: list[asn1.Node]) -> str:
    for attribute in attributes[0].children() if attributes else []:
        kind, values = attribute.children()[:2]
        if kind.oid() == _FRIENDLY_NAME:
            return values.children()[0].value.decode("utf-16-be")
    return ""
