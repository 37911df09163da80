"""The OS trust store: the fingerprint of every certificate in the bundle programs read, and what
the certificates are like that somebody added to it."""

from __future__ import annotations

import hashlib
import os
from typing import Any, Optional

from installers.asn1 import DERError, read_certificate
from installers.collect import authorities
from installers.collect.certificates import ders, fingerprints
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


def _added(reader: Reader) -> list[dict[str, Any]]:
    """What each certificate among the anchors is like: from this one is made that is like it.

    Times are Unix seconds; subject and issuer are told apart, not told.
    """
    found = []
    for folder in ANCHORS:
        for name in reader.names(folder):
            path = f"{folder}/{name}"
            for der in ders(reader.data(path) or b""):
                try:
                    one = read_certificate(der)
                except DERError as error:
                    reader.miss(f"trust.added.{path}", error)
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
    """``os_bundle`` is None where the node has no bundle at any known place; ``mode`` is its own,
    in octal. For the rest see installers.collect.authorities.
    """
    for path in BUNDLES:
        data = reader.data(path)
        if data is not None:
            break
    else:
        reader.miss("trust.os_bundle", f"none of {', '.join(BUNDLES)} can be read")
        nothing: dict[str, Any] = {"os_bundle": None, "mode": None, "fingerprints": [], "count": 0}
        return {
            **nothing,
            "airlock_ca": None,
            "added": _added(reader),
            **authorities.collect(reader, []),
        }
    found = fingerprints(data)
    return {
        "os_bundle": path,
        "mode": f"{os.stat(reader.path(path)).st_mode & 0o7777:04o}",  # noqa: PTH116
        "fingerprints": found,
        "count": len(found),
        "airlock_ca": _airlock_ca(reader),
        "added": _added(reader),
        **authorities.collect(reader, found),
    }
