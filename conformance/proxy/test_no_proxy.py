"""What bypasses the proxy: in forms that every tool reads alike, and the metadata server always."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping

from harness.checks import check, fact, fail, proxy
from harness.node import Node

# The metadata server hands out credentials: its answers must never pass a proxy.
ALWAYS = ("localhost", "127.0.0.1", "::1", "169.254.169.254", "metadata.google.internal")
_NAME = re.compile(r"\.?[a-z0-9_-]+(\.[a-z0-9_-]+)*")


@check(
    id="proxy.no-proxy",
    severity="blocker",
    title="no_proxy is portable, the same everywhere, and keeps metadata off the proxy",
    remedy="List hosts, or a .domain together with its apex, and addresses one by one: lower case, "
    "commas without blanks, the same value in no_proxy and NO_PROXY. No CIDR, no *, no ports.",
    requires=proxy,
    source="measured with curl, wget, git, apt, urllib, requests, httpx, aiohttp, pip, uv, npm, Go",
)
def test_no_proxy(node: Node) -> None:
    """One value in every place, and each entry of it understood by every tool."""
    places: dict[str, Mapping[str, str]] = {
        "/etc/environment": fact(node, "proxy.environment"),
        "/etc/profile.d": fact(node, "proxy.profile"),
        "systemd": fact(node, "proxy.systemd_env_effective"),
    }
    values = {
        f"{place}: {name}": found.get(name)
        for place, found in places.items()
        for name in ("no_proxy", "NO_PROXY")
    }
    seen = [f"{where}={value}" for where, value in values.items()]
    missing = [where for where, value in values.items() if not value]
    if missing:
        fail(f"no_proxy is not set in {', '.join(missing)}", seen)
    if len(set(values.values())) > 1:
        fail("no_proxy differs between its cases or places", seen)
    value = str(next(iter(values.values())))
    entries = value.split(",")
    odd = [f"{entry!r}: {why}" for entry in entries if (why := _unportable(entry, entries))]
    if odd:
        fail(f"no_proxy has {len(odd)} entries that tools read differently: {odd[0]}", odd)
    proxied = [name for name in ALWAYS if name not in entries]
    if proxied:
        fail(f"no_proxy lacks {', '.join(proxied)}: requests for it reach the proxy", seen)


def _unportable(entry: str, entries: list[str]) -> str:
    """Why tools differ on this entry, or ``""``."""
    try:
        ipaddress.ip_address(entry)
    except ValueError:
        pass
    else:
        return ""
    if entry != entry.strip():
        return "a blank after the comma ends the list for apt"
    if "/" in entry:
        return "a network is ignored by wget, apt and Python"
    if "*" in entry:
        return "a pattern is understood by Go only"
    if ":" in entry:
        return "a port is understood by Go only"
    if not _NAME.fullmatch(entry):
        return "not a lower-case host or .domain"
    if entry.startswith(".") and entry[1:] not in entries:
        return f"the apex {entry[1:]} is still proxied by wget, apt and Go"
    return ""
