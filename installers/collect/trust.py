"""The OS trust store: the fingerprint of every certificate in the bundle programs read."""

from __future__ import annotations

import binascii
import hashlib
import re
from typing import Any, Optional

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
    found = []
    for block in BEGIN.split(bundle)[1:]:
        try:
            der = binascii.a2b_base64(block[: block.find(END)])
        except binascii.Error:
            continue
        if der:
            found.append(hashlib.sha256(der).hexdigest())
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
        return {"os_bundle": None, "fingerprints": [], "count": 0, "airlock_ca": None}
    found = fingerprints(data)
    return {
        "os_bundle": path,
        "fingerprints": found,
        "count": len(found),
        "airlock_ca": _airlock_ca(reader),
    }
