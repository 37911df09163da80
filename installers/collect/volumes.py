"""Disks and what uses them: /sys/class/block, /proc/self/mountinfo, /proc/swaps."""

from __future__ import annotations

import os
import re
from typing import Any

from installers.collect.reader import Reader

_SECTOR = 512  # /sys/class/block/*/size counts these, whatever the disk's own are
# Made by the kernel or by programs: nobody attaches them.
_VIRTUAL = re.compile(r"loop|ram|zram|dm-|md|sr|fd|nbd")


def _mounts(text: str) -> dict[str, list[str]]:
    """Device number ("254:0") or device path -> mount points (proc(5), mountinfo)."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        words = line.split()
        if len(words) < 10 or "-" not in words:
            continue
        source = words[words.index("-") + 2]
        for key in (words[2], source):
            found.setdefault(key, []).append(words[4])
    return found


def collect(reader: Reader) -> list[dict[str, Any]]:
    """[{"name", "size" (bytes), "uses"}] of every disk. ``uses``: mount points, "swap", holders.

    What a disk's partitions are used for counts as the disk's.
    """
    if not reader.need_live("volumes"):
        return []
    mounts = _mounts(reader.text("/proc/self/mountinfo", "volumes") or "")
    swaps = {line.split()[0] for line in (reader.text("/proc/swaps") or "").splitlines()[1:]}
    found = []
    for name in reader.names("/sys/class/block", "volumes"):
        place = f"/sys/class/block/{name}"
        partition = reader.line(f"{place}/partition") is not None
        if _VIRTUAL.match(name) or partition:
            continue
        parts = [p for p in reader.names(place) if reader.line(f"{place}/{p}/partition")]
        uses: list[str] = []
        for part, where in ((name, place), *((p, f"{place}/{p}") for p in parts)):
            keys = (reader.line(f"{where}/dev") or "", f"/dev/{part}")
            uses += [point for key in keys for point in mounts.get(key, [])]
            uses += [os.path.basename(h) for h in reader.names(f"{where}/holders")]  # noqa: PTH119
            if f"/dev/{part}" in swaps:
                uses.append("swap")
        size = (reader.number(f"{place}/size") or 0) * _SECTOR
        if size:
            found.append({"name": name, "size": size, "uses": sorted(set(uses))})
    return found
