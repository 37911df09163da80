"""Whether the system below everything else is whole: mounts, packages, folders, names, its clock.

Sources: fstab(5), /proc/self/mountinfo, dpkg's status file, hosts(5), nsswitch.conf(5), and the
configurations of timesyncd, chrony and ntpd.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Any

from installers.collect.packages import STATUS
from installers.collect.reader import Reader

TEMPORARY = ("/tmp", "/var/tmp")  # noqa: S108 - looked at, not written to
_NOT_MOUNTED = re.compile(r"\b(?:noauto|nofail|x-systemd\.automount)\b")
_DONE = ("installed", "config-files", "not-installed")
_STATUS = re.compile(rb"^Status: \S+ \S+ (\S+)$", re.M)
_TIME = (
    *("/etc/systemd/timesyncd.conf", "/etc/chrony.conf", "/etc/chrony/chrony.conf"),
    *("/etc/ntp.conf", "/etc/ntpsec/ntp.conf"),
)
_TIME_FOLDERS = (
    *("/etc/systemd/timesyncd.conf.d", "/run/systemd/timesyncd.conf.d"),
    *("/etc/chrony/conf.d", "/etc/chrony/sources.d", "/etc/chrony.d"),
)
_SERVER = re.compile(r"^\s*(?:server|pool|peer)\s+(\S+)|^\s*(?:Fallback)?NTP\s*=\s*(.*)$", re.M)


def collect(reader: Reader) -> dict[str, Any]:
    """``fstab``: [{"what", "where", "mounted"}] of what is mounted at boot. ``temporary``: folder
    -> mode in octal, None where it is not there. ``unfinished``: package -> state, of those that
    dpkg has not installed to their end. ``own_name``: who answers for the node's own name without
    any server, empty where nobody does. ``time_sources``: [{"path", "server"}] that are configured.
    """
    return {
        "fstab": _fstab(reader),
        "temporary": {path: reader.mode(path) for path in TEMPORARY},
        "unfinished": _unfinished(reader),
        "own_name": _own_name(reader),
        "time_sources": [
            {"path": path, "server": server}
            for path in _time_files(reader)
            for server in _servers(reader.text(path) or "")
        ],
    }


def _fstab(reader: Reader) -> list[dict[str, Any]]:
    lines = (reader.text("/proc/self/mountinfo") or "").splitlines() if reader.live else []
    points = {line.split()[4] for line in lines if len(line.split()) > 4}
    found = []
    for line in (reader.text("/etc/fstab") or "").splitlines():
        words = line.partition("#")[0].split()
        if len(words) < 4 or words[1] in ("none", "swap") or _NOT_MOUNTED.search(words[3]):
            continue
        where = words[1].rstrip("/") or "/"
        mounted = where.replace("\\040", " ") in points or where == "/"
        found.append({"what": words[0], "where": where, "mounted": mounted})
    return found


def _unfinished(reader: Reader) -> dict[str, str]:
    found = {}
    for stanza in (reader.data(STATUS) or b"").split(b"\n\n"):
        match = _STATUS.search(stanza)
        if match and match[1].decode() not in _DONE and stanza.startswith(b"Package: "):
            name = stanza.split(b"\n", 1)[0][len(b"Package: ") :].decode()
            found[name] = match[1].decode()
    return found


def _own_name(reader: Reader) -> str:
    name = os.uname().nodename if reader.live else reader.line("/etc/hostname") or ""
    for line in (reader.text("/etc/hosts") or "").splitlines():
        words = line.partition("#")[0].split()
        if name in words[1:]:
            return f"/etc/hosts: {words[0]}"
    nss = re.search(r"^hosts:.*\bmyhostname\b", reader.text("/etc/nsswitch.conf") or "", re.M)
    return "nss-myhostname" if nss else ""


def _time_files(reader: Reader) -> Iterator[str]:
    yield from _TIME
    for folder in _TIME_FOLDERS:
        for name in reader.names(folder):
            if name.endswith((".conf", ".sources")):
                yield f"{folder}/{name}"


def _servers(text: str) -> list[str]:
    found = (named or listed for named, listed in _SERVER.findall(text))
    return [server for words in found for server in words.split()]
