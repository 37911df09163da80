"""PEM certificates as they lie in files that programs read: their bytes and their fingerprints."""

from __future__ import annotations

import binascii
import hashlib
import re

BEGIN = re.compile(rb"-----BEGIN (?:TRUSTED |X509 )?CERTIFICATE-----")
END = b"-----END"


def ders(bundle: bytes) -> list[bytes]:
    """The DER of each certificate, in the file's order.

    A block that is not base64 is left out: programs that read the file skip it as well.
    """
    found = []
    for block in BEGIN.split(bundle)[1:]:
        try:
            der = binascii.a2b_base64(block[: block.find(END)])
        except binascii.Error:
            continue
        if der:
            found.append(der)
    return found


def fingerprints(bundle: bytes) -> list[str]:
    """SHA-256 of each, lower-case hex, in the file's order."""
    return [hashlib.sha256(der).hexdigest() for der in ders(bundle)]
