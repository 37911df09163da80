"""A strict reader of OpenPGP public keys (RFC 9580, and RFC 4880 before it).

It reads what package repositories publish: transferable public keys of version 4 and 6. Everything
else in an answer (a secret key, a keybox, a version nobody signs repositories with) is an error.
What a key is worth, its self-signatures and its expiry, is judged in ``keypolicy``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Optional

from installers import armor

SIGNATURE, SECRET_KEY, PUBLIC_KEY, SECRET_SUBKEY = 2, 5, 6, 7
MARKER, TRUST, USER_ID, PUBLIC_SUBKEY, USER_ATTRIBUTE, PADDING = 10, 12, 13, 14, 17, 21
# Packets that carry nothing for the reader of a key; keyring files of gpg are full of trust.
_IGNORED = (MARKER, TRUST, PADDING)

CERTIFICATIONS = (0x10, 0x11, 0x12, 0x13)
SUBKEY_BINDING, DIRECT_KEY = 0x18, 0x1F
KEY_REVOCATION, SUBKEY_REVOCATION, CERTIFICATION_REVOCATION = 0x20, 0x28, 0x30

HASHES = {
    1: "md5",
    2: "sha1",
    3: "ripemd160",
    8: "sha256",
    9: "sha384",
    10: "sha512",
    11: "sha224",
    12: "sha3-256",
    14: "sha3-512",
}
_SALT_SIZES = {8: 16, 9: 24, 10: 32, 11: 16, 12: 16, 14: 32}
# A key with more than this is an attack on its reader; Debian's own keyring has some hundreds.
_MOST_PACKETS = 20000
_KEYBOX_MAGIC = b"KBXf"


class OpenPGPError(ValueError):
    """The bytes are not a whole, readable OpenPGP public key."""


@dataclass(frozen=True)
class Packet:
    """One packet: its tag, its content, and its whole encoding."""

    tag: int
    body: bytes
    raw: bytes


@dataclass(frozen=True)
class Key:
    """A primary key or subkey. ``fingerprint`` is upper-case hex: 40 digits in version 4, 64 in 6.

    ``created`` is seconds since 1970; ``material`` the algorithm's own numbers.
    """

    version: int
    created: int
    algorithm: int
    fingerprint: str
    material: bytes
    packet: Packet

    @property
    def key_id(self) -> str:
        """The 16 hex digits by which old signatures name their issuer."""
        return self.fingerprint[:16] if self.version == 6 else self.fingerprint[-16:]

    @property
    def hashed(self) -> bytes:
        """The key as fingerprints and signatures hash it."""
        size = len(self.packet.body)
        if self.version == 6:
            return b"\x9b" + size.to_bytes(4, "big") + self.packet.body
        return b"\x99" + size.to_bytes(2, "big") + self.packet.body


@dataclass(frozen=True)
class Signature:
    """One signature packet. Times are seconds; ``key_expires`` and ``expires`` count from the
    creation of key and signature, 0 is never. ``issuer`` is a fingerprint or key id, or empty.

    ``hashed`` and ``trailer`` are what the signer's hash covers after the signed thing itself.
    """

    version: int
    kind: int
    algorithm: int
    hash: int
    created: int
    issuer: str
    hashed: bytes
    trailer: bytes
    check: bytes
    numbers: bytes
    packet: Packet
    salt: bytes = b""
    key_expires: int = 0
    expires: int = 0
    flags: Optional[int] = None
    primary: bool = False

    @property
    def hash_name(self) -> str:
        """``sha256``, ... or the number of one that is not known here."""
        return HASHES.get(self.hash, f"hash {self.hash}")

    def by(self, key: Key) -> bool:
        """Whether the signature says that ``key`` made it (whether it did is another question)."""
        return not self.issuer or key.fingerprint == self.issuer or key.key_id == self.issuer


@dataclass
class UserID:
    """A user ID and the signatures on it. ``text`` has no control characters."""

    packet: Packet
    signatures: list[Signature] = field(default_factory=list)

    @property
    def text(self) -> str:
        """For people: what it claims is nobody's promise."""
        decoded = self.packet.body.decode("utf-8", "replace")
        return "".join(char if char.isprintable() else "?" for char in decoded)


@dataclass
class Subkey:
    """A subkey and the signatures on it."""

    key: Key
    signatures: list[Signature] = field(default_factory=list)


@dataclass
class Certificate:
    """A transferable public key: the primary key with all that hangs on it."""

    key: Key
    signatures: list[Signature] = field(default_factory=list)
    user_ids: list[UserID] = field(default_factory=list)
    subkeys: list[Subkey] = field(default_factory=list)

    @property
    def fingerprint(self) -> str:
        """Of the primary key; the only name that a pin may use."""
        return self.key.fingerprint


def read(data: bytes) -> list[Certificate]:
    """Every key in an armored or binary file, at least one. Raises OpenPGPError."""
    if data[8:12] == _KEYBOX_MAGIC:
        raise OpenPGPError("is a keybox, which apt cannot read, not an OpenPGP keyring")
    if armor.is_binary(data):
        return certificates(data)
    if armor.looks_like_html(data):
        raise OpenPGPError("is a web page, not a key")
    if not data.strip():
        raise OpenPGPError("is empty")
    try:
        return certificates(armor.dearmor(data))
    except armor.ArmorError as error:
        raise OpenPGPError(str(error)) from None


def certificates(data: bytes) -> list[Certificate]:
    """The keys in a stream of packets. Raises OpenPGPError."""
    found: list[Certificate] = []
    # Where the next signature belongs; None: to something that is not kept.
    home: Optional[list[Signature]] = None
    for packet in packets(data):
        if packet.tag in _IGNORED:
            continue
        if packet.tag == PUBLIC_KEY:
            found.append(Certificate(_key(packet)))
            home = found[-1].signatures
        elif packet.tag in (SECRET_KEY, SECRET_SUBKEY):
            raise OpenPGPError("holds a secret key: it must be replaced, it is secret no more")
        elif not found:
            raise OpenPGPError(f"begins with packet {packet.tag}, not with a public key")
        elif packet.tag == USER_ID:
            found[-1].user_ids.append(UserID(packet))
            home = found[-1].user_ids[-1].signatures
        elif packet.tag == USER_ATTRIBUTE:
            home = None
        elif packet.tag == PUBLIC_SUBKEY:
            found[-1].subkeys.append(Subkey(_key(packet)))
            home = found[-1].subkeys[-1].signatures
        elif packet.tag == SIGNATURE:
            signature = _signature(packet)
            if home is not None and signature is not None:
                home.append(signature)
        else:
            raise OpenPGPError(f"holds packet {packet.tag}, which no public key has")
    if not found:
        raise OpenPGPError("holds no key")
    return found


def packets(data: bytes) -> Iterator[Packet]:
    """Split a stream of packets. Raises OpenPGPError."""
    at = 0
    for _ in range(_MOST_PACKETS):
        if at >= len(data):
            return
        tag, start, size = _header(data, at)
        if start + size > len(data):
            raise OpenPGPError("a packet is cut off")
        yield Packet(tag, data[start : start + size], data[at : start + size])
        at = start + size
    raise OpenPGPError(f"holds more than {_MOST_PACKETS} packets")


def _header(data: bytes, at: int) -> tuple[int, int, int]:
    """``(tag, where the content begins, its size)``."""
    first = data[at]
    if not first & 0x80:
        raise OpenPGPError(f"byte {at} is no packet")
    if first & 0x40:
        size, start = _new_length(data, at + 1)
        return first & 0x3F, start, size
    kind = first & 3
    if kind == 3:
        raise OpenPGPError("a packet without a length")
    width = 1 << kind
    return (first >> 2) & 0xF, at + 1 + width, _number(data, at + 1, width)


def _new_length(data: bytes, at: int, *, parts: bool = True) -> tuple[int, int]:
    """``(size, next position)`` of a length in the current format.

    ``parts``: whether 224 to 254 announce a packet in parts (in subpackets they do not).
    """
    first = _number(data, at, 1)
    if first < 192:
        return first, at + 1
    if first == 255:
        return _number(data, at + 1, 4), at + 5
    if first >= 224 and parts:
        raise OpenPGPError("a packet in parts, which keys never are")
    return ((first - 192) << 8) + _number(data, at + 1, 1) + 192, at + 2


def _number(data: bytes, at: int, width: int) -> int:
    if at + width > len(data):
        raise OpenPGPError("is cut off")
    return int.from_bytes(data[at : at + width], "big")


def _key(packet: Packet) -> Key:
    body = packet.body
    version = _number(body, 0, 1)
    if version not in (4, 6):
        raise OpenPGPError(f"a key of version {version}; 4 and 6 are supported")
    created, algorithm = _number(body, 1, 4), _number(body, 5, 1)
    start = 6
    if version == 6:
        start = 10
        if _number(body, 6, 4) != len(body) - start:
            raise OpenPGPError("a key whose length is not what it says")
    if version == 4 and len(body) > 0xFFFF:
        raise OpenPGPError("a key that is larger than any")
    if len(body) <= start:
        raise OpenPGPError("a key without its numbers")
    bare = Key(version, created, algorithm, "", body[start:], packet)
    if version == 6:
        digest = hashlib.sha256(bare.hashed).hexdigest()
    else:
        # SHA-1 by definition; a node in FIPS mode must not take that for a signature.
        digest = hashlib.sha1(bare.hashed, usedforsecurity=False).hexdigest()
    return Key(version, created, algorithm, digest.upper(), body[start:], packet)


def _signature(packet: Packet) -> Optional[Signature]:
    """None for a version that nobody reads any more: such a signature proves nothing."""
    body = packet.body
    version = _number(body, 0, 1)
    if version == 3:
        return _old_signature(packet)
    if version not in (4, 6):
        return None
    width = 4 if version == 6 else 2
    hashed_size = _number(body, 4, width)
    hashed_end = 4 + width + hashed_size
    unhashed_size = _number(body, hashed_end, width)
    unhashed_end = hashed_end + width + unhashed_size
    hashed = _subpackets(body[4 + width : hashed_end], hashed_size)
    unhashed = _subpackets(body[hashed_end + width : unhashed_end], unhashed_size)
    at, salt = unhashed_end + 2, b""
    check = _number(body, unhashed_end, 2).to_bytes(2, "big")
    if version == 6:
        size = _number(body, at, 1)
        if size != _SALT_SIZES.get(body[3], size):
            raise OpenPGPError("a signature with a salt of the wrong size")
        salt = body[at + 1 : at + 1 + size]
        at += 1 + size
    flags = hashed.get(27)
    return Signature(
        version=version,
        kind=body[1],
        algorithm=body[2],
        hash=body[3],
        created=_value(hashed.get(2)),
        issuer=_issuer(hashed) or _issuer(unhashed),
        hashed=body[:hashed_end],
        trailer=bytes([version, 0xFF]) + hashed_end.to_bytes(4, "big"),
        check=check,
        numbers=body[at:],
        packet=packet,
        salt=salt,
        key_expires=_value(hashed.get(9)),
        expires=_value(hashed.get(3)),
        flags=flags[0] if flags else None,
        primary=_value(hashed.get(25)) != 0,
    )


def _old_signature(packet: Packet) -> Signature:
    body = packet.body
    if _number(body, 1, 1) != 5 or len(body) < 19:
        raise OpenPGPError("a signature of version 3 that is none")
    return Signature(
        version=3,
        kind=body[2],
        algorithm=body[15],
        hash=body[16],
        created=_number(body, 3, 4),
        issuer=body[7:15].hex().upper(),
        hashed=body[2:7],
        trailer=b"",
        check=body[17:19],
        numbers=body[19:],
        packet=packet,
    )


def _subpackets(area: bytes, size: int) -> dict[int, bytes]:
    """Type → content; of several of one type the last, as gpg does."""
    if len(area) != size:
        raise OpenPGPError("a signature is cut off")
    found: dict[int, bytes] = {}
    at = 0
    while at < size:
        length, at = _new_length(area, at, parts=False)
        if length == 0 or at + length > size:
            raise OpenPGPError("a signature with a subpacket that is cut off")
        found[area[at] & 0x7F] = area[at + 1 : at + length]
        at += length
    return found


def _issuer(subpackets: dict[int, bytes]) -> str:
    fingerprint = subpackets.get(33, b"")[1:]
    return (fingerprint or subpackets.get(16, b"")).hex().upper()


def _value(content: Optional[bytes]) -> int:
    if content is not None and len(content) > 4:
        raise OpenPGPError("a signature with a number that is too large")
    return int.from_bytes(content or b"", "big")
