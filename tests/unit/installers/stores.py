"""Fingerprints that key stores and bundles below a root hold, one line each, as tools see them."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

from installers import keystore, pem
from installers.jvmstores import QUICK
from tests.unit.installers.tools import run


def fingerprints(root: str, path: str) -> set[str]:
    """JKS by our own reader, which has its own test; what needs a password by keytool."""
    data = Path(f"{root}{path}").read_bytes()
    if b"-----BEGIN" in data:
        return pem.fingerprints(data)
    found = keystore.certificates(data)
    if found is not None:
        return {hashlib.sha256(der).hexdigest() for der in found.values()}
    argv = ("keytool", *QUICK, "-list", "-rfc", "-keystore", path, "-storepass", "changeit")
    return pem.fingerprints(run("chroot", root, *argv).encode())


if __name__ == "__main__":
    for name in sys.argv[2:]:
        print(*sorted(fingerprints(sys.argv[1], name)))
