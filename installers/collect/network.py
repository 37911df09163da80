"""Routes, resolvers, interfaces and listening sockets: /proc/net, /sys/class/net, rtnetlink."""

from __future__ import annotations

import socket
import struct
from typing import Any, NamedTuple

from installers.collect import netlink
from installers.collect.reader import Reader

ROUTE_UP = 0x1
TCP_LISTEN = "0A"
UDP_UNCONNECTED = "07"


def _ipv4(packed: str) -> str:
    """The kernel prints an IPv4 address as the hex of a native integer."""
    return socket.inet_ntoa(struct.pack("=I", int(packed, 16)))


def _ipv6(packed: str) -> str:
    """32 hex digits, as /proc/net/ipv6_route prints an address."""
    return socket.inet_ntop(socket.AF_INET6, bytes.fromhex(packed))


def _ipv6_words(packed: str) -> str:
    """/proc/net/tcp6 prints an address as four native words."""
    words = struct.pack("=4I", *(int(packed[i : i + 8], 16) for i in range(0, 32, 8)))
    return socket.inet_ntop(socket.AF_INET6, words)


def routes(text: str) -> list[dict[str, Any]]:
    """/proc/net/route: [{"interface", "destination", "gateway", "metric"}]."""
    found = []
    for line in text.splitlines()[1:]:
        words = line.split()
        if len(words) < 8 or not int(words[3], 16) & ROUTE_UP:
            continue
        prefix = bin(int(words[7], 16)).count("1")
        gateway = _ipv4(words[2])
        found.append(
            {
                "interface": words[0],
                "destination": f"{_ipv4(words[1])}/{prefix}",
                "gateway": None if gateway == "0.0.0.0" else gateway,  # noqa: S104
                "metric": int(words[6]),
            }
        )
    return found


def routes6(text: str) -> list[dict[str, Any]]:
    """/proc/net/ipv6_route in the same shape, without loopback's and local entries."""
    found = []
    for line in text.splitlines():
        words = line.split()
        if len(words) < 10 or words[9] == "lo" or not int(words[8], 16) & ROUTE_UP:
            continue
        gateway = _ipv6(words[4])
        found.append(
            {
                "interface": words[9],
                "destination": f"{_ipv6(words[0])}/{int(words[1], 16)}",
                "gateway": None if gateway == "::" else gateway,
                "metric": int(words[5], 16),
            }
        )
    return found


class Waiting(NamedTuple):
    """A socket that waits for a peer. IPv6 addresses are in brackets; ``inode`` names its file."""

    protocol: str
    address: str
    port: int
    inode: int


def listening(text: str, protocol: str, state: str) -> list[Waiting]:
    """Sockets of one /proc/net table that wait for a peer."""
    found = []
    for line in text.splitlines()[1:]:
        words = line.split()
        if len(words) < 10 or words[3] != state:
            continue
        packed, port = words[1].split(":")
        six = len(packed) == 32
        address = f"[{_ipv6_words(packed)}]" if six else _ipv4(packed)
        found.append(Waiting(protocol, address, int(port, 16), int(words[9])))
    return found


def waiting(reader: Reader) -> list[Waiting]:
    """Every socket of the node that waits for a peer, TCP and UDP."""
    found: list[Waiting] = []
    for table, protocol, state in (
        ("tcp", "tcp", TCP_LISTEN),
        ("tcp6", "tcp", TCP_LISTEN),
        ("udp", "udp", UDP_UNCONNECTED),
        ("udp6", "udp", UDP_UNCONNECTED),
    ):
        found += listening(reader.text(f"/proc/net/{table}") or "", protocol, state)
    return found


def resolvers(text: str) -> list[str]:
    """The nameserver lines of resolv.conf."""
    lines = (line.split() for line in text.splitlines())
    return [words[1] for words in lines if len(words) > 1 and words[0] == "nameserver"]


def interfaces(reader: Reader) -> list[dict[str, Any]]:
    """[{"name", "mac", "state", "addresses"}] of every interface but loopback."""
    try:
        by_index = netlink.addresses()
    except OSError as error:
        reader.miss("network.interfaces.addresses", error)
        by_index = {}
    found = []
    for name in reader.names("/sys/class/net", "network.interfaces"):
        index = reader.number(f"/sys/class/net/{name}/ifindex")
        if name == "lo" or index is None:
            continue
        found.append(
            {
                "name": name,
                "mac": reader.line(f"/sys/class/net/{name}/address"),
                "state": reader.line(f"/sys/class/net/{name}/operstate"),
                "addresses": by_index.get(index, []),
            }
        )
    return found


def collect(reader: Reader) -> dict[str, Any]:
    """The network as the running kernel sees it, and /etc/resolv.conf."""
    servers = resolvers(reader.text("/etc/resolv.conf", "network.resolv") or "")
    if not reader.need_live("network.routes"):
        empty: dict[str, Any] = {"routes": [], "routes6": [], "interfaces": [], "listening": []}
        return {**empty, "resolv": servers}
    return {
        "routes": routes(reader.text("/proc/net/route", "network.routes") or ""),
        "routes6": routes6(reader.text("/proc/net/ipv6_route") or ""),
        "resolv": servers,
        "interfaces": interfaces(reader),
        "listening": list(
            dict.fromkeys(f"{s.protocol} {s.address}:{s.port}" for s in sorted(waiting(reader)))
        ),
    }
