"""apt's keyrings and sources: which keys vouch for which repository, and for how long.

Of every keyring that an entry names, and of those that lie where keyrings of ours do.
"""

from __future__ import annotations

import os
import time
from typing import Any, Optional

from installers import aptentries, keypolicy, openpgp
from installers.collect.reader import Reader

_LIST = "/etc/apt/sources.list"
_SOURCES = "/etc/apt/sources.list.d"
_RINGS = "/usr/share/keyrings"
# Keys in these vouch for every repository that names none (apt-secure(8)).
_GLOBAL = "/etc/apt/trusted.gpg"
_GLOBAL_PARTS = "/etc/apt/trusted.gpg.d"
_DPKG = "/var/lib/dpkg/info"
# A keybox begins with a header blob of this magic (GnuPG, kbx/keybox-blob.c); apt reads none.
_KEYBOX = b"KBXf"
_RSA = (1, 3)
_DSA = 17
_YES = ("yes", "true", "with", "on", "enable")


def collect(reader: Reader) -> dict[str, Any]:
    """``keyrings``: path, mode (octal), format, fingerprints, ``why`` if they cannot be read, and
    what each key is worth (``keys``), but for those of the distribution's own packages.
    ``sources``: path, uris, suites, signed_by, unchecked of each entry that is on; signed_by is
    None where any key will do, unchecked an option that takes what nobody signed. ``trusted``: path
    and owner (a package) of the files whose keys vouch for everything.
    """
    sources = []
    paths = [_LIST, *(f"{_SOURCES}/{name}" for name in reader.names(_SOURCES))]
    for path in paths:
        if path.endswith(".sources"):
            sources += [_deb822(path, one) for one in aptentries.stanzas(reader.text(path) or "")]
        elif path.endswith(".list"):
            found = aptentries.sources(reader.text(path) or "", path)
            sources += [_one_line(path, one) for one in found]
    named = {word for source in sources for word in str(source["signed_by"] or "").split()}
    rings = {f"{_RINGS}/{name}" for name in reader.names(_RINGS) if name.startswith("airlock-")}
    rings |= {path for path in named if path.startswith("/")}
    owners = _owners(reader)
    return {
        "keyrings": [_ring(reader, path, owners.get(path)) for path in sorted(rings)],
        "sources": sources,
        "trusted": _trusted(reader, owners),
    }


def _deb822(path: str, fields: dict[str, str]) -> dict[str, Any]:
    return {
        "path": path,
        "uris": fields.get("uris", ""),
        "suites": fields.get("suites", ""),
        "signed_by": fields.get("signed-by"),
        "unchecked": _unchecked(fields),
    }


def _one_line(path: str, one: aptentries.Source) -> dict[str, Any]:
    given = (option.lower().partition("=") for option in one.options)
    return {
        "path": path,
        "uris": " ".join(one.uris),
        "suites": " ".join(one.suites),
        "signed_by": " ".join(one.signed_by) or None,
        "unchecked": _unchecked({name: value for name, _, value in given}),
    }


def _unchecked(fields: dict[str, str]) -> Optional[str]:
    """The option by which apt takes what nobody signed; sources.list(5)."""
    for name in ("trusted", "allow-insecure", "allow-weak", "allow-downgrade-to-insecure"):
        if fields.get(name, "").lower() in _YES:
            return f"{name}={fields[name]}"
    return None


def _owners(reader: Reader) -> dict[str, str]:
    """Path -> package, of every file of the distribution's packages of keys."""
    owners = {}
    for name in reader.names(_DPKG):
        if name.endswith(".list") and "archive-keyring" in name:
            for path in (reader.text(f"{_DPKG}/{name}") or "").splitlines():
                owners[path] = name[: -len(".list")].partition(":")[0]
    return owners


def _trusted(reader: Reader, owners: dict[str, str]) -> list[dict[str, Optional[str]]]:
    paths = [f"{_GLOBAL_PARTS}/{name}" for name in reader.names(_GLOBAL_PARTS)]
    # apt of a Debian that had apt-key leaves an empty file behind.
    if reader.data(_GLOBAL):
        paths.append(_GLOBAL)
    return [
        {"path": path, "owner": owners.get(path)}
        for path in sorted(paths)
        if path.endswith((".gpg", ".asc"))
    ]


def _ring(reader: Reader, path: str, owner: Optional[str]) -> dict[str, Any]:
    data = reader.data(path)
    if data is None:
        nothing: dict[str, Any] = {
            "path": path,
            "mode": None,
            "format": None,
            "fingerprints": [],
            "keys": [],
        }
        return {**nothing, "why": "absent"}
    why: Optional[str] = None
    held: list[openpgp.Certificate] = []
    try:
        held = openpgp.read(data)
    except openpgp.OpenPGPError as wrong:
        why = str(wrong)
    return {
        "path": path,
        "mode": f"{os.stat(reader.path(path)).st_mode & 0o7777:04o}",  # noqa: PTH116
        "format": _format(data),
        "fingerprints": sorted(found.fingerprint for found in held),
        # The distribution looks after its own; to judge them takes longer than all other facts.
        "keys": [] if owner else [_key(found) for found in held],
        "why": why,
    }


def _key(found: openpgp.Certificate) -> dict[str, Any]:
    """``ends``: Unix seconds, None for never; ``unusable`` and ``weak``: why, or empty."""
    judged = keypolicy.judge(found, time.time())
    weak = f"only {judged.hash} vouches for it" if judged.weak else ""
    if found.key.algorithm == _DSA:
        weak = "is a DSA key"
    elif found.key.algorithm in _RSA:
        # A multi-precision integer begins with how many bits it has (RFC 9580, 3.2).
        bits = int.from_bytes(found.key.material[:2], "big")
        if bits < keypolicy.LEAST_RSA_BITS:
            weak = f"is an RSA key of {bits} bits"
    return {
        "fingerprint": judged.fingerprint,
        "ends": judged.expires,
        "unusable": judged.unusable,
        "weak": weak,
    }


def _format(data: bytes) -> str:
    if data[8:12] == _KEYBOX:
        return "keybox"
    if data.lstrip().startswith(b"-----BEGIN"):
        return "armored"
    # Every packet begins with a byte whose highest bit is set (RFC 4880, 4.2).
    return "binary" if data[:1] >= b"\x80" else "other"
