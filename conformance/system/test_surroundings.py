"""What the node stands on and what will run on it: clock, disks, ports, the C library."""

from __future__ import annotations

import re

from harness.checks import check, fact, fail, glibc, ports
from harness.node import Node

# A certificate made today is "not yet valid" for a clock that is an hour behind; a minute is what
# two machines differ by without anybody's fault, and asking takes a moment too.
MOST_SECONDS = 300.0
# Smaller disks are firmware's, or hold a configuration.
LEAST_VOLUME = 8 << 30
GIB = 1 << 30


@check(
    id="system.clock",
    severity="blocker",
    title="The clock is right",
    remedy="Set it before anything is installed, and give the node a time source that it can "
    "reach: NTP does not go through an HTTP proxy. Clouds have one at the metadata address.",
    source="beside the clock of the machine that asked; RFC 5280, 4.1.2.5: validity",
)
def test_clock(node: Node) -> None:
    """Certificates and apt's indexes are refused as not yet valid, or as expired."""
    ahead = fact(node, "clock") - fact(node, "received")
    if abs(ahead) > MOST_SECONDS:
        way = "ahead" if ahead > 0 else "behind"
        fail(f"the clock is {_span(abs(ahead))} {way} of the one that asked")


@check(
    id="system.volumes",
    severity="major",
    title="Every large disk of the node is used",
    remedy="Mount it where the space is needed, before that is filled: container images, "
    "/var/lib/containerd, the data of the cluster's own services.",
    source="/sys/class/block, /proc/self/mountinfo",
)
def test_volumes(node: Node) -> None:
    """A volume that is attached and not mounted leaves the root file system to fill."""
    idle = [
        f"/dev/{disk['name']}: {disk['size'] / GIB:.0f} GiB, mounted nowhere"
        for disk in fact(node, "volumes")
        if disk["size"] >= LEAST_VOLUME and not disk["uses"]
    ]
    if idle:
        fail(f"{len(idle)} disks are attached and not used: {idle[0]}", idle)


@check(
    id="system.ports-free",
    severity="major",
    title="The ports that something on the node will need are free",
    remedy="Switch off what listens there: for port 53 usually systemd-resolved's stub "
    "(DNSStubListener=no in resolved.conf), or have the other one listen on its own address.",
    requires=ports,
    source="/proc/net/{tcp,udp}{,6}",
)
def test_ports_free(node: Node) -> None:
    """A listener on one address is enough: who binds all addresses gets 'already in use'."""
    wanted = {int(port) for port in node.expect["ports"]}
    taken = [
        socket
        for socket in fact(node, "network.listening")
        if int(socket.rpartition(":")[2]) in wanted
    ]
    if taken:
        fail(f"{len(taken)} of the needed ports are taken: {', '.join(taken)}", taken)


@check(
    id="system.glibc",
    severity="blocker",
    title="The C library is new enough for what will run on the node",
    remedy="Use an image of a newer release, or programs that were built for this one: the C "
    "library cannot be replaced by itself.",
    requires=glibc,
    source="confstr(3), _CS_GNU_LIBC_VERSION; ld.so(8): version 'GLIBC_2.N' not found",
)
def test_glibc(node: Node) -> None:
    """Programs name the newest version they use; the loader refuses to start them without."""
    wanted, found = str(node.expect["glibc"]), fact(node, "os.glibc")
    if _numbers(found) < _numbers(wanted):
        fail(f"the node has the C library {found}; its programs need {wanted}")


def _numbers(version: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", version)]


def _span(seconds: float) -> str:
    for size, unit in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
