"""Driver containers: proxy, CA, package sources and Secure Boot, with what is known not to work."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from harness.errors import UsageError
from harness.k8s.chart import Chart, over
from harness.k8s.declaration import Declaration

if TYPE_CHECKING:
    from harness.k8s.values import Made

_FAMILIES = {
    "rhel": ("rhel", "rocky", "centos", "rhcos", "alma"),
    "debian": ("ubuntu", "debian"),
    "suse": ("sles", "opensuse"),
}
_OS = re.compile(r"([a-z]+)(\d[\d.]*)")
CA_MAP, REPOSITORIES_MAP = "airlock-driver-ca", "airlock-driver-repositories"
_HOST_DRIVER = (
    "put a driver on the node image whose modules are signed (airlock install, or an image "
    "built by airlock run), and say [nodes] host-driver = true"
)


def driver_values(chart: Chart, wanted: Declaration, service_ip: str, made: Made) -> None:
    """Add what the driver containers need to ``made``. UsageError with the reason to refuse.

    ``service_ip``: the address of the service ``kubernetes``, empty if it could not be asked.
    """
    if not isinstance(chart.values.get("driver"), dict):
        if wanted.nodes.secure_boot or wanted.network.proxy or wanted.network.ca:
            made.notes.append(f"the chart {chart.name} has no driver containers: nothing to set")
        return
    if wanted.nodes.host_driver:
        made.values = over(made.values, {"driver": {"enabled": False}})
        made.notes.append("driver.enabled=false: the driver is on the node, signed")
        return
    if wanted.nodes.secure_boot:
        raise UsageError(
            f"{wanted.path}: [nodes] secure-boot: the operator's driver containers build modules "
            "that nobody signed, and the kernel refuses them (Key was rejected by service)",
            hint=_HOST_DRIVER,
        )
    family = _family(wanted)
    if wanted.network.proxy:
        _proxy(chart, wanted, service_ip, made)
    if wanted.network.ca:
        _ca(wanted, family, made)
    if wanted.network.package_repositories:
        _repositories(chart, wanted, family, made)


def _family(wanted: Declaration) -> str:
    if not wanted.nodes.os:
        return ""
    match = _OS.fullmatch(wanted.nodes.os)
    for family, names in _FAMILIES.items():
        if match and match[1] in names:
            return family
    raise UsageError(
        f"{wanted.path}: [nodes] os = {wanted.nodes.os!r}: no driver image is made for it",
        hint='as in "ubuntu22.04" or "rhel9"',
    )


def _proxy(chart: Chart, wanted: Declaration, service_ip: str, made: Made) -> None:
    """Both spellings, for programs that know only one; and for the init container, too.

    ``driver.env`` does not reach the driver-manager init container, which talks to the API server
    (gpu-operator issue 260); so it gets its own.
    """
    outside = ", ".join(wanted.network.no_proxy)
    around = [*wanted.network.no_proxy]
    if service_ip and service_ip not in around:
        around.append(service_ip)
    if not around or (not service_ip and not any(entry[:1].isdigit() for entry in around)):
        raise UsageError(
            f"{wanted.path}: [network] no-proxy = [{outside}]: the address of the service "
            "kubernetes is not in it, so the driver's init container would ask the proxy for the "
            "API server",
            hint='add the service network, as in "10.96.0.0/12", or let us ask the cluster',
        )
    settings = {
        "HTTP_PROXY": wanted.network.proxy,
        "HTTPS_PROXY": wanted.network.proxy,
        "NO_PROXY": ",".join(around),
    }
    env = [
        {"name": spelt, "value": value}
        for name, value in sorted(settings.items())
        for spelt in (name, name.lower())
    ]
    driver: dict[str, Any] = {"env": env}
    manager = chart.values["driver"].get("manager")
    if isinstance(manager, dict) and isinstance(manager.get("env"), list):
        kept = [one for one in manager["env"] if one.get("name", "").upper() not in settings]
        driver["manager"] = {"env": kept + env}
        made.notes.append("driver.manager.env: driver.env does not reach the init container")
    made.values = over(made.values, {"driver": driver})


def _ca(wanted: Declaration, family: str, made: Made) -> None:
    if family == "rhel":
        raise UsageError(
            f"{wanted.path}: [network] ca: driver.certConfig does not work on {wanted.nodes.os}: "
            "it is mounted over /etc/pki/ca-trust/extracted/pem, and the bundle that programs "
            "there read is gone",
            hint=f"{_HOST_DRIVER}, or use a driver image that has the CA in it",
        )
    if not family:
        raise UsageError(
            f"{wanted.path}: [network] ca needs [nodes] os: where a CA goes differs", hint="say it"
        )
    text = wanted.text(wanted.network.ca, "network.ca")
    if "-----BEGIN CERTIFICATE-----" not in text:
        raise UsageError(f"{wanted.path}: [network] ca: {wanted.network.ca}: holds no certificate")
    made.values = over(made.values, {"driver": {"certConfig": {"name": CA_MAP}}})
    made.objects.append(_config_map(wanted, CA_MAP, {"airlock-ca.crt": text}))
    made.notes.append(
        "driver.certConfig is for what driver containers fetch; pulling images needs the CA in the "
        "container runtime of the node (airlock install)"
    )


def _repositories(chart: Chart, wanted: Declaration, family: str, made: Made) -> None:
    crd = chart.values["driver"].get("nvidiaDriverCRD")
    if isinstance(crd, dict) and crd.get("enabled"):
        raise UsageError(
            f"{wanted.path}: [network] package-repositories: drivers that come as NVIDIADriver "
            "objects ignore driver.repoConfig (gpu-operator issue 1621)",
            hint="set driver.nvidiaDriverCRD.enabled=false",
        )
    name = wanted.network.package_repositories
    text = wanted.text(name, "network.package-repositories")
    made.values = over(made.values, {"driver": {"repoConfig": {"configMapName": REPOSITORIES_MAP}}})
    made.objects.append(_config_map(wanted, REPOSITORIES_MAP, {name.rpartition("/")[2]: text}))
    made.notes.append(
        "driver.repoConfig: the image's own sources stay, but for a file of the same name"
        + (" (sources.list is never replaced)" if family == "debian" else "")
    )


def _config_map(wanted: Declaration, name: str, data: dict[str, str]) -> dict[str, Any]:
    meta = {"name": name, "namespace": wanted.operator.namespace}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": data}


def driver_tag_suffix(os: str) -> str:
    """What the operator puts behind the driver's version at run time; empty if not known.

    Red Hat's and what is made like it: the major version alone.
    """
    match = _OS.fullmatch(os)
    if not match:
        return ""
    name, version = match[1], match[2]
    if name in _FAMILIES["rhel"]:
        version = version.partition(".")[0]
    return f"-{name}{version}"
