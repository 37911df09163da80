"""DKMS, told to sign with this node's signer, so that a later kernel's modules are signed alike.

DKMS (3.0, read in its source) calls ``sign_file HASH KEY CERT MODULE``, goes on when that fails,
and makes a key of its own when the named one is not a file: both end in modules that no kernel
loads, found at the next boot. So the key is named as a PKCS#11 one, which DKMS leaves alone, and a
module that could not be signed ends DKMS at once.
"""

from __future__ import annotations

from typing import Optional

from installers.host import Host
from installers.units import NODE_FILE

CONF = "/etc/dkms/framework.conf.d/airlock.conf"
SIGN = "/usr/lib/airlock/dkms-sign"
CERTIFICATE = "/usr/lib/airlock/signing-cert.der"
_PROGRAMS = ("/usr/sbin/dkms", "/usr/bin/dkms")
CONF_TEXT = f"""\
# Written by Airlock: modules for later kernels are signed by the same signer, or not at all.
sign_file="{SIGN}"
mok_signing_key="pkcs11:airlock"
mok_certificate="{CERTIFICATE}"
"""
# $PPID is dkms, which would otherwise install the module unsigned.
SIGN_TEXT = f"""\
#!/bin/sh
# Written by Airlock. Called by dkms: HASH KEY CERTIFICATE MODULE.
python3 {NODE_FILE} sign-modules --kernel "${{kernelver:-}}" "$4" && exit 0
echo "airlock: $4 was not signed: no kernel under Secure Boot would load it" >&2
rm -f -- "$4"
kill -TERM "$PPID"
exit 1
"""


def _program(host: Host) -> Optional[str]:
    return next((text for path in _PROGRAMS for text in [host.read(path)] if text), None)


def inspect(host: Host) -> str:
    """``ours``, ``differs`` or ``absent``."""
    found = (host.read(CONF), host.read(SIGN))
    if found == (CONF_TEXT, SIGN_TEXT):
        return "ours"
    return "absent" if found == (None, None) else "differs"


def desired(host: Host, *, signs: bool) -> str:
    """``ours`` where there is a DKMS that can be told its signer and a signer to tell."""
    return "ours" if signs and can_be_told(host) else "absent"


def can_be_told(host: Host) -> bool:
    """Whether DKMS is there and takes its signer from framework.conf (3.0 and later)."""
    return "mok_signing_key" in (_program(host) or "")


def notes(host: Host) -> list[str]:
    """What a plan says of a DKMS that cannot be told."""
    if _program(host) is None or can_be_told(host):
        return []
    return [
        "this DKMS cannot be told its signer: a later kernel's modules are left to Airlock's own "
        "hook, which fails where it cannot sign them"
    ]


def install(host: Host, state: str) -> None:
    """Make ``state`` (of ``desired``) true."""
    if state == "ours":
        host.write(SIGN, SIGN_TEXT, mode=0o755)
        host.write(CONF, CONF_TEXT)
    else:
        host.remove(CONF)
        host.remove(SIGN)
