"""The OS trust store: the fingerprint of every certificate in the bundle programs read, and what
the certificates are like that somebody added to it."""

from __future__ import annotations

import binascii
import hashlib
import re
from typing import Any, Optional

from installers.asn1 import DERError, read_certificate
from installers.collect.reader import Reader

# Debian's and Ubuntu's bundle, then RHEL's; the first that exists is the one in use.
BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/ca-bundle.pem",
)
# Where administrators add a certificate of their own.
ANCHORS = (
    "/usr/local/share/ca-certificates",
    "/etc/pki/ca-trust/source/anchors",
    "/etc/pki/trust/anchors",
)
BEGIN = re.compile(rb"-----BEGIN (?:TRUSTED |X509 )?CERTIFICATE-----")
END = b"-----END"


def fingerprints(bundle: bytes) -> list[str]:
    """SHA-256 of the DER of each PEM certificate, lower-case hex, in the bundle's order.

    A block that is not base64 is left out: programs that read the bundle skip it as well.
    """
    return [hashlib.sha256(der).hexdigest() for der in _certificates(bundle)]


def _certificates(bundle: bytes) -> list[bytes]:
    """The DER of each PEM certificate."""
    found = []
    for block in BEGIN.split(bundle)[1:]:
        try:
            der = binascii.a2b_base64(block[: block.find(END)])
        except binascii.Error:
            continue
        if der:
            found.append(der)
    return found


def _anchors(reader: Reader) -> list[dict[str, Any]]:
    """What each added certificate is like; names are told apart, not told: they are a customer's.

    Times are Unix seconds. A file that is no certificate has only a path.
    """
    found = []
    for folder in ANCHORS:
        for name in reader.names(folder):
            path = f"{folder}/{name}"
            for der in _certificates(reader.data(path) or b""):
                try:
                    one = read_certificate(der)
                except DERError as error:
                    reader.miss(f"trust.anchors.{path}", error)
                    continue
                found.append(
                    {
                        "path": path,
                        "sha256": one.sha256,
                        "key": one.key_type,
                        "bits": one.key_bits,
                        "signature": one.signature_algorithm,
                        "not_before": one.not_before.timestamp(),
                        "not_after": one.not_after.timestamp(),
                        "ca": one.is_ca,
                        "subject": hashlib.sha256(one.subject).hexdigest()[:16],
                        "issuer": hashlib.sha256(one.issuer).hexdigest()[:16],
                    }
                )
    return found


def _airlock_ca(reader: Reader) -> Optional[dict[str, str]]:
    """The CA our installer added, by the name of its file."""
    for folder in ANCHORS:
        for name in reader.names(folder):
            if "airlock" in name:
                found = fingerprints(reader.data(f"{folder}/{name}") or b"")
                if found:
                    return {"path": f"{folder}/{name}", "sha256": found[0]}
    return None


def collect(reader: Reader) -> dict[str, Any]:
    """``os_bundle`` is None where the node has no bundle at any known place."""
    for path in BUNDLES:
        data = reader.data(path)
        if data is not None:
            break
    else:
        reader.miss("trust.os_bundle", f"none of {', '.join(BUNDLES)} can be read")
        return {
            "os_bundle": None,
            "fingerprints": [],
            "count": 0,
            "airlock_ca": None,
            "anchors": _anchors(reader),
        }
    found = fingerprints(data)
    return {
        "os_bundle": path,
        "fingerprints": found,
        "count": len(found),
        "airlock_ca": _airlock_ca(reader),
        "anchors": _anchors(reader),
    }
