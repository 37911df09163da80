"""The OS trust store: the fingerprint of every certificate in the bundle programs read."""

from __future__ import annotations

import os
from typing import Any, Optional

from installers.collect import authorities
from installers.collect.certificates import fingerprints
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
        return {**nothing, "airlock_ca": None, **authorities.collect(reader, [])}
    found = fingerprints(data)
    return {
        "os_bundle": path,
        "mode": f"{os.stat(reader.path(path)).st_mode & 0o7777:04o}",  # noqa: PTH116
        "fingerprints": found,
        "count": len(found),
        "airlock_ca": _airlock_ca(reader),
        **authorities.collect(reader, found),
    }
