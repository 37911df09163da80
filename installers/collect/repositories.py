"""apt's keyrings and sources: which keys vouch for which repository.

Of every keyring that an entry names, and of those that lie where keyrings of ours do.
"""

from __future__ import annotations

import os
from typing import Any, Optional

from installers import aptentries, openpgp
from installers.collect.reader import Reader

_SOURCES = "/etc/apt/sources.list.d"
_RINGS = "/usr/share/keyrings"
# A keybox begins with a header blob of this magic (GnuPG, kbx/keybox-blob.c); apt reads none.
_KEYBOX = b"KBXf"


def collect(reader: Reader) -> dict[str, Any]:
    """``keyrings``: path, mode (octal), format, fingerprints, ``why`` if they cannot be read.
    ``sources``: path, uris, suites, signed_by of each entry that is on; deb822 files only.
    """
    sources = []
    for name in reader.names(_SOURCES):
        if name.endswith(".sources"):
            path = f"{_SOURCES}/{name}"
            for fields in aptentries.stanzas(reader.text(path) or ""):
                sources.append(
                    {
                        "path": path,
                        "uris": fields.get("uris", ""),
                        "suites": fields.get("suites", ""),
                        "signed_by": fields.get("signed-by"),
                    }
                )
    named = {str(source["signed_by"]) for source in sources}
    rings = {f"{_RINGS}/{name}" for name in reader.names(_RINGS) if name.startswith("airlock-")}
    rings |= {path for path in named if path.startswith("/")}
    return {"keyrings": [_ring(reader, path) for path in sorted(rings)], "sources": sources}


def _ring(reader: Reader, path: str) -> dict[str, Any]:
    data = reader.data(path)
    if data is None:
        return {"path": path, "mode": None, "format": None, "fingerprints": [], "why": "absent"}
    why: Optional[str] = None
    fingerprints: list[str] = []
    try:
        fingerprints = sorted(found.fingerprint for found in openpgp.read(data))
    except openpgp.OpenPGPError as wrong:
        why = str(wrong)
    return {
        "path": path,
        "mode": f"{os.stat(reader.path(path)).st_mode & 0o7777:04o}",  # noqa: PTH116
        "format": _format(data),
        "fingerprints": fingerprints,
        "why": why,
    }


def _format(data: bytes) -> str:
    if data[8:12] == _KEYBOX:
        return "keybox"
    if data.lstrip().startswith(b"-----BEGIN"):
        return "armored"
    # Every packet begins with a byte whose highest bit is set (RFC 4880, 4.2).
    return "binary" if data[:1] >= b"\x80" else "other"
