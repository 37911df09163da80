"""What the firmware and the kernel trust: SecureBoot, SetupMode, lockdown, db, dbx, keyrings."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path
from typing import Any, Optional

from installers.asn1 import Certificate, DERError, read_certificate
from installers.collect import efi, keyrings
from installers.collect.reader import Reader

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
    and certificates alike, None where the firmware has no dbx.
    """
    keys = keyrings.collect(reader)
    facts: dict[str, Any] = {
        "efi": None,
        "enabled": None,
        "setup_mode": None,
        "lockdown": None,
        "keyrings": keys,
        "db": [],
        "dbx_entries": None,
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
    try:
        facts["db"] = database(variables.read(reader, "db", efi.IMAGE_SECURITY, "secure_boot.db"))
        revoked = variables.read(reader, "dbx", efi.IMAGE_SECURITY)
        facts["dbx_entries"] = None if revoked is None else len(efi.signatures(revoked))
    except efi.SignatureListError as error:
        reader.miss("secure_boot.db", error)
    return facts
