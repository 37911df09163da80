"""What a public key is worth: its own signatures, its expiry, its revocation, its hashes.

Signatures made with RSA, which is what package repositories use, are checked with the standard
library; those of other algorithms are left to the programs that use the key (``checked`` says so).
Expiry is read the way gpg 2.2 reads it, since apt's answer hangs on it.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Optional

from installers.openpgp import (
    CERTIFICATION_REVOCATION,
    CERTIFICATIONS,
    DIRECT_KEY,
    KEY_REVOCATION,
    SUBKEY_BINDING,
    SUBKEY_REVOCATION,
    Certificate,
    Key,
    Signature,
    Subkey,
    UserID,
)

# Debian 13's apt refuses a key that only SHA-1 vouches for, since this day (its default policy for
# second pre-image resistance); rpm in RHEL 9's default crypto policy refuses it too.
SHA1_REFUSED_SINCE = "2026-02-01"
# apt's and sqv's default policies refuse shorter ones.
LEAST_RSA_BITS = 2048
_WEAK = {"md5", "sha1", "ripemd160"}
_MAY_SIGN = 0x02
# Algorithms that can sign at all, for keys that do not say what they are for.
_SIGNERS = {1, 3, 17, 19, 22, 27, 28}
_RSA = {1, 3}
# DigestInfo of PKCS 1 before the digest (RFC 8017, 9.2, note 1).
_DIGEST_INFO = {
    "md5": "3020300c06082a864886f70d020505000410",
    "sha1": "3021300906052b0e03021a05000414",
    "sha224": "302d300d06096086480165030402040500041c",
    "sha256": "3031300d060960864801650304020105000420",
    "sha384": "3041300d060960864801650304020205000430",
    "sha512": "3051300d060960864801650304020305000440",
}


@dataclass(frozen=True)
class Judgement:
    """``unusable``: why no repository can be verified with the key, empty if it can.

    ``expires``: seconds since 1970 when the last key that may sign ends, None for never;
    ``hash``: of the best self-signature (``none`` without one); ``weak``: nothing better than
    SHA-1 vouches for the key; ``checked``: its self-signatures were verified, not only read.
    """

    fingerprint: str
    user_id: str
    created: int
    expires: Optional[int]
    unusable: str
    hash: str
    weak: bool
    checked: bool


def judge(certificate: Certificate, now: float) -> Judgement:
    """All that can be said of a key at ``now`` (seconds since 1970)."""
    key = certificate.key
    clean = own(certificate)
    bindings = _bindings(clean, now)
    hashes = [signature.hash_name for signature in bindings]
    strong = [name for name in hashes if name not in _WEAK]
    named = [user for user in clean.user_ids if user.signatures]
    ends = _ends(clean, bindings, now)
    return Judgement(
        fingerprint=certificate.fingerprint,
        user_id=named[0].text if named else "",
        created=key.created,
        expires=_last(ends),
        unusable=_unusable(clean, bindings, ends, now),
        hash=(strong or hashes or ["none"])[0],
        weak=bool(hashes) and not strong,
        # Those that were found false are not among them any more.
        checked=all(_can_check(key, signature) for signature in bindings),
    )


def own(certificate: Certificate) -> Certificate:
    """The key without what others hung on it, nor signatures in its name that it did not make."""
    key = certificate.key
    clean = Certificate(key)
    clean.signatures = _genuine(certificate.signatures, key, key.hashed)
    for user in certificate.user_ids:
        covered = key.hashed + b"\xb4" + len(user.packet.body).to_bytes(4, "big") + user.packet.body
        clean.user_ids.append(UserID(user.packet, _genuine(user.signatures, key, covered)))
    for subkey in certificate.subkeys:
        covered = key.hashed + subkey.key.hashed
        clean.subkeys.append(Subkey(subkey.key, _genuine(subkey.signatures, key, covered)))
    return clean


def minimal(certificate: Certificate) -> bytes:
    """The packets of the key that a verifier needs: no third party's signatures, no pictures."""
    clean = own(certificate)
    parts = [clean.key.packet, *(signature.packet for signature in clean.signatures)]
    for user in clean.user_ids:
        if user.signatures:
            parts += [user.packet, *(signature.packet for signature in user.signatures)]
    for subkey in clean.subkeys:
        if subkey.signatures:
            parts += [subkey.key.packet, *(signature.packet for signature in subkey.signatures)]
    return b"".join(packet.raw for packet in parts)


def genuine(signature: Signature, key: Key, covered: bytes) -> Optional[bool]:
    """Whether ``key`` made the signature over ``covered``; None where that cannot be checked."""
    if not _can_check(key, signature):
        return None
    numbers = _numbers(key.material)
    values = _numbers(signature.numbers)
    if len(numbers) != 2 or len(values) != 1:
        return False
    modulus, exponent = numbers
    digest = hashlib.new(signature.hash_name, usedforsecurity=False)
    digest.update(signature.salt + covered + signature.hashed + signature.trailer)
    info = bytes.fromhex(_DIGEST_INFO[signature.hash_name]) + digest.digest()
    size = (modulus.bit_length() + 7) // 8
    # A modulus of attack size would keep the processor busy for minutes.
    if not len(info) + 11 <= size <= 2048 or exponent.bit_length() > 64 or values[0] >= modulus:
        return False
    padded = b"\x00\x01" + b"\xff" * (size - len(info) - 3) + b"\x00" + info
    return pow(values[0], exponent, modulus).to_bytes(size, "big") == padded


def day(moment: Optional[float]) -> str:
    """A date for people, ``never`` for None."""
    if moment is None:
        return "never"
    return time.strftime("%Y-%m-%d", time.gmtime(min(moment, 2**33)))


def _can_check(key: Key, signature: Signature) -> bool:
    known = signature.hash_name in _DIGEST_INFO
    return known and key.algorithm in _RSA and signature.algorithm in _RSA


def _last(ends: list[Optional[int]]) -> Optional[int]:
    """The end of the key that lasts longest, None when one never ends (or none may sign)."""
    moments = [end for end in ends if end is not None]
    return max(moments) if moments and len(moments) == len(ends) else None


def _numbers(material: bytes) -> list[int]:
    """The multi-precision integers of RFC 9580, 3.2; empty when they are cut off."""
    found, at = [], 0
    while at < len(material):
        size = (int.from_bytes(material[at : at + 2], "big") + 7) // 8
        value = material[at + 2 : at + 2 + size]
        if len(value) != size:
            return []
        found.append(int.from_bytes(value, "big"))
        at += 2 + size
    return found


def _genuine(signatures: Iterable[Signature], key: Key, covered: bytes) -> list[Signature]:
    return [s for s in signatures if s.by(key) and genuine(s, key, covered) is not False]


def _alive(signatures: Iterable[Signature], kinds: tuple[int, ...], now: float) -> list[Signature]:
    """Signatures of these kinds that are in force, oldest first."""
    found = [
        s
        for s in signatures
        if s.kind in kinds and s.created <= now and not (s.expires and s.created + s.expires <= now)
    ]
    return sorted(found, key=lambda signature: signature.created)


def _bindings(clean: Certificate, now: float) -> list[Signature]:
    """The newest self-signature on each user ID that still holds, and the newest on the key."""
    found = _alive(clean.signatures, (DIRECT_KEY,), now)[-1:]
    for user in clean.user_ids:
        certified = _alive(user.signatures, CERTIFICATIONS, now)[-1:]
        revoked = _alive(user.signatures, (CERTIFICATION_REVOCATION,), now)[-1:]
        if certified and not (revoked and revoked[0].created >= certified[0].created):
            found += certified
    return found


def _primary_end(key: Key, bindings: list[Signature]) -> Optional[int]:
    """gpg: the key's own signature decides, else the newest user ID that has an expiry."""
    ending = [signature for signature in bindings if signature.key_expires]
    if not ending:
        return None
    direct = [signature for signature in ending if signature.kind == DIRECT_KEY]
    deciding = direct or sorted(ending, key=lambda signature: signature.created)
    return key.created + deciding[-1].key_expires


def _ends(clean: Certificate, bindings: list[Signature], now: float) -> list[Optional[int]]:
    """When each key that may sign ends (None: never), the primary key's end at the latest."""
    primary = _primary_end(clean.key, bindings)
    flagged = [signature for signature in bindings if signature.flags is not None]
    flags = flagged[-1].flags if flagged else None
    found: list[Optional[int]] = []
    if _may_sign(clean.key, flags):
        found.append(primary)
    for subkey in clean.subkeys:
        binding = _alive(subkey.signatures, (SUBKEY_BINDING,), now)[-1:]
        revoked = _alive(subkey.signatures, (SUBKEY_REVOCATION,), now)
        if binding and not revoked and _may_sign(subkey.key, binding[0].flags):
            lifetime = binding[0].key_expires
            end = subkey.key.created + lifetime if lifetime else None
            limits = [limit for limit in (primary, end) if limit is not None]
            found.append(min(limits) if limits else None)
    return found


def _may_sign(key: Key, flags: Optional[int]) -> bool:
    return key.algorithm in _SIGNERS and (flags is None or bool(flags & _MAY_SIGN))


def _unusable(
    clean: Certificate, bindings: list[Signature], ends: list[Optional[int]], now: float
) -> str:
    # A revocation is final whatever its date: its maker's clock is not ours.
    if any(signature.kind == KEY_REVOCATION for signature in clean.signatures):
        return "is revoked"
    if clean.key.created > now:
        return f"was made on {day(clean.key.created)}, which this node's clock says is yet to come"
    if not any(signature.kind in CERTIFICATIONS for signature in bindings):
        later = [s.created for user in clean.user_ids for s in user.signatures if s.created > now]
        if later:
            return f"was signed on {day(max(later))}, which this node's clock says is yet to come"
        return "has no user ID that it vouches for itself"
    if not ends:
        return "holds no key that may sign"
    if all(end is not None and end <= now for end in ends):
        return f"expired on {day(_last(ends))}"
    return ""
