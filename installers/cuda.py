# ruff: noqa: ARG002 - the base class names arguments that only some installers use
"""What is not kernel: CUDA, cuDNN, NCCL, the driver's user space, fabric manager, containers.

From apt's or dnf's repositories (the ``keyrings`` installer brings NVIDIA's). Nothing is done where
nothing was asked. A version that is not offered is refused; no other one is taken for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Optional, Protocol

from installers import (
    aptpackages,
    dnfpackages,
    fabric,
    gpudecide,
    kernels,
    retired,
    runtimes,
)
from installers.aptpackages import Wish
from installers.choice import Choice
from installers.config import Config
from installers.engine import Change, Contract, Installer, Problem, Refusal
from installers.errors import ConfigError, NodeError
from installers.gpudecide import Decision
from installers.host import Host
from installers.journal import Log

MEMORY = "cuda-packages"
USER_SPACE = "airlock-driver-user-space"
#: By the driver's source; both bring the libraries that they need.
_USER_SPACE_PACKAGES = {
    "distribution": ("nvidia-smi", "libcuda1"),
    "nvidia-repository": ("nvidia-driver-cuda", "libcuda1"),
}
_NCCL = {"apt": ("libnccl2", "libnccl-dev"), "dnf": ("libnccl", "libnccl-devel")}
_OF_THE_MODULES = "that of the kernel modules"
# Bytes per component, rounded up from NVIDIA's packages: what is fetched, and what /usr takes.
_SIZES = {
    "toolkit": (3500 << 20, 8000 << 20),
    "cudnn": (800 << 20, 1800 << 20),
    "nccl": (300 << 20, 500 << 20),
    "user-space": (120 << 20, 400 << 20),
    "fabricmanager": (10 << 20, 40 << 20),
    "container": (20 << 20, 60 << 20),
}
# The toolkit's own installer and ptxas were seen to end below this.
_MEMORY = 1 << 30


class Manager(Protocol):
    """What ``aptpackages`` and ``dnfpackages`` both are."""

    def fresh(self, host: Host, log: Log) -> AbstractContextManager[None]: ...
    def hosts(self, host: Host) -> list[str]: ...
    def versions(self, host: Host, wishes: Sequence[Wish]) -> dict[str, str]: ...
    def ours(self, host: Host, memory: str) -> list[str]: ...
    def held(self, host: Host) -> set[str]: ...
    def plain(self, host: Host, name: str) -> None: ...
    def install(self, host: Host, wishes: Sequence[Wish], memory: str, log: Log) -> None: ...
    def release(self, host: Host, memory: str, keep: Optional[set[str]] = None) -> list[str]: ...


class Cuda(Installer):
    """Settings are ``package NAME`` → version and ``runtime NAME`` → configured."""

    name = "cuda"

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        raw = dict(config.raw)
        self._without = {key for key in ("cudnn-version", "nccl-version") if _is_none(raw, key)}
        for key in self._without:
            raw.pop(key)
        self._asked = gpudecide.read(raw)
        self._choice = Choice(config, raw)
        provider = (raw.get("gpu-driver-provider") or "").strip().lower()
        asked = (raw.get(USER_SPACE) or "").strip().lower() or str(provider == "os").lower()
        if asked not in ("true", "false"):
            raise ConfigError("is neither true nor false", where=USER_SPACE)
        self._user_space = asked == "true"
        self._runtime = runtimes.parse(raw.get(runtimes.KEY))
        self._fabric = fabric.parse(raw.get(fabric.KEY))

    def _decision(self, host: Host) -> Decision:
        return self._choice.decide(host)

    def _wishes(self, host: Host) -> dict[str, list[Wish]]:
        """Component → its packages; empty where nothing was asked."""
        found: dict[str, list[Wish]] = {}
        made = self._decision(host)
        if self._asked.cuda is not None and made.cuda is not None:
            parts = made.cuda.split(".")
            minor, major = ".".join(parts[:2]), parts[0]
            name = f"cuda-toolkit-{parts[0]}-{parts[1]}"
            found["toolkit"] = [Wish(name, made.cuda, key="cuda-version")]
            if made.cudnn and "cudnn-version" not in self._without:
                first = made.cudnn.split(".")[0]
                nine = int(first) >= 9
                package = f"libcudnn{first}-cuda-{major}" if nine else f"libcudnn{first}"
                variant = "" if nine else f"cuda{minor}"
                found["cudnn"] = [Wish(package, made.cudnn, variant, "cudnn-version")]
            if made.nccl and "nccl-version" not in self._without:
                names = _NCCL["dnf" if _manager(host) is dnfpackages else "apt"]
                variant = f"cuda{minor}"
                found["nccl"] = [Wish(n, made.nccl, variant, "nccl-version") for n in names]
        version = made.driver or self._modules_version(host) or _OF_THE_MODULES
        if self._user_space and made.source in _USER_SPACE_PACKAGES:
            installed = self._modules_version(host) or _OF_THE_MODULES
            names = _USER_SPACE_PACKAGES[made.source]
            found["user-space"] = [Wish(n, installed, key=USER_SPACE) for n in names]
        if self._wants_fabric_manager(host):
            # It must be of the driver's very version, or it refuses to start.
            found["fabricmanager"] = [Wish(fabric.package(version), version, key=fabric.KEY)]
        return found

    def _wants_fabric_manager(self, host: Host) -> bool:
        if self._choice.nothing:
            return False
        builder = self.config.image_build
        return fabric.is_wanted(host, self._fabric, image_build=builder)

    def _modules_version(self, host: Host) -> Optional[str]:
        """The driver whose kernel modules are installed; the user space must be of that version."""
        found = kernels.record(host, kernels.boot_kernel(host, self.config)).get("driver")
        return found if isinstance(found, str) else None

    def refuse(self, host: Host) -> list[Refusal]:
        """Impossible pairs, licences nobody accepted, systems without apt, too little memory."""
        wishes = self._wishes(host)
        if self._asked.cuda is None and not self._runtime and not wishes:
            return []
        system = host.os_release()
        if host.find_program("apt-get") is None and host.find_program("dnf") is None:
            name = system.get("PRETTY_NAME") or system.get("ID") or "this system"
            reason = f"CUDA comes by apt or dnf, and {name} has neither"
            remedy = "use Debian, Ubuntu or a system of the RHEL family, or leave cuda-version out"
            return [Refusal("cuda.system", reason, remedy)]
        if "user-space" in wishes and _manager(host) is dnfpackages:
            reason = "only Debian's own packages are known for the driver's user space"
            return [Refusal("cuda.user-space", reason, f"leave {USER_SPACE} out")]
        made = self._decision(host)
        found = list(made.refusals)
        if self._asked.cuda is not None:
            named = {"cuda": made.cuda, "cudnn": made.cudnn if "cudnn" in wishes else None}
            found += gpudecide.unaccepted(self._asked, named)
        memory = _memory(host)
        if "toolkit" in wishes and memory is not None and memory < _MEMORY:
            reason = f"{memory >> 20} MiB of memory, {_MEMORY >> 20} needed"
            found.append(Refusal("cuda.memory", reason, "use a machine with more memory"))
        return found

    def _packages(self, host: Host) -> list[Wish]:
        return [wish for wishes in self._wishes(host).values() for wish in wishes]

    def inspect(self, host: Host) -> dict[str, Any]:
        """Versions of the packages that are wanted, or are still ours; the runtime's setting."""
        wanted = self._packages(host)
        state: dict[str, Any] = {
            f"package {name}": version
            for name, version in _manager(host).versions(host, wanted).items()
        }
        for name in _manager(host).ours(host, MEMORY):
            if name not in {wish.name for wish in wanted}:
                state[f"package {name}"] = "ours, and no longer wanted"
        if self._runtime and runtimes.is_configured(host, self._runtime):
            state[f"runtime {self._runtime}"] = "configured"
        if self._wants_fabric_manager(host):
            state[fabric.SETTING] = fabric.state(host)
        return state

    def desired(self, host: Host) -> dict[str, Any]:
        """The same as it should be."""
        state = {f"package {wish.name}": wish.version for wish in self._packages(host)}
        if self._runtime:
            state[f"runtime {self._runtime}"] = "configured"
        if self._wants_fabric_manager(host):
            state[fabric.SETTING] = fabric.ENABLED
        return state

    def contract(self, host: Host) -> Contract:
        """apt's hosts, bytes and disk of what is asked for, and the reasons."""
        retired_notes = retired.notes(self.config.raw, retired.CUDA)
        parts = [*self._wishes(host), *(["container"] if self._runtime else [])]
        if not parts:
            return Contract(notes=retired_notes)
        fetched = sum(_SIZES[part][0] for part in parts)
        disk = {"/usr": sum(_SIZES[part][1] for part in parts), "/var/cache/apt": fetched}
        notes = [f"decided: {text}" for text in self._decision(host).reasons] + retired_notes
        return Contract(_manager(host).hosts(host), fetched, disk, [], notes)

    def apply(self, host: Host, changes: list[Change], log: Log) -> None:
        """Packages first, then the runtime. Safe to be killed anywhere."""
        wanted = self._packages(host)
        if any(wish.version == _OF_THE_MODULES for wish in wanted):
            raise NodeError(
                "no kernel modules are installed, and the user space must be of their version",
                where=USER_SPACE,
                remedy="apply the installer driver first",
            )
        keep = {wish.name for wish in wanted}
        manager = _manager(host)
        self._release(host, manager, keep)
        if wanted or self._runtime:
            with manager.fresh(host, log):
                if wanted:
                    manager.install(host, wanted, MEMORY, log)
                if self._runtime and host.find_program("nvidia-ctk") is None:
                    with log.step("container-toolkit"):
                        manager.plain(host, runtimes.TOOLKIT)
        if self._runtime:
            runtimes.configure(host, self._runtime, log)
        if self._wants_fabric_manager(host):
            fabric.enable(host, log)

    def verify(self, host: Host) -> list[Problem]:
        """Holds, and what nvcc itself says."""
        problems = []
        wanted = self._packages(host)
        if wanted:
            loose = {wish.name for wish in wanted} - _manager(host).held(host)
            if loose:
                problems.append(Problem(f"{', '.join(sorted(loose))}: not held", "apply again"))
        made = self._decision(host)
        if self._asked.cuda is not None and made.cuda is not None:
            minor = ".".join(made.cuda.split(".")[:2])
            nvcc = f"/usr/local/cuda-{minor}/bin/nvcc"
            said = host.run([nvcc, "--version"], check=False).out if host.exists(nvcc) else ""
            if f"release {minor}," not in said:
                problems.append(Problem(f"{nvcc} does not say release {minor}", "apply again"))
        return problems + (runtimes.verify(host, self._runtime) if self._runtime else [])

    def remove(self, host: Host) -> None:
        """Release the holds and purge what this installer added."""
        self._release(host, _manager(host))

    def _release(self, host: Host, manager: Manager, keep: Optional[set[str]] = None) -> None:
        gone = manager.release(host, MEMORY, keep)
        if any(name.startswith(fabric.PACKAGE) for name in gone):
            fabric.disable(host)

    def provenance(self, host: Host) -> dict[str, Any]:
        """The decision, for reports."""
        made = self._decision(host)
        if self._asked.cuda is None:
            return {}
        return {"cuda": made.cuda, "cudnn": made.cudnn, "nccl": made.nccl, "why": made.reasons}


def _manager(host: Host) -> Manager:
    """Whatever this system installs packages with."""
    by_dnf = host.find_program("apt-get") is None and host.find_program("dnf") is not None
    return dnfpackages if by_dnf else aptpackages


def _is_none(raw: dict[str, str], key: str) -> bool:
    return (raw.get(key) or "").strip().lower() == "none"


def _memory(host: Host) -> Optional[int]:
    """Bytes of memory of this machine; None where the root is not a running one's."""
    for line in (host.read("/proc/meminfo") or "").splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) << 10
    return None
