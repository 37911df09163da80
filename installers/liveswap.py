"""Another driver on a node that runs: what holds the old one, and whether a reboot is needed.

The modules on disk are replaced first, as always. Then the loaded ones are changed where nothing
uses them; where something does, they stay and the node says that it needs a reboot. New modules
that do not load are taken back: the old ones are on disk and loaded again.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from installers.errors import CommandError, NodeError
from installers.host import Host
from installers.journal import Log
from installers.kernels import module_directory

#: The order in which they are taken out; the reverse of the order in which they go in.
MODULES = ("nvidia_peermem", "nvidia_drm", "nvidia_modeset", "nvidia_uvm", "nvidia")
#: Services of NVIDIA's own that hold the device and come back with the driver.
SERVICES = ("nvidia-persistenced.service", "nvidia-fabricmanager.service", "nvidia-dcgm.service")
_VERSION = "/sys/module/nvidia/version"
#: The modules that were replaced, until the new ones are loaded: where depmod does not look.
BEFORE = "/usr/lib/airlock/modules-before"


@dataclass(frozen=True)
class Swapped:
    """What became of the loaded driver. ``reboot``: the old one is still at work, and why."""

    before: Optional[str]
    now: Optional[str]
    reboot: str = ""


def loaded(host: Host) -> Optional[str]:
    """The version of the driver that is loaded; None where none is."""
    return (host.read(_VERSION) or "").strip() or None


def users(host: Host) -> list[str]:
    """Programs that have a device of NVIDIA's open: ``name (pid)``, sorted."""
    found = set()
    for process in host.path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if any(_is_device(link) for link in (process / "fd").iterdir()):
                found.add(f"{(process / 'comm').read_text().strip()} ({process.name})")
    return sorted(found)


def _is_device(link: Path) -> bool:
    try:
        return str(link.readlink()).startswith("/dev/nvidia")
    except OSError:
        return False


def swap(host: Host, version: str, kernel: str, log: Log) -> Swapped:
    """Load ``version``, which is on disk for ``kernel``, in place of what is loaded.

    Raises NodeError when it does not load; the modules that were loaded are out by then.
    """
    before = loaded(host)
    running = (host.read("/proc/sys/kernel/osrelease") or "").strip()
    if before is None or before == version or running != kernel:
        return Swapped(before, before)
    services = [
        name
        for name in SERVICES
        if host.run(["systemctl", "is-active", "--quiet", name], check=False).code == 0
    ]
    with log.step("swap-driver", before=before, after=version, services=services):
        if services:
            host.run(["systemctl", "stop", *services], timeout=300)
        try:
            busy = users(host)
            if busy:
                return Swapped(before, before, f"in use by {', '.join(busy[:5])}")
            there = [name for name in MODULES if host.exists(f"/sys/module/{name}")]
            try:
                host.run(["modprobe", "-r", *there], timeout=120)
            except CommandError as error:
                return Swapped(before, before, f"cannot be taken out: {error.what}")
            _load(host, version, there)
            return Swapped(before, loaded(host))
        finally:
            if services:
                host.run(["systemctl", "start", *services], check=False, timeout=300)


def swap_or_take_back(host: Host, version: str, kernel: str, log: Log) -> Swapped:
    """``swap``; what does not load is replaced by what lies in BEFORE, on disk and loaded.

    Raises NodeError, which says so.
    """
    place = module_directory(kernel)
    there = [name for name in MODULES if host.exists(f"/sys/module/{name}")]
    try:
        return swap(host, version, kernel, log)
    except NodeError as error:
        if not host.exists(BEFORE):
            raise
        with log.step("take-back", reason=error.what):
            host.remove(place)
            host.move(BEFORE, place)
            host.run(["depmod", "-a", kernel], timeout=300)
            for name in reversed(there):
                host.run(["modprobe", name], check=False, timeout=120)
        raise NodeError(
            f"{error.what}; the driver that was here is back", where="driver"
        ) from error


def _load(host: Host, version: str, names: list[str]) -> None:
    try:
        for name in reversed(names):
            host.run(["modprobe", name], timeout=120)
    except CommandError as error:
        raise NodeError(
            f"the new driver {version} does not load: {error.what}", where="driver"
        ) from error
    if loaded(host) != version:
        raise NodeError(f"{loaded(host)} was loaded instead of {version}", where="driver")
