"""Facts of a node that has only ``sh``: its files are fetched and read here, by the same readers.

One script prints the files that facts are read from. They are laid out in a folder like the
node's own tree, which is then read as a mounted image would be; what only a running kernel knows
comes from /proc and /sys, and what takes a program of the node's is named as unreadable.
"""

from __future__ import annotations

import secrets
import shlex
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from harness.transports.base import Ran, TransportError
from installers import capture as node_side
from installers.collect import credentials, efi, network, secure_boot
from installers.collect.reader import Reader
from installers.facts import AREAS, Collector

# Patterns for the node's shell; a pattern without a file stands for itself and is skipped.
FILES = """
/etc/machine-id /etc/hostname /etc/os-release /usr/lib/os-release /etc/resolv.conf
/etc/environment /etc/profile.d/*.sh /etc/apt/apt.conf /etc/apt/apt.conf.d/*
/etc/systemd/system.conf /etc/systemd/system.conf.d/*.conf /etc/dnf/dnf.conf
/etc/curlrc /root/.curlrc /etc/wgetrc /etc/gitconfig /etc/pip.conf
/etc/ssl/certs/ca-certificates.crt /etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem
/usr/local/share/ca-certificates/*.crt /etc/pki/ca-trust/source/anchors/*
/etc/systemd/system/airlock-proxy.service
/var/lib/dpkg/status /var/lib/airlock/state.json /var/lib/airlock/journal.jsonl
/usr/lib/airlock/signing-cert.der
/proc/sys/kernel/random/boot_id /proc/sys/kernel/osrelease /proc/sys/kernel/version
/proc/sys/kernel/tainted /proc/sys/kernel/hostname /proc/cmdline /proc/net/route
/proc/net/ipv6_route /proc/modules /sys/kernel/security/lockdown
/sys/module/module/parameters/sig_enforce
/sys/firmware/efi/efivars/SecureBoot-* /sys/firmware/efi/efivars/SetupMode-*
/sys/firmware/efi/efivars/db-* /sys/firmware/efi/efivars/dbx-*
"""
SCRIPT = """\
m=$1; shift
for d in /lib/modules/*/; do [ -d "$d" ] && printf '%s\\n' "$d"; done
printf '%s\\n' "$(getconf GNU_LIBC_VERSION 2>/dev/null)" "$(uname -m)" "$(date +%s)" "$m"
for f in $FILES; do
  if [ -f "$f" ] && [ -r "$f" ]; then printf '%s\\n' "$f"; cat "$f"; printf '%s\\n' "$m"; fi
done
"""
# Areas whose files are above. All others are found empty in the tree that was fetched, which says
# nothing of the node.
FETCHED = (
    *("identity", "os", "kernel", "python", "secure_boot", "network", "proxy", "trust"),
    *("loaded_modules", "signing", "journal", "installers", "packages"),
)
# What a program prints, as if it were a file.
PRINTED = """\
printf '%s\\n' NAME
COMMAND 2>/dev/null
printf '\\n%s\\n' "$m"
"""
LOGS = {
    "/journal.txt": " 2>/dev/null; ".join(map(shlex.join, node_side.JOURNALS)),
    "/kernel.txt": "dmesg",
}
# Parts of those areas that need files which are not above.
PARTS = {"trust": ("stores", "private", "settings", "links")}
NOT_FETCHED = (*(area for area in AREAS if area not in FETCHED), "cards")

Run = Callable[..., Ran]


def facts(run: Run, nonce: str | None, timeout: float, why: str) -> dict[str, Any]:
    """The facts object, ``why`` being the reason given for whatever could not be read."""
    with _fetched(run, timeout, {}) as (folder, lines):
        return _read(folder, lines, nonce, why)


def capture(run: Run, nonce: str | None, timeout: float, why: str) -> dict[str, Any]:
    """What ``installers.capture`` takes, of such a node; secrets are taken out on this side."""
    missing = {"metadata.json": why}
    with _fetched(run, timeout, LOGS) as (folder, lines):
        told = _read(folder, lines, nonce, why)
        found = credentials.find(Reader(folder))
        texts = {}
        for path in LOGS:
            name = path.lstrip("/")
            texts[name] = (Reader(folder).text(path) or "").strip()
    return node_side.clean(told, texts, None, missing, found)


@contextmanager
def _fetched(run: Run, timeout: float, logs: dict[str, str]) -> Iterator[tuple[str, list[str]]]:
    """A folder laid out like the node, and what the script said before: see ``_read``."""
    mark = f"--{secrets.token_hex(16)}"
    script = SCRIPT.replace("$FILES", " ".join(FILES.split()))
    for log, command in logs.items():
        script += PRINTED.replace("NAME", log).replace("COMMAND", command)
    ran = run(["/bin/sh", "-c", script, "sh", mark], timeout=timeout)
    head, separator, rest = ran.out.partition(mark.encode() + b"\n")
    lines = head.decode(errors="replace").splitlines()
    if not separator or len(lines) < 3:
        raise TransportError(f"the node's sh could not read files: {ran.err.decode()[-300:]}")
    with tempfile.TemporaryDirectory(prefix="airlock-facts-") as folder:
        for piece in rest.split(mark.encode() + b"\n"):
            name, newline, data = piece.partition(b"\n")
            if newline:
                # The node chooses what it prints: no name may lead out of the folder.
                parts = name.decode(errors="replace").strip("/").split("/")
                if not {"", ".", ".."}.isdisjoint(parts):
                    raise TransportError(f"the node's sh named a file {name[:200]!r}")
                path = Path(folder, *parts)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
        yield folder, lines


def _read(folder: str, lines: list[str], nonce: str | None, why: str) -> dict[str, Any]:
    """Reads the fetched tree; ``lines``: module folders, the C library, architecture, clock."""
    found = Collector(folder).collect(nonce)
    reader = Reader(folder)
    *modules, library, arch, clock = lines
    found["clock"] = float(clock)
    # getconf(1) says "glibc 2.36"; another C library's knows no such name.
    found["os"]["glibc"] = library.removeprefix("glibc ") or None
    found["identity"]["hostname"] = reader.line("/proc/sys/kernel/hostname")
    found["identity"]["boot_id"] = reader.line("/proc/sys/kernel/random/boot_id")
    enforce = reader.line("/sys/module/module/parameters/sig_enforce")
    found["kernel"] = {
        "release": reader.line("/proc/sys/kernel/osrelease"),
        "version": reader.line("/proc/sys/kernel/version"),
        "cmdline": reader.line("/proc/cmdline"),
        "arch": arch,
        "tainted": reader.number("/proc/sys/kernel/tainted"),
        "installed": [Path(path).name for path in modules],
        "module_sig_enforce": None if enforce is None else enforce in ("Y", "1"),
    }
    found["network"]["routes"] = network.routes(reader.text("/proc/net/route") or "")
    found["network"]["routes6"] = network.routes6(reader.text("/proc/net/ipv6_route") or "")
    found["loaded_modules"] = sorted(
        line.split(" ")[0] for line in (reader.text("/proc/modules") or "").splitlines()
    )
    found["secure_boot"].update(_secure_boot(reader))
    unreadable = {
        name: why if "only a running node" in reason or folder in reason else reason
        for name, reason in found["unreadable"].items()
    }
    for name in NOT_FETCHED:
        found[name] = None
        unreadable[name] = why
    for area, parts in PARTS.items():
        for part in parts:
            found[area][part] = None
            unreadable[f"{area}.{part}"] = why
    given = {"identity.boot_id", "kernel.release", "network.routes", "loaded_modules"}
    if library:
        given.add("os.glibc")
    found["unreadable"] = {
        name: reason
        for name, reason in unreadable.items()
        if name not in given and not name.startswith("secure_boot.enabled")
    } | {"network.interfaces": why, "network.listening": why}
    return found


def _secure_boot(reader: Reader) -> dict[str, Any]:
    """What can be told of Secure Boot from the files alone; keyrings take a system call."""
    variables = efi.Variables()
    database = variables.read(reader, "db", efi.IMAGE_SECURITY)
    revoked = variables.read(reader, "dbx", efi.IMAGE_SECURITY)
    enabled = variables.flag(reader, "SecureBoot", "secure_boot.enabled")
    setup_mode = variables.flag(reader, "SetupMode", "secure_boot.setup_mode")
    variables.close()
    return {
        "efi": enabled is not None,
        "enabled": enabled,
        "setup_mode": setup_mode,
        "lockdown": secure_boot.selected(reader.line(secure_boot.LOCKDOWN)),
        "db": secure_boot.database(database),
        "dbx_entries": None if revoked is None else len(efi.signatures(revoked)),
    }
