"""Addresses of the lab, the same in the build namespace and in a virtual machine.

They are QEMU's own for user networking (https://www.qemu.org/docs/master/system/devices/net.html),
so that one image works in both places. Nothing but the proxy and the metadata server answers.
"""

from __future__ import annotations

from fixtures.capture import Allowed, Peer

NODE = "10.0.2.15"
NODE_PREFIX = 24
GATEWAY = "10.0.2.2"
NAMESERVER = "10.0.2.3"
NODE6 = "fec0::15"
GATEWAY6 = "fec0::2"
PROXY = "10.0.2.100"
PROXY_PORT = 3128
#: Our doubles of Google's services, where a scenario has them.
GOOGLE = "10.0.2.101"
GOOGLE_PORT = 443
METADATA = "169.254.169.254"
METADATA_PORT = 80
METADATA_NODE = "169.254.169.15"
METADATA_NET = "169.254.169.0/24"
METADATA_HOST = "169.254.169.2"

# A fork gets a first card of its own; see harness.lab.frozen.
MAC = "52:54:00:12:34:56"
METADATA_MAC = "52:54:00:12:34:57"


def peers(*macs: str) -> Allowed:
    """Whom the node may talk to over its first card; ``macs``: that card's addresses over time."""
    allowed = [Peer(PROXY, PROXY_PORT), Peer(METADATA, METADATA_PORT), Peer(GOOGLE, GOOGLE_PORT)]
    return Allowed(node=macs or [MAC], peers=allowed)
