"""What an image's firmware is to trust: our certificates and Microsoft's, as files and lists.

A list of our own replaces the platform's defaults, so Microsoft's CAs are kept, those of 2011 and
of 2023: the first ended in June 2026 and old boot loaders still carry it, new ones are signed under
the second only (rhboot/shim#679).
"""

from __future__ import annotations

import datetime as dt
import hashlib
import struct
import uuid
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from harness.errors import InfraError
from installers.asn1 import Certificate, load_certificate
from installers.collect import efi
from installers.enrolled import X509_SHA256

#: Owner of our entries; any fixed GUID does (UEFI 2.10, 32.4.1).
OWNER = uuid.uuid5(uuid.NAMESPACE_DNS, "airlock.keys")
MICROSOFT_OWNER = uuid.UUID("77fa9abd-0359-4d32-bd60-28f4e78f784b")
#: File below virt-firmware's certificates -> the name under which Microsoft publishes it.
MICROSOFT = {
    "windows-2011.pem": "MicWinProPCA2011",
    "ms-uefi-2011.pem": "MicCorUEFCA2011",
    "windows-2023.pem": "windows_uefi_ca_2023",
    "ms-uefi-2023.pem": "microsoft_uefi_ca_2023",
}
_NEVER = bytes(16)  # EFI_TIME of zeros: revoked whenever it was signed


@cache
def microsoft() -> dict[str, Certificate]:
    """Microsoft's four CAs by their published names. InfraError where virt-firmware lacks one."""
    import virt.firmware

    folder = Path(virt.firmware.__path__[0], "certs/microsoft.com")
    try:
        return {name: load_certificate((folder / f).read_bytes()) for f, name in MICROSOFT.items()}
    except OSError as error:
        raise InfraError(
            f"Microsoft's certificates: {error}", hint="update virt-firmware"
        ) from error


def warnings(certificates: dict[str, Certificate], now: dt.datetime) -> list[str]:
    """Certificates that have ended or end within a year, for people."""
    said = []
    for name, certificate in certificates.items():
        end = certificate.not_after
        if end < now:
            said.append(f"{name} ended on {end:%Y-%m-%d}: kept for boot loaders signed before")
        elif end - now < dt.timedelta(days=365):
            said.append(f"{name} ends on {end:%Y-%m-%d}")
    return said


def signature_list(kind: uuid.UUID, owner: uuid.UUID, data: bytes) -> bytes:
    """One EFI_SIGNATURE_LIST with one entry (UEFI 2.10, 32.4.1)."""
    body = owner.bytes_le + data
    size = efi.LIST_HEADER.size + len(body)
    return struct.pack("<16sIII", kind.bytes_le, size, 0, len(body)) + body


def allowed(ours: Sequence[Certificate]) -> bytes:
    """The value of ``db``: ours and Microsoft's."""
    lists = [signature_list(efi.X509, OWNER, one.der) for one in ours]
    lists += [signature_list(efi.X509, MICROSOFT_OWNER, one.der) for one in microsoft().values()]
    return b"".join(lists)


def forbidden(revoked: Sequence[Certificate]) -> bytes:
    """The value of ``dbx``: each certificate whole, and by the hash of its signed part.

    Firmware heeds them for what it starts. For modules a kernel heeds the certificate where it was
    built with CONFIG_SYSTEM_REVOCATION_LIST, and the hash in no case, because it takes the time
    behind it for a part of it (docs/kernel-trust.md: measured).
    """
    lists = []
    for one in revoked:
        lists.append(signature_list(efi.X509, OWNER, one.der))
        digest = hashlib.sha256(one.tbs).digest() + _NEVER
        lists.append(signature_list(uuid.UUID(X509_SHA256), OWNER, digest))
    return b"".join(lists)
