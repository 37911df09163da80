"""The closed network on Google Cloud, as data: the bodies of the API's requests, and nothing else.

Nodes in it have no external address and no NAT. They reach Google's APIs by Private Google Access
(``private.googleapis.com``, whose four addresses a private DNS zone gives for every name below
``googleapis.com``) and everything else through one squid, the only machine with an external
address. The default route stays: what tries another way leaves the node's card and is dropped, and
logged, by the rule that denies egress.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from harness.errors import UsageError

#: private.googleapis.com; "Configure Private Google Access" in Google's documentation of VPC.
PRIVATE_GOOGLE = "199.36.153.8/30"
#: Where IAP's TCP forwarding comes from; "Using IAP for TCP forwarding".
IAP = "35.235.240.0/20"
PORT = 3128
#: How long, at most, a proxy that nobody ended stays.
HOURS = 12
_NAME = re.compile(r"[a-z]([a-z0-9-]{0,40}[a-z0-9])?")
_PROJECT = re.compile(r"(?:[a-z0-9.-]+:)?[a-z][a-z0-9-]{4,28}[a-z0-9]")
_REGION = re.compile(r"[a-z]+-[a-z]+\d+")

#: Kinds that others hang on to: they are not made anew when they are otherwise than wanted.
ROOTS = ("networks", "subnetworks", "managedZones")


@dataclass(frozen=True)
class Site:
    """What was asked for. UsageError for what cannot be.

    ``nodes`` and ``proxy`` are the two subnets' ranges, ``image`` the proxy's (a partial URL),
    ``allow`` domains as of ``fixtures.squid.Squid``; ``hours`` after which Google ends the proxy.
    """

    project: str
    zone: str
    name: str = "airlock"
    nodes: str = "10.126.0.0/24"
    proxy: str = "10.126.1.0/28"
    machine_type: str = "e2-small"
    image: str = "projects/debian-cloud/global/images/family/debian-12"
    intercept: bool = True
    allow: tuple[str, ...] = ()
    hours: int = HOURS

    def __post_init__(self) -> None:
        if not _PROJECT.fullmatch(self.project):
            raise UsageError(f"{self.project!r} is no project's id", hint="gcloud projects list")
        region, _, letter = self.zone.rpartition("-")
        if not _REGION.fullmatch(region) or not re.fullmatch("[a-z]", letter):
            raise UsageError(f"{self.zone!r} is no zone", hint="such as us-central1-a")
        if not _NAME.fullmatch(self.name):
            raise UsageError(
                f"{self.name!r} cannot be a network's name",
                hint="lower-case letters, digits and dashes, 42 at most, a letter first",
            )
        if not 1 <= self.hours <= 24 * 7:
            raise UsageError(f"{self.hours} hours: a proxy may stay for 1 to 168")
        nodes, proxy = _range(self.nodes), _range(self.proxy)
        if nodes.overlaps(proxy):
            raise UsageError(f"{self.nodes} and {self.proxy} overlap", hint="give two ranges")

    @property
    def region(self) -> str:
        """The region of the zone."""
        return self.zone.rpartition("-")[0]

    @property
    def network(self) -> str:
        """The network's partial URL."""
        return f"projects/{self.project}/global/networks/{self.name}"

    @property
    def subnet(self) -> str:
        """The nodes' subnet's partial URL."""
        return f"projects/{self.project}/regions/{self.region}/subnetworks/{self.name}-nodes"

    @property
    def proxy_name(self) -> str:
        """The proxy's machine and its network tag."""
        return f"{self.name}-proxy"

    @property
    def proxy_address(self) -> str:
        """The third of its subnet: Google keeps the first two and the last two for itself."""
        return str(_range(self.proxy)[2])

    @property
    def proxy_url(self) -> str:
        """What a node's metadata says as ``http-proxy``."""
        return f"http://{self.proxy_address}:{PORT}"


@dataclass(frozen=True)
class Resource:
    """One thing at the API. ``kind`` is the collection's name, ``body`` what insert gets.

    ``expected``: what the thing must be like when it is there, a part of what get answers;
    ``within``: the managed zone of a record set.
    """

    kind: str
    name: str
    body: Mapping[str, Any]
    expected: Mapping[str, Any] = field(default_factory=dict)
    within: str = ""

    @property
    def title(self) -> str:
        """For people, journals and sentences."""
        return f"{self.kind}/{self.name}"


def resources(site: Site, marker: str, proxy: Resource) -> list[Resource]:
    """Everything that the network consists of, in the order in which it can be made.

    ``marker`` says in each description who made it, ``proxy`` is the machine
    (``harness.cloud.proxyvm``).
    """
    said = {"description": marker}
    network = {
        **said,
        "name": site.name,
        "autoCreateSubnetworks": False,
        "routingConfig": {"routingMode": "REGIONAL"},
    }
    return [
        Resource("networks", site.name, network, _expected(network)),
        _subnet(site, said, f"{site.name}-nodes", site.nodes, private=True),
        _subnet(site, said, site.proxy_name, site.proxy, private=False),
        *(_firewall(site, said, suffix, rule) for suffix, rule in _rules(site).items()),
        *_zone(site, said),
        proxy,
    ]


def _rules(site: Site) -> dict[str, dict[str, Any]]:
    """Firewall rules by the end of their names. A lower priority number wins."""
    tag = [site.proxy_name]
    web = [{"IPProtocol": "tcp", "ports": ["80", "443"]}]
    return {
        "egress-deny": {
            "direction": "EGRESS",
            "priority": 65000,
            "denied": [{"IPProtocol": "all"}],
            "destinationRanges": ["0.0.0.0/0"],
            "logConfig": {"enable": True},
        },
        "egress-google": {
            "direction": "EGRESS",
            "priority": 1000,
            "allowed": [{"IPProtocol": "tcp", "ports": ["443"]}],
            "destinationRanges": [PRIVATE_GOOGLE],
        },
        "egress-proxy": {
            "direction": "EGRESS",
            "priority": 1000,
            "allowed": [{"IPProtocol": "tcp", "ports": [str(PORT)]}],
            "destinationRanges": [site.proxy],
        },
        "proxy-egress": {
            "direction": "EGRESS",
            "priority": 900,
            "allowed": web,
            "destinationRanges": ["0.0.0.0/0"],
            "targetTags": tag,
        },
        "proxy-ingress": {
            "direction": "INGRESS",
            "priority": 1000,
            "allowed": [{"IPProtocol": "tcp", "ports": [str(PORT)]}],
            "sourceRanges": [site.nodes],
            "targetTags": tag,
        },
        "ssh-iap": {
            "direction": "INGRESS",
            "priority": 1000,
            "allowed": [{"IPProtocol": "tcp", "ports": ["22"]}],
            "sourceRanges": [IAP],
        },
    }


def _firewall(site: Site, said: Mapping[str, str], suffix: str, rule: dict[str, Any]) -> Resource:
    name = f"{site.name}-{suffix}"
    body = {**said, "name": name, "network": site.network, **rule}
    # What the rule does not have must not be there either: a tag would narrow it, a switch end it.
    absent: dict[str, Any] = {"disabled": False}
    for key in ("allowed", "denied", "sourceTags", "targetTags", "targetServiceAccounts"):
        absent[key] = []
    return Resource("firewalls", name, body, {**absent, **_expected(body)})


def _subnet(
    site: Site, said: Mapping[str, str], name: str, cidr: str, *, private: bool
) -> Resource:
    body = {
        **said,
        "name": name,
        "network": site.network,
        "ipCidrRange": cidr,
        "privateIpGoogleAccess": private,
        "stackType": "IPV4_ONLY",
    }
    return Resource("subnetworks", name, body, _expected(body))


def _zone(site: Site, said: Mapping[str, str]) -> list[Resource]:
    """Google's APIs under the addresses that the nodes may reach."""
    name = f"{site.name}-googleapis"
    url = f"https://www.googleapis.com/compute/v1/{site.network}"
    body = {
        **said,
        "name": name,
        "dnsName": "googleapis.com.",
        "visibility": "private",
        "privateVisibilityConfig": {"networks": [{"networkUrl": url}]},
    }
    addresses = [str(address) for address in ipaddress.ip_network(PRIVATE_GOOGLE)]
    records = [
        ("private.googleapis.com.", "A", addresses),
        ("*.googleapis.com.", "CNAME", ["private.googleapis.com."]),
    ]
    found = [Resource("managedZones", name, body, _expected(body))]
    for record, kind, data in records:
        entry = {"name": record, "type": kind, "ttl": 300, "rrdatas": data}
        found.append(Resource("rrsets", f"{record}/{kind}", entry, entry, within=name))
    return found


def _expected(body: Mapping[str, Any]) -> dict[str, Any]:
    """Everything of a body but the marker."""
    return {key: value for key, value in body.items() if key != "description"}


def _range(text: str) -> ipaddress.IPv4Network:
    try:
        found = ipaddress.IPv4Network(text)
    except ValueError as error:
        raise UsageError(f"{text!r} is no range of addresses: {error}") from error
    if not found.is_private or found.prefixlen > 29:
        raise UsageError(f"{text}: a subnet is of private addresses, /29 or larger")
    return found
