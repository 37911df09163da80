"""Addresses of the network interfaces, asked from the kernel over rtnetlink(7).

The only source that knows every IPv4 and IPv6 address; ``ip`` need not be installed.
"""

from __future__ import annotations

import os
import socket
import struct

NLMSG_DONE = 3
NLMSG_ERROR = 2
RTM_NEWADDR = 20
RTM_GETADDR = 22
NLM_F_REQUEST_DUMP = 0x301
IFA_ADDRESS = 1
IFA_LOCAL = 2

HEADER = struct.Struct("=IHHII")
ADDRESS = struct.Struct("=BBBBi")
ATTRIBUTE = struct.Struct("=HH")


def _align(size: int) -> int:
    return (size + 3) & ~3


def _address(body: bytes) -> tuple[int, str]:
    """(interface index, "10.0.2.15/24") of one RTM_NEWADDR message."""
    family, prefix, _flags, _scope, index = ADDRESS.unpack_from(body)
    values: dict[int, bytes] = {}
    offset = ADDRESS.size
    while offset + ATTRIBUTE.size <= len(body):
        size, kind = ATTRIBUTE.unpack_from(body, offset)
        if size < ATTRIBUTE.size:
            break
        values[kind] = body[offset + ATTRIBUTE.size : offset + size]
        offset += _align(size)
    # IFA_LOCAL is our side of a point-to-point link, where IFA_ADDRESS is the peer's.
    packed = values.get(IFA_LOCAL) or values[IFA_ADDRESS]
    return index, f"{socket.inet_ntop(family, packed)}/{prefix}"


def addresses() -> dict[int, list[str]]:
    """Interface index -> its addresses with prefix length, IPv4 first; raises OSError."""
    found: dict[int, list[str]] = {}
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as link:
        link.settimeout(2)
        request = ADDRESS.pack(socket.AF_UNSPEC, 0, 0, 0, 0)
        size = HEADER.size + len(request)
        link.send(HEADER.pack(size, RTM_GETADDR, NLM_F_REQUEST_DUMP, 1, 0) + request)
        while True:
            data = link.recv(1 << 16)
            offset = 0
            while offset + HEADER.size <= len(data):
                length, kind, _flags, _seq, _pid = HEADER.unpack_from(data, offset)
                body = data[offset + HEADER.size : offset + length]
                if kind == NLMSG_DONE:
                    return found
                if kind == NLMSG_ERROR:
                    code = -struct.unpack_from("=i", body)[0]
                    raise OSError(code, os.strerror(code), "rtnetlink")
                if kind == RTM_NEWADDR:
                    index, address = _address(body)
                    found.setdefault(index, []).append(address)
                offset += _align(max(length, HEADER.size))
