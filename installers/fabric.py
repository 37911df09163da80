"""The fabric manager of machines with NVSwitch: without it no CUDA program starts (error 802).

NVIDIA's repositories call the package ``nvidia-fabricmanager-BRANCH`` up to branch 575, and
``nvidia-fabricmanager`` from 580 on. It must be of the driver's very version.
"""

from __future__ import annotations

from typing import Optional

from installers import gpus, liveswap
from installers.compat import numbers
from installers.errors import ConfigError
from installers.host import Host
from installers.journal import Log

#: Images are built on machines without NVSwitch; this key says that their nodes have them.
KEY = "airlock-fabric-manager"
PACKAGE = "nvidia-fabricmanager"
UNIT = "nvidia-fabricmanager.service"
SETTING = f"service {UNIT}"
ENABLED = "enabled"
_UNNUMBERED_FROM = (580,)
_LINK = f"/etc/systemd/system/multi-user.target.wants/{UNIT}"
_UNIT_FILES = (f"/lib/systemd/system/{UNIT}", f"/usr/lib/systemd/system/{UNIT}")


def parse(text: Optional[str]) -> Optional[bool]:
    """What the key says; None where it says nothing. Raises ConfigError."""
    word = (text or "").strip().lower()
    if word not in ("", "true", "false"):
        raise ConfigError("is neither true nor false", where=KEY)
    return word == "true" if word else None


def is_wanted(host: Host, asked: Optional[bool], *, image_build: bool) -> bool:
    """As asked; else where there are NVSwitches, which a builder's own machine says nothing of."""
    if asked is not None:
        return asked
    return not image_build and gpus.switches(host) > 0


def package(version: str) -> str:
    """The package for a driver's version, as NVIDIA's repositories name it."""
    branch = numbers(version)[:1]
    return f"{PACKAGE}-{branch[0]}" if () < branch < _UNNUMBERED_FROM else PACKAGE


def state(host: Host) -> str:
    """``enabled``, ``disabled``, or ``absent`` where its package brought no unit."""
    if not any(host.exists(path) for path in _UNIT_FILES):
        return "absent"
    return ENABLED if host.readlink(_LINK) is not None else "disabled"


def enable(host: Host, log: Log) -> None:
    """Start it at every boot, by its link, which works on an image; and now, with its driver."""
    unit = next((path for path in _UNIT_FILES if host.exists(path)), None)
    if unit is None:
        return
    with log.step("fabric-manager"):
        host.symlink(_LINK, unit)
        if host.is_running_system:
            host.run(["systemctl", "daemon-reload"], timeout=120)
            if liveswap.loaded(host) is not None:
                host.run(["systemctl", "restart", UNIT], timeout=300)


def disable(host: Host) -> None:
    """Take the link away; a package that is purged leaves it behind."""
    host.remove(_LINK)
