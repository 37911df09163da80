"""UEFI firmware: code, and a variable store whose ``db`` has Microsoft's certificates and ours."""

from __future__ import annotations

import importlib.resources
import struct
import subprocess
import sys
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.errors import InfraError
from harness.lab.namespace import host_env

_DIRS = (Path("/usr/share/OVMF"), Path("/usr/share/edk2/ovmf"), Path("/usr/share/qemu"))
# Owner of our entries in ``db``; any fixed GUID does (UEFI 2.10, 32.4.1).
_OWNER = str(uuid.uuid5(uuid.NAMESPACE_DNS, "airlock.test"))
# Microsoft's own GUID, and its CA of 2023. Distributions' templates know that of 2011, which signs
# nothing since June 2026; newer boot loaders carry a signature by that of 2023 alone.
_MICROSOFT = "77fa9abd-0359-4d32-bd60-28f4e78f784b"
_OF_2023 = "microsoft.com/ms-uefi-2023.pem"
#: What is in db besides the certificates of :func:`enroll`, for keys of what depends on it.
KNOWN = ("microsoft 2011", "microsoft 2023")
# EFI_VARIABLE_AUTHENTICATION_2 (UEFI 2.10, 8.2.2) without a signature: nobody checks one in a store
# that is written from outside. Length, revision, type, EFI_CERT_TYPE_PKCS7_GUID.
_PKCS7 = uuid.UUID("4aafd29d-68df-49ee-8aa9-347d375665a7")
_UNSIGNED_UPDATE = bytes(16) + struct.pack("<IHH16s", 24, 0x0200, 0x0EF1, _PKCS7.bytes_le)


@dataclass(frozen=True)
class Firmware:
    """OVMF's code that enforces Secure Boot, and a variable store with Microsoft's keys."""

    code: Path
    variables: Path


def find() -> Firmware:
    """The firmware of this machine; raises :class:`InfraError` naming the package if missing."""
    for directory in _DIRS:
        code = directory / "OVMF_CODE_4M.secboot.fd"
        variables = directory / "OVMF_VARS_4M.ms.fd"
        if code.exists() and variables.exists():
            return Firmware(code, variables)
    raise InfraError(
        "no OVMF firmware with Secure Boot and Microsoft's keys", hint="airlock doctor --fix (ovmf)"
    )


def enroll(
    firmware: Firmware,
    certificates: list[Path],
    store: Path,
    *,
    owner: Sequence[Path] = (),
    revoked: bytes = b"",
    enforced: bool = True,
) -> None:
    """Write a variable store to ``store``: Microsoft's of 2011 and 2023, ``certificates`` (PEM).

    ``owner``: certificates (PEM) in shim's list of the machine owner's keys (MOK). ``revoked``: the
    value of ``dbx``, as ``airlock keys revoke`` writes it (``dbx.esl``).
    Secure Boot is on in the result if ``enforced``. ``--enroll-cert`` of the same tool would leave
    ``db`` empty.
    """
    argv = [sys.executable, "-m", "virt.firmware.vars"]
    argv += ["-i", str(firmware.variables), "-o", str(store)]
    # virt-firmware brings the certificates of those who sign boot loaders.
    new_ca = importlib.resources.files("virt.firmware").joinpath("certs", _OF_2023)
    argv += ["--add-db-cert", _MICROSOFT, str(new_ca)]
    argv += ["--sb"] if enforced else ["--set-false", "SecureBootEnable"]
    # A machine that restarts of its own accord has failed; shim's fallback would (see its README).
    argv += ["--set-fallback-no-reboot"]
    for certificate in certificates:
        argv += ["--add-db-cert", _OWNER, str(certificate)]
    for certificate in owner:
        argv += ["--add-mok", _OWNER, str(certificate)]
    if revoked:
        update = store.with_suffix(".dbx")
        update.write_bytes(_UNSIGNED_UPDATE + revoked)
        argv += ["--set-dbx", str(update)]
    done = subprocess.run(argv, capture_output=True, text=True, env=host_env(), check=False)
    if done.returncode or not store.exists():
        raise InfraError(f"virt-fw-vars failed: {(done.stderr or done.stdout).strip()[-300:]}")
