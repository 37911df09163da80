"""The files that are wholly ours on a node of a cluster: path -> text."""

from __future__ import annotations

from urllib.parse import urlsplit

from installers.collect.kubernetes import MODULES, SYSCTLS
from installers.kubernetes.wanted import Cluster

HEADER = "# Written by airlock.\n"
MODULES_FILE = "/etc/modules-load.d/airlock-kubernetes.conf"
SYSCTL_FILE = "/etc/sysctl.d/90-airlock-kubernetes.conf"
CERTS_D = "/etc/containerd/certs.d"
RESOLVED_FILE = "/etc/systemd/resolved.conf.d/10-airlock-no-stub.conf"
RESOLVED_TEXT = f"{HEADER}[Resolve]\nDNSStubListener=no\n"


def hosts_toml(url: str) -> str:
    """A registry's hosts.toml. ``server`` is the mirror as well: without it containerd would go on
    to the registry itself when the mirror fails.
    """
    override = "override_path = true\n" if urlsplit(url).path else ""
    indented = f"  {override}" if override else ""
    return (
        f'{HEADER}server = "{url}"\n{override}\n'
        f'[host."{url}"]\n  capabilities = ["pull", "resolve"]\n{indented}'
    )


def mirrors(cluster: Cluster) -> dict[str, str]:
    """The hosts.toml of every mirror."""
    return {
        f"{CERTS_D}/{registry}/hosts.toml": hosts_toml(url)
        for registry, url in cluster.mirrors.items()
    }


def kernel() -> dict[str, str]:
    """Modules and sysctls, for every boot."""
    settings = "".join(f"{name} = {value}\n" for name, value in SYSCTLS.items())
    return {
        MODULES_FILE: HEADER + "".join(f"{name}\n" for name in MODULES),
        SYSCTL_FILE: HEADER + settings,
    }
