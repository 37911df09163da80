"""The proxy's machine: the request that makes it, and the script that makes it a proxy.

The proxy CA's private key is made on the machine and never leaves it: what a machine's metadata
holds can be read by everybody who may look at the project's instances. The certificate comes out as
a guest attribute, as does the word that squid runs, and with which configuration.
"""

from __future__ import annotations

import hashlib
from importlib import resources as packaged
from typing import Any

from fixtures.squidconf import Place, squid_conf
from harness.cloud.network import PORT, Resource, Site

#: Guest attributes, ``namespace/key``: they are read together, by their namespace.
NAMESPACE = "airlock"
READY, FAILED, CA = "proxy-ready", "proxy-failed", "proxy-ca"
ACCESS_LOG = "/var/log/squid/access.jsonl"
#: The user that IAP's ssh logs in as; Google's guest agent makes it, with sudo.
USER = "airlock"
#: Labels. Not those of nodes: the proxy is nobody's run, and `airlock reap` leaves it alone.
NETWORK, MADE = "airlock-network", "airlock-made"

# Where Debian's packages squid-openssl, squid-common and squid-langpack put things.
_PLACE = Place(
    listen=f"0.0.0.0:{PORT}",
    name="airlock-proxy",
    libexec="/usr/lib/squid",
    errors="/usr/share/squid-langpack/en",
    icons="/usr/share/squid/icons",
    mime="/usr/share/squid/mime.conf",
    certificate="/etc/squid/airlock-ca.pem",
    certificates="/var/spool/squid/airlock-certificates",
    access_log=ACCESS_LOG,
    cache_log="/var/log/squid/cache.log",
    hosts="/etc/hosts",
    users="",
)


def configuration(site: Site) -> str:
    """squid.conf of a site: the lab's, but for its places and for who may ask."""
    return squid_conf(_PLACE, intercept=site.intercept, allow=site.allow, clients=[site.nodes])


def digest(site: Site) -> str:
    """What the machine says when it runs this configuration: SHA-256, hex."""
    return hashlib.sha256(configuration(site).encode()).hexdigest()


def startup_script(site: Site) -> str:
    """What Google's guest agent runs at each boot, as root. Holds no secret."""
    template = packaged.files("harness.cloud").joinpath("proxy-startup.sh").read_text()
    values = {
        "@CONFIGURATION@": configuration(site).rstrip("\n"),
        "@SHA256@": digest(site),
        "@NAMESPACE@": NAMESPACE,
        "@READY@": READY,
        "@FAILED@": FAILED,
        "@CA@": CA,
        "@INTERCEPT@": "yes" if site.intercept else "no",
        "@CERTIFICATE@": _PLACE.certificate,
        "@CERTIFICATES@": _PLACE.certificates,
    }
    for mark, value in values.items():
        template = template.replace(mark, value)
    return template


def machine(site: Site, marker: str, run: str, public_key: str) -> Resource:
    """The proxy. Shielded, with the only external address, and gone by itself in the end.

    ``public_key`` is one line of OpenSSH, ``run`` the label of who made it. The key is no part of
    what is expected: another who looks has another.
    """
    script = startup_script(site)
    items = {
        "startup-script": script,
        "enable-guest-attributes": "TRUE",
        "block-project-ssh-keys": "TRUE",
        "serial-port-enable": "FALSE",
        "enable-oslogin": "FALSE",
    }
    zone = f"projects/{site.project}/zones/{site.zone}"
    machine_type = f"{zone}/machineTypes/{site.machine_type}"
    subnet = f"projects/{site.project}/regions/{site.region}/subnetworks/{site.proxy_name}"
    card: dict[str, Any] = {"subnetwork": subnet, "networkIP": site.proxy_address}
    shielded = {
        "enableSecureBoot": True,
        "enableVtpm": True,
        "enableIntegrityMonitoring": True,
    }
    tags = {"items": [site.proxy_name]}
    disk = {
        "boot": True,
        "autoDelete": True,
        "initializeParams": {
            "sourceImage": site.image,
            "diskSizeGb": "10",
            "diskType": f"{zone}/diskTypes/pd-balanced",
        },
    }
    body = {
        "name": site.proxy_name,
        "description": marker,
        "machineType": machine_type,
        "labels": {NETWORK: site.name, MADE: run},
        "tags": tags,
        "disks": [disk],
        "networkInterfaces": [
            {**card, "accessConfigs": [{"type": "ONE_TO_ONE_NAT", "name": "External NAT"}]}
        ],
        "shieldedInstanceConfig": shielded,
        "scheduling": {
            "provisioningModel": "STANDARD",
            "automaticRestart": False,
            "onHostMaintenance": "TERMINATE",
            "maxRunDuration": {"seconds": str(site.hours * 3600)},
            "instanceTerminationAction": "DELETE",
        },
        "metadata": {"items": _items({**items, "ssh-keys": f"{USER}:{public_key}"})},
        "serviceAccounts": [],
    }
    expected = {
        "status": "RUNNING",
        "machineType": machine_type,
        "tags": tags,
        "networkInterfaces": [card],
        "shieldedInstanceConfig": shielded,
        "metadata": {"items": _items(items)},
        "serviceAccounts": [],
    }
    return Resource("instances", site.proxy_name, body, expected)


def _items(values: dict[str, str]) -> list[dict[str, str]]:
    return [{"key": key, "value": value} for key, value in values.items()]
