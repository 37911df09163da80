"""Port 53 of the node and its name resolution: who listens where, and what that forbids.

A stub on 127.0.0.53 takes the port from whoever binds every address, and from nobody else: a
server that binds an address of its own, or runs in a network namespace of its own, may have it.
"""

from __future__ import annotations

import os
import re
from typing import Any, Optional

from installers.collect import network
from installers.collect.reader import Reader
from installers.collect.running import Processes

PORT = 53
STUBS = ("127.0.0.53", "127.0.0.54")  # systemd-resolved.service(8)
RESOLVED = "systemd-resolve"  # as in /proc/PID/comm
RESOLV_CONF = "/etc/resolv.conf"
UPSTREAM = "/run/systemd/resolve/resolv.conf"
_FOLDERS = ("/usr/lib/systemd", "/usr/local/lib/systemd", "/run/systemd", "/etc/systemd")


def collect(reader: Reader, processes: Processes) -> dict[str, Any]:
    """{"listeners", "resolved", "stub", "link", "servers", "upstream"}.

    ``listeners``: [{"protocol", "address", "scope", "pid", "program"}] of port 53; ``scope`` is
    "wildcard", "stub", "loopback" or "address"; ``program`` is None where only root may tell.
    ``resolved``: whether systemd-resolved runs; ``stub``: its DNSStubListener as configured
    ("yes", "no", "udp", "tcp"); ``link``: where /etc/resolv.conf leads, None where it is a file;
    ``servers`` are in it, ``upstream`` in resolved's own list.
    """
    link: Optional[str] = None
    if os.path.islink(_unfollowed(reader, RESOLV_CONF)):  # noqa: PTH114
        link = os.readlink(_unfollowed(reader, RESOLV_CONF))  # noqa: PTH115
    return {
        "listeners": _listeners(reader, processes) if reader.live else [],
        "resolved": any(name == RESOLVED for _, name in processes),
        "stub": stub_listener(reader),
        "link": link,
        "servers": network.resolvers(reader.text(RESOLV_CONF) or ""),
        "upstream": network.resolvers(reader.text(UPSTREAM) or ""),
    }


def _unfollowed(reader: Reader, path: str) -> str:
    folder, _, name = path.rpartition("/")
    return f"{reader.path(folder)}/{name}"


def scope(address: str) -> str:
    """What a socket on this address keeps others from."""
    bare = address.strip("[]")
    if bare in ("0.0.0.0", "::"):  # noqa: S104 - compared with
        return "wildcard"
    if bare in STUBS:
        return "stub"
    return "loopback" if bare.startswith("127.") or bare == "::1" else "address"


def _listeners(reader: Reader, processes: Processes) -> list[dict[str, Any]]:
    sockets = [socket for socket in network.waiting(reader) if socket.port == PORT]
    holders = _holders(processes, {socket.inode for socket in sockets}) if sockets else {}
    return [
        {
            "protocol": socket.protocol,
            "address": socket.address,
            "scope": scope(socket.address),
            "pid": holders.get(socket.inode, (None, None))[0],
            "program": holders.get(socket.inode, (None, None))[1],
        }
        for socket in sorted(sockets)
    ]


def _holders(processes: Processes, inodes: set[int]) -> dict[int, tuple[int, str]]:
    """Inode of a socket -> the process that has it open."""
    wanted = {f"socket:[{inode}]": inode for inode in inodes}
    found: dict[int, tuple[int, str]] = {}
    for pid, name in processes:
        folder = f"/proc/{pid}/fd"
        try:
            links = [os.readlink(entry.path) for entry in os.scandir(folder)]  # noqa: PTH115
        except OSError:  # it ended, or is another user's
            continue
        found.update((wanted[link], (pid, name)) for link in links if link in wanted)
    return found


def stub_listener(reader: Reader) -> str:
    """DNSStubListener= as resolved.conf(5) has it: drop-ins by name, the last one wins."""
    files: dict[str, str] = {}
    main = ""
    for folder in _FOLDERS:
        text = reader.text(f"{folder}/resolved.conf")
        main = text if text is not None else main
        for name in reader.names(f"{folder}/resolved.conf.d"):
            if name.endswith(".conf"):
                files[name] = reader.text(f"{folder}/resolved.conf.d/{name}") or ""
    value = "yes"
    for text in (main, *(files[name] for name in sorted(files))):
        for found in re.findall(r"^\s*DNSStubListener\s*=\s*(\S*)", text, re.M):
            value = found.lower() or "yes"
    return {"true": "yes", "1": "yes", "on": "yes", "false": "no", "0": "no", "off": "no"}.get(
        value, value
    )
