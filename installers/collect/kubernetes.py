"""What a node is to a cluster, before the cluster is there: the facts of area ``kubernetes``.

::

    {"resolver": {"listeners": [{"protocol": "udp", "address": "127.0.0.53", "scope": "stub",
                                 "pid": 412, "program": "systemd-resolve"}],
                  "resolved": true, "stub": "yes",
                  "link": "../run/systemd/resolve/stub-resolv.conf",
                  "servers": ["127.0.0.53"], "upstream": ["10.0.0.2"]},
     "kubelet": {"path": "/usr/bin/kubelet", "config": "/var/lib/kubelet/config.yaml",
                 "resolv_conf": "/run/systemd/resolve/resolv.conf", "why": null},
     "containerd": {"version": 2, "imports": ["/etc/containerd/conf.d/*.toml"],
                    "root": "/var/lib/containerd", "config_path": "/etc/containerd/certs.d",
                    "default_runtime": "nvidia", "why": null,
                    "mirrors": {"nvcr.io": {"path": "/etc/containerd/certs.d/nvcr.io/hosts.toml",
                                            "server": "https://registry.corp.example",
                                            "hosts": [{"url": "https://registry.corp.example/v2/nv",
                                                       "capabilities": ["pull", "resolve"],
                                                       "override_path": true, "skip_verify": false,
                                                       "ca": null}]}}},
     "kernel": {"release": "6.1.0-40-amd64", "modules": {"overlay": "loaded", ...},
                "sysctls": {"net.ipv4.ip_forward": "1", ...},
                "headers": "/usr/src/linux-headers-6.1.0-40-amd64"},
     "places": [{"use": "containerd", "path": "/var/lib/containerd", "real": "/data/containerd",
                 "mount": "/data", "source": "/dev/nvme1n1", "type": "ext4", "device": 66304,
                 "size": 107374182400, "free": 99999999999}],
     "access": {"ssh": {"listening": ["0.0.0.0:22"], "keys": ["root"]},
                "serial": {"consoles": ["ttyS0"], "logins": ["ttyS0"], "passwords": []},
                "agents": ["amazon-ssm-agent"]}}

Each part is described where it is read: collect/{resolver,registries,places,access}.py. Runtimes
of containerd, docker and CRI-O are in ``containers``, disks that nothing uses in ``volumes``, the
operating system and its C library in ``os``. What a stopped image cannot tell is empty there, and
null in ``kernel``.
"""

from __future__ import annotations

import json
import os
import re
from typing import Any, Optional

from installers.collect import access, containers, places, registries, resolver
from installers.collect.reader import Reader
from installers.collect.running import Processes, running, words

#: overlay: containerd's snapshots; br_netfilter: services' addresses on a bridge.
MODULES = ("overlay", "br_netfilter")
BRINGS = {"br_netfilter": "/proc/sys/net/bridge"}
#: Name -> value that a node of a cluster needs (kubernetes.io, container runtimes' page).
SYSCTLS = {
    "net.ipv4.ip_forward": "1",
    "net.bridge.bridge-nf-call-iptables": "1",
    "net.bridge.bridge-nf-call-ip6tables": "1",
}
#: Where kubeadm, EKS (JSON) and others keep kubelet's configuration.
KUBELET_CONFIGS = (
    "/var/lib/kubelet/config.yaml",
    "/etc/kubernetes/kubelet/config.json",
    "/etc/kubernetes/kubelet/kubelet-config.json",
    "/etc/kubernetes/kubelet-config.yaml",
)
RESOLV_CONF = "resolvConf"
_YAML = re.compile(rf"^{RESOLV_CONF}:[ \t]*(.*?)[ \t]*(?:#.*)?$", re.M)


def collect(reader: Reader) -> dict[str, Any]:
    """The facts in the shape above."""
    processes = running(reader) if reader.need_live("kubernetes.processes") else []
    containerd = registries.collect(reader)
    root = containerd["root"] if containerd else None
    return {
        "resolver": resolver.collect(reader, processes),
        "kubelet": _kubelet(reader, processes),
        "containerd": containerd,
        "kernel": _kernel(reader),
        "places": places.collect(reader, {"containerd": root}),
        "access": access.collect(reader, processes),
    }


def kubelet_setting(path: str, text: str) -> Optional[str]:
    """``resolvConf`` of a kubelet's configuration; None where it says nothing. ValueError."""
    if path.endswith(".json"):
        settings = json.loads(text)
        if not isinstance(settings, dict):
            raise ValueError("is no JSON object")
        value = settings.get(RESOLV_CONF)
        return None if value is None else str(value)
    found = _YAML.findall(text)
    return found[-1].strip("\"'") if found else None


def _kubelet(reader: Reader, processes: Processes) -> dict[str, Any]:
    """Its program, its configuration, and the resolv.conf that pods get from it."""
    given: dict[str, str] = {}
    for pid, name in processes:
        if name == "kubelet":
            line = " ".join(words(reader, pid))
            given = dict(re.findall(r"--(config|resolv-conf)[= ](\S+)", line))
    known = [path for path in KUBELET_CONFIGS if os.path.exists(reader.path(path))]  # noqa: PTH110
    config = given.get("config") or next(iter(known), None)
    setting, why = given.get("resolv-conf"), None
    if config and setting is None:
        try:
            setting = kubelet_setting(config, reader.text(config, "kubernetes.kubelet") or "")
        except ValueError as error:
            why = f"{config}: {error}"
    return {
        "path": containers.program(reader, "kubelet"),
        "config": config,
        # kubelet's own default (KubeletConfiguration v1beta1).
        "resolv_conf": setting or resolver.RESOLV_CONF,
        "why": why,
    }


def _kernel(reader: Reader) -> dict[str, Any]:
    """Modules ("loaded", "built-in", "available", "absent"), sysctls, and the headers' folder."""
    if not reader.need_live("kubernetes.kernel"):
        return {"release": None, "modules": {}, "sysctls": {}, "headers": None}
    release = os.uname().release
    tree = f"/lib/modules/{release}"
    build = os.path.realpath(f"{tree}/build")
    return {
        "release": release,
        "modules": {name: _module(reader, tree, name) for name in MODULES},
        "sysctls": {name: reader.line(f"/proc/sys/{name.replace('.', '/')}") for name in SYSCTLS},
        "headers": build if os.path.exists(f"{build}/Makefile") else None,  # noqa: PTH110
    }


def _module(reader: Reader, tree: str, name: str) -> str:
    # Built in, it has no folder of its own; what it brings is there all the same.
    filesystems = (reader.text("/proc/filesystems") or "").split()
    signs = (f"/sys/module/{name}", BRINGS.get(name, ""))
    if name in filesystems or any(os.path.isdir(sign) for sign in signs):  # noqa: PTH112
        return "loaded"
    for file, state in (("modules.builtin", "built-in"), ("modules.dep", "available")):
        if re.search(rf"(?:^|/){name}\.ko", reader.text(f"{tree}/{file}") or "", re.M):
            return state
    return "absent"
