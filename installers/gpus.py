"""Which GPUs a machine has, by the numbers of PCI: names differ, and text sorts wrongly."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Optional

from installers.compat import load_data, numbers
from installers.errors import ConfigError
from installers.host import Host

NVIDIA = 0x10DE
_DEVICES = "/sys/bus/pci/devices"
#: What people and clouds call cards, for image builds, where there is none to look at.
NAMES = {
    "p4": 0x1BB3,
    "p100": 0x15F8,
    "v100": 0x1DB1,
    "t4": 0x1EB8,
    "a100": 0x20B0,
    "a100-80gb": 0x20B2,
    "l4": 0x27B8,
    "h100": 0x2330,
    "h200": 0x2335,
    "b200": 0x2901,
}
#: PCI class of NVSwitch (bridge, other): such machines need the fabric manager.
_BRIDGE = 0x0680


@dataclass(frozen=True)
class Architecture:
    """One generation. ``first`` and ``last``: driver branches; ``cuda``: [from, below)."""

    name: str
    sm: tuple[int, ...]
    open: bool
    proprietary: bool
    first: str
    last: Optional[str]
    cuda: tuple[Optional[str], Optional[str]]
    sources: tuple[str, ...]

    def has_branch(self, driver: str) -> bool:
        """Whether a driver's branch (its first number) still or already knows this generation."""
        branch = numbers(driver)[:1]
        last = self.last is None or branch <= numbers(self.last)
        return numbers(self.first) <= branch and last


def table() -> dict[str, Any]:
    """``data/gpu_compat.json``."""
    found: dict[str, Any] = load_data("gpu_compat.json")
    return found


def architecture(device: int) -> Optional[Architecture]:
    """The generation of a PCI device id; None when no row has it."""
    for row in table()["architectures"]:
        if any(int(low, 16) <= device <= int(high, 16) for low, high in row["ids"]):
            return Architecture(
                row["name"],
                tuple(row["sm"]),
                row["open"],
                row["proprietary"],
                row["first_branch"],
                row["last_branch"],
                (row["cuda"][0], row["cuda"][1]),
                tuple(row["source"]),
            )
    return None


def present(host: Host) -> list[int]:
    """Device ids of NVIDIA's display and 3D controllers, from sysfs; empty without any."""
    return sorted(device for device, kind in _nvidia(host) if kind >> 8 == 0x03)


def switches(host: Host) -> int:
    """How many NVSwitches there are."""
    return sum(kind == _BRIDGE for _, kind in _nvidia(host))


def _nvidia(host: Host) -> list[tuple[int, int]]:
    """(device id, class as base and sub class) of every NVIDIA function."""
    found = []
    for path in host.glob(_DEVICES, "*"):
        values = [_hex(host.read(f"{path}/{name}")) for name in ("vendor", "device", "class")]
        vendor, device, kind = values
        if vendor == NVIDIA and device is not None and kind is not None:
            found.append((device, kind >> 8))
    return found


def _hex(text: Optional[str]) -> Optional[int]:
    try:
        return int((text or "").strip(), 16)
    except ValueError:
        return None


def parse(text: str, where: str) -> list[int]:
    """Device ids from ``t4, 10de:2330``; ConfigError names what is neither."""
    found = []
    for word in re.split(r"[\s,]+", text.strip()):
        name = word.lower().removeprefix("nvidia-").removeprefix("tesla-") if word else ""
        match = re.fullmatch(r"(?:10de:)?(?:0x)?([0-9a-f]{4})", name)
        if name in NAMES:
            found.append(NAMES[name])
        elif match:
            found.append(int(match.group(1), 16))
        elif name:
            raise ConfigError(
                f"{word!r} is no GPU that is known",
                where=where,
                remedy=f"write a PCI id as 10de:2330, or one of {', '.join(NAMES)}",
            )
    return found
