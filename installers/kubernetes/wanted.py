"""What the metadata asks of a node of a cluster: nothing without ``airlock-kubernetes``."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Optional
from urllib.parse import urlsplit

from installers.errors import ConfigError
from installers.proxyurl import check_host

KEY = "airlock-kubernetes"
MIRRORS = "airlock-registry-mirrors"
SERVICES = "airlock-service-cidr"
PODS = "airlock-pod-cidr"
DOMAIN = "airlock-cluster-domain"
#: containerd's name for every registry that has no folder of its own (docs/hosts.md).
DEFAULT = "_default"


@dataclass(frozen=True)
class Cluster:
    """``mirrors``: registry (or DEFAULT) -> URL of the API's root at the mirror; ``services`` and
    ``pods``: networks of the cluster, as text, empty where they were not told; ``domain``: its own.
    """

    mirrors: Mapping[str, str] = field(default_factory=dict)
    services: str = ""
    pods: str = ""
    domain: str = "cluster.local"

    @property
    def networks(self) -> list[str]:
        """Both networks: programs in Go know networks in no_proxy, most others do not."""
        return [network for network in (self.services, self.pods) if network]

    @property
    def names(self) -> list[str]:
        """Entries of no_proxy that every program understands. The first address of the services'
        network is the API server's own service (kubernetes.io, "Cluster IP allocation").
        """
        names = [".svc", f".{self.domain}"]
        if self.services:
            names.append(str(ipaddress.ip_network(self.services)[1]))
        return names


def cluster(attributes: Mapping[str, str]) -> Optional[Cluster]:
    """What is asked, None where the node is of no cluster. Raises ConfigError."""
    value = (attributes.get(KEY) or "").strip().lower()
    if value not in ("", "true", "false"):
        raise ConfigError("is neither true nor false", where=KEY)
    if value != "true":
        for key in (MIRRORS, SERVICES, PODS, DOMAIN):
            if (attributes.get(key) or "").strip():
                raise ConfigError(
                    f"is of no use without {KEY}", where=key, remedy=f"set {KEY}=true beside it"
                )
        return None
    domain = (attributes.get(DOMAIN) or "").strip().strip(".").lower() or Cluster.domain
    return Cluster(
        mirrors=_mirrors(attributes.get(MIRRORS) or ""),
        services=_network(attributes, SERVICES),
        pods=_network(attributes, PODS),
        domain=check_host(domain, DOMAIN),
    )


def _network(attributes: Mapping[str, str], key: str) -> str:
    text = (attributes.get(key) or "").strip()
    if not text:
        return ""
    try:
        network = ipaddress.ip_network(text)
    except ValueError as error:
        raise ConfigError(
            f"is no network: {error}", where=key, remedy="write it as 172.20.0.0/16"
        ) from None
    if network.num_addresses < 4:
        raise ConfigError(f"{text} is too small for a cluster", where=key)
    return str(network)


def _mirrors(text: str) -> dict[str, str]:
    """``HOST=URL`` pairs, separated by commas or blanks; ``*`` stands for every other registry."""
    found: dict[str, str] = {}
    for pair in re.split(r"[,\s]+", text.strip()):
        if not pair:
            continue
        name, equals, url = pair.partition("=")
        if not equals or not name:
            raise ConfigError(
                "a mirror has no registry or no URL",
                where=MIRRORS,
                remedy="write nvcr.io=https://registry.example/nvcr, separated by commas",
            )
        host = DEFAULT if name == "*" else _registry(name)
        if host in found:
            raise ConfigError(f"{name} is named twice", where=MIRRORS)
        found[host] = _api_root(url, name)
    return found


def _registry(name: str) -> str:
    host, _, port = name.lower().partition(":")
    check_host(host, MIRRORS)
    if port and not port.isdigit():
        raise ConfigError(f"{port!r} is not a port", where=MIRRORS)
    return f"{host}:{port}" if port else host


def _api_root(url: str, name: str) -> str:
    """Where containerd sends its requests: what is below a registry's host is below /v2 there."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise ConfigError(f"the URL of {name} is none: {error}", where=MIRRORS) from None
    if parts.scheme not in ("https", "http") or not parts.hostname or re.search(r"[\"\\]", url):
        raise ConfigError(f"the URL of {name} is not one of http or https", where=MIRRORS)
    if parts.username is not None or parts.query or parts.fragment:
        raise ConfigError(
            f"the URL of {name} holds more than a host and a path",
            where=MIRRORS,
            remedy="give containerd no password there: image pull secrets are for that",
        )
    check_host(parts.hostname, MIRRORS)
    path = parts.path.rstrip("/")
    if path and path != "/v2" and not path.startswith("/v2/"):
        path = f"/v2{path}"
    return f"{parts.scheme}://{parts.netloc.lower()}{path}"
