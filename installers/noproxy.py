"""The list of hosts that bypass the proxy, in the one spelling that all tools read the same way.

Measured with curl, wget, git, apt, urllib, requests, httpx, aiohttp, pip, uv, npm and Go: an
explicit host, or ``.domain`` together with its apex; lower case; a comma without blank; IP
addresses one by one. CIDR blocks, ``*`` and ports are each ignored by some of them, and for IPv6
addresses no spelling serves all: urllib alone wants brackets, with which httpx cannot start.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from typing import Optional

from installers.errors import ConfigError
from installers.proxyurl import check_host

# What must never go to a proxy: the loopback, the metadata server, and Google's private access.
DEFAULTS = (
    "localhost",
    "127.0.0.1",
    "::1",
    "169.254.169.254",
    "metadata.google.internal",
    ".google.com",
    "google.com",
    ".googleapis.com",
    "googleapis.com",
)
KEY = "no-proxy"
# Python's urllib wants brackets, and with brackets httpx fails on every request.
_IPV6 = "urllib and npm go to the proxy all the same: no spelling serves every program"


def parse(value: Optional[str]) -> tuple[list[str], list[str]]:
    """``(entries, notes)`` of a user's ``no-proxy`` value, after the defaults, without doubles.

    Entries are separated by commas and/or blanks. What no portable spelling exists for stays out
    and is told in a note. Raises ConfigError for an entry that is no host at all.
    """
    entries = list(DEFAULTS)
    notes: list[str] = []
    for raw in re.split(r"[,\s]+", value or ""):
        if raw:
            found, note = entry(raw)
            entries.extend(found)
            if note:
                notes.append(f"{KEY} entry {raw}: {note}")
    return list(dict.fromkeys(entries)), notes


def join(entries: Iterable[str]) -> str:
    """The value of ``no_proxy`` and ``NO_PROXY``."""
    return ",".join(entries)


def matches(host: str, entries: Iterable[str]) -> bool:
    """Whether ``host`` bypasses the proxy: exact, or below a domain (a dot boundary is needed)."""
    name = host.lower().strip("[]").rstrip(".")
    for entry in entries:
        domain = entry.lstrip(".")
        if name == domain or name.endswith(f".{domain}"):
            return True
    return False


def entry(raw: str) -> tuple[list[str], str]:
    """``(what is written, note)`` for one entry as the user wrote it. Raises ConfigError."""
    if not raw.isascii() or not raw.isprintable():
        raise ConfigError(
            "an entry holds characters that no host has",
            where=KEY,
            remedy="write hosts or .domains, separated by commas",
        )
    text = raw.lower()
    address = _address(text.strip("[]"))
    if address:
        return [address], _IPV6 if ":" in address else ""
    if "/" in text:
        return _network(text)
    if text == "*":
        return [], "left out: it would switch the proxy off; leave the proxy keys out instead"
    if text.startswith("*."):
        name = check_host(text[2:].rstrip("."), KEY)
        return [f".{name}", name], f"written as .{name} and {name}, which every tool understands"
    if "*" in text or re.fullmatch(r"[0-9.]+\.", text):
        return [], "left out: no tool understands a pattern; list the hosts or the .domain"
    if ":" in text:
        return [], "left out: most tools ignore an entry with a port; write the host alone"
    if text.startswith("."):
        name = check_host(text[1:].rstrip("."), KEY)
        return [f".{name}", name], ""
    return [check_host(text.rstrip("."), KEY)], ""


def _address(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return ""


def _network(text: str) -> tuple[list[str], str]:
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise ConfigError(
            "an entry with a / is neither a host nor a network",
            where=KEY,
            remedy="write the host alone, without scheme and path",
        ) from None
    if network.num_addresses == 1:
        return [str(network.network_address)], ""
    return [], "left out: wget, apt and Python ignore networks; list the addresses or a .domain"
