"""OpenPGP's ASCII armor (RFC 9580, chapter 6): strict, with its checksum, on the standard library.

Nodes need not have ``gpg``, and ``gpg --dearmor`` turns whatever it is given into something that
looks like a key. Here a page of HTML, half an armor or a wrong checksum is an error with a name.
"""

from __future__ import annotations

import base64
import binascii
import functools
import re

PUBLIC_KEY = "PGP PUBLIC KEY BLOCK"
_CRC_INIT, _CRC_POLYNOMIAL = 0xB704CE, 0x1864CFB
_LINE = 64
_BEGIN = re.compile(rb"-----BEGIN ([A-Z0-9 ,/]+)-----[ \t]*")
_HEADER = re.compile(rb"[A-Za-z][A-Za-z0-9-]*:( .*)?")
_CHECKSUM = re.compile(rb"=[A-Za-z0-9+/]{4}")
_BASE64 = re.compile(rb"[A-Za-z0-9+/]+={0,2}")
# What a proxy, a captive portal or a key server answers instead of a key.
_HTML = re.compile(rb"<\s*(!doctype|html|head|body|\?xml)\b", re.IGNORECASE)


class ArmorError(ValueError):
    """The text is not a whole, undamaged armor of a public key."""


def looks_like_html(data: bytes) -> bool:
    """True for a web page, also for one that quotes a key."""
    return _HTML.search(data[:4096]) is not None


def is_binary(data: bytes) -> bool:
    """True when the first byte can only be an OpenPGP packet's tag."""
    return bool(data) and data[0] & 0x80 != 0


def dearmor(data: bytes) -> bytes:
    """The packets of every public key block in ``data``, one after the other.

    Text outside the blocks is passed over: vendors put listings there. Raises ArmorError.
    """
    found = bytearray()
    lines = [line.rstrip(b"\r\t ") for line in data.split(b"\n")]
    at, blocks = 0, 0
    while at < len(lines):
        begin = _BEGIN.fullmatch(lines[at])
        at += 1
        if begin is None:
            continue
        kind = begin[1].decode()
        if kind != PUBLIC_KEY:
            raise ArmorError(f"holds a {kind}, not a {PUBLIC_KEY}")
        body, at = _block(lines, at)
        found += body
        blocks += 1
    if not blocks:
        raise ArmorError("holds no OpenPGP key")
    return bytes(found)


def armor(packets: bytes) -> bytes:
    """A public key block. With its checksum: older rpm and gpg versions insist on it."""
    text = base64.b64encode(packets)
    lines = [text[at : at + _LINE] for at in range(0, len(text), _LINE)]
    checksum = b"=" + base64.b64encode(crc24(packets).to_bytes(3, "big"))
    label = PUBLIC_KEY.encode()
    whole = [b"-----BEGIN " + label + b"-----", b"", *lines, checksum]
    return b"\n".join([*whole, b"-----END " + label + b"-----", b""])


def crc24(data: bytes) -> int:
    """The checksum of RFC 9580, 6.1."""
    table = _crc_table()
    value = _CRC_INIT
    for byte in data:
        value = (value << 8 & 0xFFFFFF) ^ table[value >> 16 ^ byte]
    return value


@functools.cache
def _crc_table() -> list[int]:
    """What eight rounds make of every first byte; bit by bit a large key takes a second."""
    table = []
    for first in range(256):
        value = first << 16
        for _ in range(8):
            value <<= 1
            if value & 0x1000000:
                value ^= _CRC_POLYNOMIAL
        table.append(value)
    return table


def _block(lines: list[bytes], at: int) -> tuple[bytes, int]:
    """``(packets, line after the block)`` of the block whose first line is before ``at``."""
    while at < len(lines) and _HEADER.fullmatch(lines[at]):
        at += 1
    if at < len(lines) and lines[at]:
        raise ArmorError("an armor without the empty line after its headers")
    text, checksum = bytearray(), None
    end = b"-----END " + PUBLIC_KEY.encode() + b"-----"
    for number in range(at, len(lines)):
        line = lines[number]
        if line == end:
            return _decode(bytes(text), checksum), number + 1
        if checksum is not None and line:
            raise ArmorError("text after the checksum of an armor")
        if _CHECKSUM.fullmatch(line):
            checksum = line[1:]
        elif line and (not _BASE64.fullmatch(line) or text.endswith(b"=")):
            raise ArmorError("a line of the armor is not base64")
        else:
            text += line
    raise ArmorError("an armor without its end: the answer is cut off")


def _decode(text: bytes, checksum: object) -> bytes:
    try:
        packets = base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ArmorError(f"the armor is not base64: {error}") from None
    if not packets:
        raise ArmorError("an empty armor")
    if checksum is not None and base64.b64encode(crc24(packets).to_bytes(3, "big")) != checksum:
        raise ArmorError("the checksum of the armor is wrong: the key is damaged")
    return packets
