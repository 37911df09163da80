"""The hundred facts of the benches: what they are, in our facts and as others read them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

#: The areas of the facts that hold them.
AREAS = ("identity", "os", "kernel", "python", "network", "packages")
PACKAGES = 80


def ours(facts: Mapping[str, Any]) -> dict[str, str]:
    """Name -> value, from one facts object."""
    packages = facts["packages"]
    kernel, system, identity = facts["kernel"], facts["os"], facts["identity"]
    cards = {card["name"]: card for card in facts["network"]["interfaces"]}
    found = {
        "machine_id": identity["machine_id"],
        "hostname": identity["hostname"],
        "boot_id": identity["boot_id"],
        "os": system["id"],
        "release": system["version_id"],
        "codename": system["codename"],
        "title": system["pretty_name"],
        "kernel": kernel["release"],
        "kernel_version": kernel["version"],
        "command_line": kernel["cmdline"],
        "arch": kernel["arch"],
        "tainted": kernel["tainted"],
        "kernels": ",".join(sorted(kernel["installed"])),
        "python": facts["python"],
        "resolv": ",".join(facts["network"]["resolv"]),
        "cards": ",".join(sorted(cards)),
        "mac0": cards["eth0"]["mac"],
        "mac1": cards["eth1"]["mac"],
        "default_route": ",".join(
            sorted(r["gateway"] for r in facts["network"]["routes"] if r["gateway"])
        ),
        "packages": len(packages),
    }
    found |= {f"package {name}": packages[name] for name in sorted(packages)[:PACKAGES]}
    return {name: str(value) for name, value in found.items()}


def by_testinfra(host: Any, names: list[str]) -> dict[str, str]:
    """The same, each property read as a testinfra test reads it."""
    read: dict[str, Callable[[], Any]] = {
        "machine_id": lambda: host.file("/etc/machine-id").content_string.strip(),
        "hostname": lambda: host.check_output("hostname"),
        "boot_id": lambda: host.file("/proc/sys/kernel/random/boot_id").content_string.strip(),
        "os": lambda: _release(host)["ID"],
        "release": lambda: _release(host)["VERSION_ID"],
        "codename": lambda: _release(host)["VERSION_CODENAME"],
        "title": lambda: _release(host)["PRETTY_NAME"],
        "kernel": lambda: host.sysctl("kernel.osrelease"),
        "kernel_version": lambda: host.sysctl("kernel.version"),
        "command_line": lambda: host.file("/proc/cmdline").content_string.strip(),
        "arch": lambda: host.check_output("uname -m"),
        "tainted": lambda: host.sysctl("kernel.tainted"),
        "kernels": lambda: ",".join(sorted(host.file("/lib/modules").listdir())),
        "python": lambda: host.check_output("python3 -V").split()[1],
        "resolv": lambda: ",".join(
            line.split()[1]
            for line in host.file("/etc/resolv.conf").content_string.splitlines()
            if line.startswith("nameserver")
        ),
        "cards": lambda: ",".join(sorted({*host.file("/sys/class/net").listdir()} - {"lo"})),
        "mac0": lambda: host.file("/sys/class/net/eth0/address").content_string.strip(),
        "mac1": lambda: host.file("/sys/class/net/eth1/address").content_string.strip(),
        "default_route": lambda: host.check_output("ip -4 route show default").split()[2],
        "packages": lambda: len(
            [
                line
                for line in host.check_output(
                    "dpkg-query -W -f '${db:Status-Status}\\n'"
                ).splitlines()
                if line == "installed"
            ]
        ),
    }
    found = {}
    for name in names:
        if name.startswith("package "):
            found[name] = host.package(name.removeprefix("package ")).version
        else:
            found[name] = read[name]()
    return {name: str(value) for name, value in found.items()}


def _release(host: Any) -> dict[str, str]:
    lines = host.file("/etc/os-release").content_string.splitlines()
    return {key: value.strip('"') for key, _, value in (line.partition("=") for line in lines)}
