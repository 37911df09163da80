# ruff: noqa: ARG002 - the base class names arguments that only subclasses use
"""A node that a cluster can use: port 53, kubelet's resolver, mirrors, modules, sysctls.

Only where ``airlock-kubernetes`` says so. The names and networks of the cluster that bypass the
proxy are the proxy installer's, which writes them for the runtimes (installers/config.py).
"""

from __future__ import annotations

from typing import Any, Optional

from installers.collect.kubernetes import MODULES, SYSCTLS
from installers.config import Config
from installers.engine import Change, Contract, Installer, Problem, Refusal
from installers.errors import CommandError
from installers.host import Host
from installers.journal import Log
from installers.kubernetes import containerd, files, kubelet, resolver
from installers.kubernetes.wanted import Cluster, cluster


class Kubernetes(Installer):
    """Settings ``file <path>``, ``resolved:…``, ``kubelet <path>``, ``containerd:config_path``."""

    name = "kubernetes"

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.cluster: Optional[Cluster] = cluster(config.raw)

    def refuse(self, host: Host) -> list[Refusal]:
        if self.cluster is None:
            return []
        mirrors = containerd.refuse(host) if self.cluster.mirrors else []
        return [*resolver.refuse(host), *mirrors]

    def inspect(self, host: Host) -> dict[str, Any]:
        if self.cluster is None:
            return {}
        found: dict[str, Any] = {
            f"file {path}": _lines(text)
            for path in self._known(host)
            if (text := host.read(path)) is not None
        }
        found.update(resolver.inspect(host))
        found.update(kubelet.inspect(host) if self._through_resolved(host) else {})
        if self.cluster.mirrors:
            found.update(containerd.inspect(host))
        if host.is_running_system:
            found.update(_running(host))
        return found

    def desired(self, host: Host) -> dict[str, Any]:
        if self.cluster is None:
            return {}
        should: dict[str, Any] = {
            f"file {path}": _lines(text) for path, text in self._files().items()
        }
        should.update(resolver.desired(host))
        should.update(kubelet.desired(host) if self._through_resolved(host) else {})
        if self.cluster.mirrors:
            should.update(containerd.desired(host))
        if host.is_running_system:
            should.update({f"sysctl {name}": value for name, value in SYSCTLS.items()})
        return should

    def contract(self, host: Host) -> Contract:
        if self.cluster is None:
            return Contract()
        notes = []
        if self.cluster.mirrors:
            hosts = ", ".join(sorted(self.cluster.mirrors))
            notes.append(f"containerd will ask the mirrors alone for images of {hosts}")
            if host.is_running_system:
                notes.append("containerd is started again where it runs; its containers go on")
        if resolver.RESOLV in resolver.inspect(host):
            notes.append("systemd-resolved goes on without its stub: names are resolved as before")
        return Contract(disk={"/etc": 1 << 16}, notes=notes)

    def apply(self, host: Host, changes: list[Change], log: Log) -> None:
        keys = {change.key for change in changes}
        for path, text in self._files().items():
            if f"file {path}" in keys:
                with log.step("write a file", path=path):
                    host.write(path, text)
        for change in changes:
            path = change.key.partition(" ")[2]
            if change.key.startswith("file ") and path not in self._files():
                with log.step("remove a mirror that is no longer wanted", path=path):
                    host.remove(path)
                    host.prune(path.rpartition("/")[0])
        if any(key.startswith(("sysctl ", f"file {files.MODULES_FILE}")) for key in keys):
            self._load(host, log)
        resolver.apply(host, keys, log)
        for key in sorted(keys):
            if key.startswith("kubelet "):
                with log.step("set kubelet's resolvConf", path=key[len("kubelet ") :]):
                    kubelet.apply(host, key[len("kubelet ") :])
                    _restart(host, "kubelet")
        if containerd.SETTING in keys:
            with log.step("lead containerd to the mirrors"):
                containerd.apply(host)
                _restart(host, "containerd")

    def verify(self, host: Host) -> list[Problem]:
        if self.cluster is None:
            return []
        problems = resolver.verify(host)
        if self.cluster.mirrors:
            problems += containerd.verify(host)
        return problems

    def remove(self, host: Host) -> None:
        for path in self._known(host):
            host.remove(path)
            host.prune(path.rpartition("/")[0])
        host.prune(files.CERTS_D)
        kubelet.remove(host)
        containerd.remove(host)
        resolver.remove(host)

    def provenance(self, host: Host) -> dict[str, Any]:
        """``mirrors``: registry -> URL; ``networks`` of the cluster."""
        if self.cluster is None:
            return {}
        return {"mirrors": dict(self.cluster.mirrors), "networks": self.cluster.networks}

    def _files(self) -> dict[str, str]:
        return {**files.kernel(), **files.mirrors(self.cluster)} if self.cluster else {}

    def _known(self, host: Host) -> list[str]:
        """Files that are ours, and those of earlier mirrors."""
        found = dict.fromkeys([*files.kernel(), *self._files()])
        if host.exists(files.CERTS_D):
            for folder in host.glob(files.CERTS_D, "*"):
                path = f"{folder}/hosts.toml"
                if (host.read(path) or "").startswith(files.HEADER):
                    found[path] = None
        return list(found)

    def _through_resolved(self, host: Host) -> bool:
        return resolver.concerns(host)

    def _load(self, host: Host, log: Log) -> None:
        """Now, what the files say for every boot."""
        if not host.is_running_system:
            return
        with log.step("load modules and set sysctls"):
            host.run(["modprobe", "-a", *MODULES], check=False, timeout=120)
            try:
                host.run(["sysctl", "-q", "-p", files.SYSCTL_FILE], timeout=60)
            except CommandError as error:
                error.remedy = (
                    f"the kernel lacks {' or '.join(MODULES)}: boot one that has them, with its "
                    "package of extra modules where there is one"
                )
                raise


def _lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def _running(host: Host) -> dict[str, Any]:
    """sysctl(8) as the kernel has them; None where it does not know one."""
    found: dict[str, Any] = {}
    for name in SYSCTLS:
        text = host.read(f"/proc/sys/{name.replace('.', '/')}")
        found[f"sysctl {name}"] = None if text is None else text.strip()
    return found


def _restart(host: Host, unit: str) -> None:
    if host.is_running_system:
        host.run(["systemctl", "try-restart", unit], timeout=300)
