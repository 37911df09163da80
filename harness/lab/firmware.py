"""UEFI firmware: code, and a variable store whose ``db`` holds our certificate."""

from __future__ import annotations

import importlib.resources
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
# Microsoft's own GUID, and its CA of 2023: a firmware of today has it, and this one need not.
_MICROSOFT = "77fa9abd-0359-4d32-bd60-28f4e78f784b"
NEW_CA = "microsoft.com/ms-uefi-2023.pem"


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
    enforced: bool = True,
) -> None:
    """Write a variable store to ``store``: Microsoft's keys plus ``certificates`` (PEM) in db.

    ``owner``: certificates (PEM) in shim's list of the machine owner's keys (MOK).
    Secure Boot is on in the result if ``enforced``. ``--enroll-cert`` of the same tool would leave
    ``db`` empty.
    """
    argv = [sys.executable, "-m", "virt.firmware.vars"]
    argv += ["-i", str(firmware.variables), "-o", str(store)]
    # virt-firmware brings the certificates of those who sign boot loaders.
    new_ca = importlib.resources.files("virt.firmware").joinpath("certs", NEW_CA)
    argv += ["--add-db-cert", _MICROSOFT, str(new_ca)]
    argv += ["--sb"] if enforced else ["--set-false", "SecureBootEnable"]
    for certificate in certificates:
        argv += ["--add-db-cert", _OWNER, str(certificate)]
    for certificate in owner:
        argv += ["--add-mok", _OWNER, str(certificate)]
    done = subprocess.run(argv, capture_output=True, text=True, env=host_env(), check=False)
    if done.returncode or not store.exists():
        raise InfraError(f"virt-fw-vars failed: {(done.stderr or done.stdout).strip()[-300:]}")
