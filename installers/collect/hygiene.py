"""What must not be in an image: private keys, secrets, leftovers of the build.

The facts look where such things usually are, by name; ``installers.collect.search`` reads every
byte, which takes seconds, and is an operation of its own.
"""

# Thousands of files are looked at: Path objects would cost more than reading them.
# ruff: noqa: PTH116, PTH119, PTH123

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Any, Optional

from installers.collect import inherited
from installers.collect.reader import Reader

MACHINE_ID = "/etc/machine-id"
PEM_KEY = rb"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----[\r\n]"
KEY_FOLDERS = (
    "/etc/ssl",
    "/etc/pki",
    "/etc/airlock",
    "/root",
    "/home",
    "/opt",
    "/var/lib/airlock",
    "/usr/lib/airlock",
    "/usr/share/airlock",
    "/usr/share/nvidia",
    "/var/lib/shim-signed",
    "/var/lib/dkms",
)
# Facts are to be quick; whole home directories are what a search is for.
KEY_DEPTH = 3
KEY_NAME = re.compile(r"\.(?:key|pem|priv|der|p8|p12|pfx)$|^id_[a-z0-9]+$|private|MOK", re.I)
# Paths that only a build makes; a name ending in /* stands for what is in the folder.
LEFTOVERS = (
    "/usr/sbin/policy-rc.d",
    "/var/cache/apt/archives/*.deb",
    "/var/cache/apt/archives/partial/*",
    "/var/lib/apt/lists/partial/*",
    "/etc/apt/apt.conf.d/*airlock-build*",
    "/run/airlock/sign.sock",
    "/run/airlock/apt.conf",
    "/tmp/*",  # noqa: S108
    "/var/tmp/*",  # noqa: S108
)
# What systemd and cloud-init make at each boot is no leftover.
EXPECTED = re.compile(
    r"/systemd-private-|/\.(?:X11|ICE|XIM|font)-unix$|^/tmp/airlock-\d|^/var/tmp/cloud-init$"
)
HEAD = 4096


def is_private_key(head: bytes) -> bool:
    """PEM of any kind, or DER of PKCS#8, PKCS#1 or SEC 1, by the first bytes of a file."""
    if re.search(PEM_KEY, head):
        return True
    # SEQUENCE { INTEGER 0 or 1, then SEQUENCE (PKCS#8), INTEGER (PKCS#1), OCTET STRING (SEC 1)
    match = re.match(rb"\x30(?:[\x20-\x7f]|\x81.|\x82..)\x02\x01([\x00\x01])(.)", head, re.S)
    if not match:
        return False
    return match.groups() in (
        (b"\0", b"\x30"),
        (b"\0", b"\x02"),
        (b"\1", b"\x04"),
        (b"\1", b"\x30"),
    )


def files_below(folder: str, depth: int = 1 << 16) -> Iterator[str]:
    """Every regular file down to ``depth`` folders below; links are not followed.

    Other file systems are not entered: that keeps /proc, /sys and network mounts out whatever
    they are below.
    """
    try:
        device = os.lstat(folder).st_dev
    except OSError:
        return
    waiting = [(folder, depth)]
    while waiting:
        here, left = waiting.pop()
        try:
            with os.scandir(here) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        if left > 1 and entry.stat(follow_symlinks=False).st_dev == device:
                            waiting.append((entry.path, left - 1))
                    elif entry.is_file(follow_symlinks=False):
                        yield entry.path
        except OSError:
            continue


def private_keys(reader: Reader) -> list[str]:
    """Files in the usual places that hold a private key. Host keys of SSH are told separately."""
    found = []
    for folder in KEY_FOLDERS:
        base = reader.path(folder)
        for real in files_below(base, KEY_DEPTH):
            if not KEY_NAME.search(os.path.basename(real)):
                continue
            path = folder + real[len(base) :]
            try:
                with open(real, "rb") as file:
                    if is_private_key(file.read(HEAD)):
                        found.append(path)
            except OSError as error:
                reader.miss(f"hygiene.private_keys.{path}", error)
    return sorted(found)


def _leftovers(reader: Reader) -> list[str]:
    """Which of LEFTOVERS exist."""
    found = []
    for pattern in LEFTOVERS:
        folder, name = pattern.rsplit("/", 1)
        wanted = re.compile(re.escape(name).replace(r"\*", ".*") + r"\Z")
        listed = [f"{folder}/{entry}" for entry in reader.names(folder) if wanted.match(entry)]
        found += [path for path in listed if not EXPECTED.search(path)]
    return sorted(found)


def _host_keys(reader: Reader) -> list[dict[str, Any]]:
    """SSH host keys and when each was made (its mtime, Unix seconds)."""
    found = []
    for name in reader.names("/etc/ssh"):
        if re.match(r"ssh_host_\w+_key$", name):
            path = f"/etc/ssh/{name}"
            mtime = _mtime(reader, path)
            if mtime is not None:
                found.append({"path": path, "mtime": mtime})
    return found


def _mtime(reader: Reader, path: str) -> Optional[float]:
    """When a file was last written, Unix seconds; None where it is not there."""
    try:
        return os.stat(reader.path(path)).st_mtime
    except OSError as error:
        reader.miss(f"hygiene.mtime.{path}", error)
        return None


def collect(reader: Reader) -> dict[str, Any]:
    """What a quick look finds; ``secrets`` is [] here, a search fills it. For what came with an
    image see installers.collect.inherited.
    """
    return {
        **inherited.collect(reader),
        "private_keys": private_keys(reader),
        "secrets": [],
        "leftovers": _leftovers(reader),
        "ssh_host_keys": _host_keys(reader),
        "machine_id": reader.line(MACHINE_ID),
        "machine_id_mtime": _mtime(reader, MACHINE_ID),
    }
