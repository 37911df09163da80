"""Whether a running machine's firmware knows the certificate that is to sign its modules.

Asked before anything is built: a module signed by a certificate that is in neither ``db`` nor MOK
is refused by the kernel, and one in ``dbx`` was revoked. The machine that builds an image is not
asked: the image brings a ``db`` of its own.
"""

from __future__ import annotations

import hashlib
from typing import Optional

from installers.asn1 import Certificate
from installers.collect import efi
from installers.engine import Refusal
from installers.host import Host

_SHIM = "605dab50-e046-4300-abb6-3dd810dd8b23"
#: UEFI 2.10, 32.4.1: SHA-256 of a certificate's signed part, followed by the time of revocation.
X509_SHA256 = "3bd2a492-96c0-4079-b420-fcf98ef103ed"
_REMEDY = (
    "give the machine an image whose db has it (airlock keys create writes the list), "
    "or enrol it: mokutil --import CERT.der, then reboot"
)


def _variable(host: Host, name: str, guid: str) -> Optional[list[efi.Signature]]:
    """The signatures in a variable; None where it is absent or no list."""
    data = host.read_bytes(f"{efi.EFIVARS}/{name}-{guid}")
    if data is None or len(data) < efi.ATTRIBUTES:
        return None
    try:
        return efi.signatures(data[efi.ATTRIBUTES :])
    except efi.SignatureListError:
        return None


def refuse(host: Host, certificate: Certificate) -> list[Refusal]:
    """A revoked or unknown certificate; nothing where there is no firmware to read."""
    revoked = _variable(host, "dbx", efi.IMAGE_SECURITY) or []
    digest = hashlib.sha256(certificate.tbs).digest()
    for entry in revoked:
        whole = entry.kind == efi.X509 and entry.data == certificate.der
        if whole or (str(entry.kind) == X509_SHA256 and entry.data[:32] == digest):
            reason = f"the signing certificate {certificate.sha256} is revoked: dbx names it"
            return [Refusal("driver.revoked", reason, "sign with the key that replaced it")]
    known = _variable(host, "db", efi.IMAGE_SECURITY)
    if known is None:
        return []
    owner = _variable(host, "MokListRT", _SHIM) or []
    if any(entry.data == certificate.der for entry in [*known, *owner]):
        return []
    reason = (
        f"this machine's firmware does not know the signing certificate {certificate.sha256} "
        f"({certificate.subject_cn}): it is in neither db nor MOK"
    )
    return [Refusal("driver.not-enrolled", reason, _REMEDY)]
