"""The GPUs of this node, as nvidia-smi tells them: all of them, whole or in MIG slices.

``nvidia-smi -x -q`` is what the NodeManager itself runs; MIG devices have their UUIDs in
``nvidia-smi -L`` only.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field
from typing import Any, Optional
from xml.etree import ElementTree

from installers.errors import NodeError
from installers.host import Host

SMI = "nvidia-smi"
_PCI = "/sys/bus/pci/devices"
_NVIDIA = "0x10de"
_DISPLAY = "0x03"
# A driver that initialises eight cards without persistence mode takes its time.
_SECONDS = 60.0
_GPU_LINE = re.compile(r"GPU (\d+): (.*) \(UUID: (GPU-[0-9a-fA-F-]+)\)\s*")
# Since driver 470 MIG-<uuid>, before MIG-GPU-<uuid>/<gpu instance>/<compute instance>.
_MIG_LINE = re.compile(r"\s+MIG (\S+)\s+Device\s+(\d+): \(UUID: (MIG-[0-9a-zA-Z/-]+)\)\s*")


@dataclass(frozen=True)
class MigDevice:
    """A slice: its profile (``1g.5gb``), UUID, and the GPU and compute instance it is."""

    profile: str
    uuid: str
    gpu_instance: int = -1
    compute_instance: int = -1


@dataclass(frozen=True)
class Gpu:
    """A card. ``mig``: enabled now; ``pending``: after a reset; None where the card cannot."""

    index: int
    name: str
    uuid: str
    minor: int
    mig: Optional[bool] = None
    pending: Optional[bool] = None
    slices: tuple[MigDevice, ...] = field(default=())

    def as_json(self) -> dict[str, Any]:
        """For reports and the fingerprint of the hardware."""
        return asdict(self)


def devices(found: list[Gpu]) -> int:
    """How many a NodeManager can hand out: slices where MIG is on, else cards."""
    return sum(len(gpu.slices) if gpu.mig else 1 for gpu in found)


def on_bus(host: Host) -> list[str]:
    """PCI addresses of NVIDIA's display and 3D controllers (class 0x03xxxx)."""
    found = []
    for path in host.glob(_PCI, "*") if host.exists(_PCI) else []:
        vendor = (host.read(f"{path}/vendor") or "").strip()
        if vendor == _NVIDIA and (host.read(f"{path}/class") or "").startswith(_DISPLAY):
            found.append(path.rpartition("/")[2])
    return found


def inspect(host: Host) -> list[Gpu]:
    """Every GPU; empty on a node without one. NodeError where there are some and none answers."""
    cards = on_bus(host)
    if host.find_program(SMI) is None:
        if cards:
            raise NodeError(
                f"{len(cards)} NVIDIA GPUs are on the bus and {SMI} is not installed",
                where=cards[0],
                remedy="install the driver first",
            )
        return []
    result = host.run([SMI, "-x", "-q"], check=False, timeout=_SECONDS)
    if result.code:
        if not cards:
            return []
        said = (result.out or result.err).strip().splitlines()[-1:] or ["it said nothing"]
        raise NodeError(
            f"exited {result.code}: {said[0].strip()}",
            where=f"{SMI} -x -q",
            remedy="the driver does not work; see 'dmesg | grep NVRM'",
        )
    found = parse(result.out, host.run([SMI, "-L"], timeout=_SECONDS).out)
    if len(cards) > len(found):
        raise NodeError(
            f"{SMI} knows {len(found)} of {len(cards)} GPUs on the bus",
            where=f"{SMI} -x -q",
            remedy="one has fallen off the bus or is still starting; see 'dmesg | grep NVRM'",
        )
    return found


def parse(report: str, listing: str) -> list[Gpu]:
    """GPUs from ``nvidia-smi -x -q`` and ``nvidia-smi -L``. NodeError for what is no report."""
    try:
        root = ElementTree.fromstring(report)  # noqa: S314 - the driver's own program
    except ElementTree.ParseError as error:
        raise NodeError(f"is not XML: {error}", where=f"{SMI} -x -q") from None
    slices = listed(listing)
    found = []
    for index, element in enumerate(root.iter("gpu")):
        uuid = _text(element, "uuid")
        minor = _text(element, "minor_number")
        if not uuid or not minor.isdigit():
            raise NodeError(
                f"GPU {index} has no uuid or no minor number",
                where=f"{SMI} -x -q",
                remedy="the NodeManager cannot use such a card; see 'dmesg | grep NVRM'",
            )
        current, pending = (_mode(element, f"mig_mode/{name}_mig") for name in _MODES)
        instances = [
            (_number(one, "gpu_instance_id"), _number(one, "compute_instance_id"))
            for one in element.iter("mig_device")
        ]
        named = slices.get(uuid, [])
        if current and len(instances) != len(named):
            raise NodeError(
                f"GPU {index} has {len(instances)} MIG devices in -x -q and {len(named)} in -L",
                where=SMI,
                remedy="somebody is changing MIG at this moment; try again",
            )
        parts = tuple(
            MigDevice(profile, mig_uuid, *instance)
            for (profile, mig_uuid), instance in zip(named, instances)  # noqa: B905 - 3.9
        )
        name = _text(element, "product_name")
        mine = parts if current else ()
        found.append(Gpu(index, name, uuid, int(minor), current, pending, mine))
    return found


def listed(listing: str) -> dict[str, list[tuple[str, str]]]:
    """``nvidia-smi -L``: GPU's UUID → profile and UUID of each MIG device."""
    found: dict[str, list[tuple[str, str]]] = {}
    slices: list[tuple[str, str]] = []
    for line in listing.splitlines():
        gpu = _GPU_LINE.fullmatch(line)
        mig = _MIG_LINE.fullmatch(line)
        if gpu:
            slices = found.setdefault(gpu[3], [])
        elif mig:
            slices.append((mig[1], mig[3]))
    return found


_MODES = ("current", "pending")


def _mode(element: ElementTree.Element, path: str) -> Optional[bool]:
    """Enabled, Disabled, or N/A where the card has no MIG."""
    return {"enabled": True, "disabled": False}.get(_text(element, path).lower())


def _number(element: ElementTree.Element, path: str) -> int:
    text = _text(element, path)
    return int(text) if text.isdigit() else -1


def _text(element: ElementTree.Element, path: str) -> str:
    return (element.findtext(path) or "").strip()
