"""What the files of a node tell of its NVIDIA cards: the bus, the kernel's driver, the libraries.

No program is run and no library is loaded; that is ``installers.collect.cards``'s part. Sources:
/sys/bus/pci/devices, /proc/driver/nvidia (NVIDIA's README, "Procfs Interface"), /etc/ld.so.conf.
"""

# Paths of an image lie below a root: os.path keeps them text.
# ruff: noqa: PTH110, PTH115, PTH119

from __future__ import annotations

import os
import re
from typing import Any, Optional

from installers.collect.reader import Reader

DEVICES = "/sys/bus/pci/devices"
VERSION = "/proc/driver/nvidia/version"
INFORMATION = "/proc/driver/nvidia/gpus"
CAPABILITIES = "/proc/driver/nvidia/capabilities"
PERSISTENCED = "/run/nvidia-persistenced"
#: Marks a node whose cards are made of files; see fixtures/gpudouble.
DOUBLE = "/etc/airlock-gpu-double"
#: Of the driver's own release, and loaded by everybody.
LIBRARIES = ("libnvidia-ml.so.1", "libcuda.so.1")
LOADER = "/etc/ld.so.conf"
#: Where the loader looks in the end, and where images for containers put the driver.
FOLDERS = (
    *("/usr/local/nvidia/lib64", "/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu"),
    *("/lib/aarch64-linux-gnu", "/usr/lib/aarch64-linux-gnu"),
    *("/lib64", "/usr/lib64", "/lib", "/usr/lib"),
)
NVIDIA, DISPLAY, SWITCH = 0x10DE, 0x03, 0x0680
#: What a read of a card gives that has left the bus (PCI: unsupported request).
GONE = 0xFFFF
_RELEASE = re.compile(r"\b(\d{3,}(?:\.\d+)+)\b")


def collect(reader: Reader) -> dict[str, Any]:
    """The cards and their driver.

    ``cards``: [{"address", "device" ("10de:20b0"), "driver", "on_bus", "minor"}], by address.
    ``switches``: NVSwitches. ``module``: the version of the loaded kernel module, None where none
    is, ``open``: whether it is the open one. ``libraries``: name -> {"path", "version"} or None.
    ``nodes``: the driver's files in /dev. ``capabilities``: MIG's minors that need a node in
    /dev/nvidia-caps. ``persistenced``: whether the daemon left its files. ``double``: see DOUBLE.
    """
    version = reader.text(VERSION)
    cards, switches = _bus(reader)
    return {
        "cards": cards,
        "switches": switches,
        "module": _release(version or ""),
        "open": None if version is None else "Open Kernel Module" in version,
        "libraries": {name: _library(reader, name) for name in LIBRARIES},
        "nodes": [f"/dev/{name}" for name in reader.names("/dev") if name.startswith("nvidia")]
        + [f"/dev/nvidia-caps/{name}" for name in reader.names("/dev/nvidia-caps")],
        "capabilities": _capabilities(reader),
        "persistenced": bool(reader.names(PERSISTENCED)),
        "double": reader.text(DOUBLE) is not None,
    }


def library(reader: Reader, name: str) -> Optional[str]:
    """The path of a shared library where the loader looks first; None where it is nowhere."""
    for folder in (*configured(reader), *FOLDERS):
        if os.path.exists(reader.path(f"{folder}/{name}")):
            return f"{folder}/{name}"
    return None


def configured(reader: Reader, path: str = LOADER, depth: int = 0) -> list[str]:
    """The folders that ldconfig(8) is told of; ``include`` lines are followed."""
    found: list[str] = []
    for raw in (reader.text(path) or "").splitlines():
        words = raw.partition("#")[0].split()
        if words[:1] == ["include"] and depth < 4:
            for pattern in words[1:]:
                folder, _, name = pattern.rpartition("/")
                folder = folder if folder.startswith("/") else f"/etc/{folder}"
                wanted = re.compile(re.escape(name).replace(r"\*", ".*"))
                for file in reader.names(folder):
                    if wanted.fullmatch(file):
                        found += configured(reader, f"{folder}/{file}", depth + 1)
        elif words and words[0].startswith("/"):
            found.append(words[0].rstrip("/"))
    return found


def _library(reader: Reader, name: str) -> Optional[dict[str, Any]]:
    path = library(reader, name)
    if path is None:
        return None
    # The driver's libraries carry its release in their names, behind the link that is loaded.
    real = os.path.realpath(reader.path(path))
    name = os.path.basename(real)
    return {"path": path, "version": _release(name)}


def _release(text: str) -> Optional[str]:
    match = _RELEASE.search(text)
    return match.group(1) if match else None


def _bus(reader: Reader) -> tuple[list[dict[str, Any]], int]:
    """NVIDIA's display and 3D controllers, and how many NVSwitches there are."""
    found, switches = [], 0
    for address in reader.names(DEVICES):
        place = f"{DEVICES}/{address}"
        if _hex(reader.line(f"{place}/vendor")) != NVIDIA:
            continue
        kind = (_hex(reader.line(f"{place}/class")) or 0) >> 8
        switches += kind == SWITCH
        if kind >> 8 != DISPLAY:
            continue
        head = (reader.data(f"{place}/config") or b"")[:2]
        found.append(
            {
                "address": address,
                "device": f"10de:{_hex(reader.line(f'{place}/device')) or 0:04x}",
                "driver": _driver(reader, place),
                "on_bus": None if len(head) < 2 else int.from_bytes(head, "little") != GONE,
                "minor": _minor(reader, address),
            }
        )
    return found, switches


def _driver(reader: Reader, place: str) -> Optional[str]:
    """The kernel driver that has the card: the name at the end of a link."""
    try:
        return os.path.basename(os.readlink(reader.path(place) + "/driver"))
    except OSError:
        return None


def _minor(reader: Reader, address: str) -> Optional[int]:
    text = reader.text(f"{INFORMATION}/{address}/information") or ""
    match = re.search(r"^Device Minor:\s*(\d+)", text, re.MULTILINE)
    return int(match.group(1)) if match else None


def _capabilities(reader: Reader) -> list[int]:
    """Minors of the slices' files: .../gpu0/mig/gi1/access, .../gpu0/mig/gi1/ci0/access."""
    found = []
    for card in reader.names(CAPABILITIES):
        for instance in reader.names(f"{CAPABILITIES}/{card}/mig"):
            place = f"{CAPABILITIES}/{card}/mig/{instance}"
            for part in ("", *(f"/{name}" for name in reader.names(place))):
                text = reader.text(f"{place}{part}/access") or ""
                match = re.search(r"^DeviceFileMinor:\s*(\d+)", text, re.MULTILINE)
                found += [int(match.group(1))] if match else []
    return sorted(found)


def _hex(text: Optional[str]) -> Optional[int]:
    try:
        return int(text or "", 16)
    except ValueError:
        return None
