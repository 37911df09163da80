"""What the firmware and the kernel trust: SecureBoot, SetupMode, lockdown, db, dbx, keyrings."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path
from typing import Any, Optional

from installers.asn1 import Certificate, DERError, read_certificate
from installers.collect import boot, efi, keyrings
from installers.collect.reader import Reader

# shim's own namespace (shim, lib/guid.c).
SHIM = "605dab50-e046-4300-abb6-3dd810dd8b23"
ESP = "/boot/efi/EFI"
SHIMS = ("/usr/lib/shim/shimx64.efi.signed", "/usr/share/shim/shimx64.efi")
HEAD = 4096
LOCKDOWN = "/sys/kernel/security/lockdown"


def selected(text: Optional[str]) -> Optional[str]:
    """The bracketed word of "none [integrity] confidentiality"."""
    if not text or "[" not in text:
        return None
    return text.split("[", 1)[1].split("]", 1)[0]


@functools.lru_cache(maxsize=64)
def _parsed(der: bytes) -> Optional[Certificate]:
    """The certificate these bytes are, None where they are none."""
    try:
        return read_certificate(der)
    except DERError:
        return None


def certificates(data: Optional[bytes]) -> list[Certificate]:
    """Every certificate in a ``db`` value that can be read as one."""
    found = [_parsed(entry.data) for entry in efi.signatures(data or b"") if entry.kind == efi.X509]
    return [certificate for certificate in found if certificate is not None]


def database(data: Optional[bytes]) -> list[dict[str, Optional[str]]]:
    """Certificates of ``db``; one that is not DER still counts, by its digest."""
    listed: list[dict[str, Optional[str]]] = []
    for entry in efi.signatures(data or b""):
        if entry.kind == efi.X509:
            found = _parsed(entry.data)
            name = None if found is None else found.subject_cn
            listed.append({"sha256": hashlib.sha256(entry.data).hexdigest(), "subject_cn": name})
    return listed


def collect(reader: Reader, variables: efi.Variables) -> dict[str, Any]:
    """The state of Secure Boot.

    ``enabled`` is None where there is no UEFI; ``db`` is [] there. ``dbx_entries`` counts hashes
    and certificates alike, 0 where the firmware has no dbx. ``mok``: the machine owner's list as
    shim shows it; ``mok_unverified``: shim was told not to verify. ``shim``
    and ``sbat_level``: the generation of each component in the one, and the least by the other.
    """
    keys = keyrings.collect(reader)
    facts: dict[str, Any] = {
        "shim": _shim(reader),
        "efi": None,
        "enabled": None,
        "setup_mode": None,
        "lockdown": None,
        "keyrings": keys,
        "db": [],
        "dbx_entries": None,
        "mok": None,
        "mok_unverified": None,
        "sbat_level": None,
    }
    if not reader.need_live("secure_boot.enabled"):
        return facts
    facts["efi"] = Path("/sys/firmware/efi").is_dir()
    facts["lockdown"] = selected(reader.line(LOCKDOWN, "secure_boot.lockdown"))
    if not facts["efi"]:
        reader.miss("secure_boot.enabled", "the machine was not started by UEFI firmware")
        return facts
    facts["enabled"] = variables.flag(reader, "SecureBoot", "secure_boot.enabled")
    facts["setup_mode"] = variables.flag(reader, "SetupMode", "secure_boot.setup_mode")
    return {**facts, **lists(reader, variables)}


def lists(reader: Reader, variables: efi.Variables) -> dict[str, Any]:
    """What firmware and shim trust and revoke: db, dbx_entries, mok, mok_unverified, sbat_level."""
    found: dict[str, Any] = {"db": [], "dbx_entries": None, "mok": None}
    try:
        found["db"] = database(variables.read(reader, "db", efi.IMAGE_SECURITY, "secure_boot.db"))
        found["dbx_entries"] = len(
            efi.signatures(variables.read(reader, "dbx", efi.IMAGE_SECURITY) or b"")
        )
        found["mok"] = database(variables.read(reader, "MokListRT", SHIM))
    except efi.SignatureListError as error:
        reader.miss("secure_boot.db", error)
    state = variables.read(reader, "MokSBStateRT", SHIM)
    level = variables.read(reader, "SbatLevelRT", SHIM)
    return {
        **found,
        "mok_unverified": (state or b"")[-1:] == b"\1",
        "sbat_level": None if level is None else generations(level),
    }


def generations(text: bytes) -> dict[str, int]:
    """Component -> generation, of a .sbat section or a level: lines of "shim,4,..."."""
    found = {}
    for line in text.rstrip(b"\0").decode("ascii", "replace").splitlines():
        words = line.split(",")
        if len(words) > 1 and words[1].isdigit():
            found[words[0]] = int(words[1])
    return found


def _shim(reader: Reader) -> Optional[dict[str, Any]]:
    """The shim that the next boot takes, or else the one that its package brings."""
    vendors = (f"{ESP}/{name}/shimx64.efi" for name in reader.names(ESP))
    for path in (*vendors, *SHIMS):
        data = reader.data(path)
        place = None if data is None else boot.section(data[:HEAD], b".sbat")
        if data is not None:
            offset, size = place or (0, 0)
            sbat = data[offset : offset + size]
            return {"path": path, "generations": generations(sbat)}
    return None
