"""Servers that the node was told of, and that nobody reaches by an HTTP proxy: names and time."""

from __future__ import annotations

import ipaddress

from harness.checks import check, fact, fail, proxy
from harness.node import Node

SINCE = "2026-11-22"
# Names that a network answers inside.
INSIDE = (".internal", ".local", ".lan", ".corp", ".intra", ".home.arpa", ".test", ".invalid")


@check(
    id="egress.resolvers",
    severity="major",
    title="The node asks no public name server",
    remedy="Remove the public address from /etc/resolv.conf (or from DNS= in resolved.conf.d, or "
    "the DHCP option): no answer comes, each name costs its time-out first, and the questions tell "
    "the outside what runs here.",
    requires=proxy,
    source="resolv.conf(5): servers are asked in turn, 5 s each; names are the proxy's affair",
    since=SINCE,
)
def test_resolvers(node: Node) -> None:
    """Also the second one: it is asked when the first is slow."""
    public = [server for server in fact(node, "network.resolv") if not _inside(server)]
    if public:
        fail(f"{len(public)} name servers are public: {public[0]}", public)


@check(
    id="egress.time-source",
    severity="major",
    title="The node's time sources are inside",
    remedy="Name one that the node reaches: 169.254.169.254 on Google Cloud, 169.254.169.123 on "
    "AWS, or the network's own ('NTP=' in /etc/systemd/timesyncd.conf.d, 'server' in chrony.conf): "
    "NTP goes through no HTTP proxy.",
    requires=proxy,
    source="timesyncd.conf(5), chrony.conf(5), ntp.conf(5); 'Release file ... is not valid yet'",
    since=SINCE,
)
def test_time_source(node: Node) -> None:
    """The clock is right when the image is made, and drifts on the node."""
    outside = [
        f"{one['path']}: {one['server']}"
        for one in fact(node, "upkeep.time_sources")
        if not _inside(one["server"])
    ]
    if outside:
        fail(f"{len(outside)} time sources are outside: {outside[0]}", outside)


def _inside(server: str) -> bool:
    """By address where there is one; a name of one word, or of a domain for inside, else."""
    try:
        return not ipaddress.ip_address(server.strip("[]").partition("%")[0]).is_global
    except ValueError:
        return "." not in server or server.lower().rstrip(".").endswith(INSIDE)
