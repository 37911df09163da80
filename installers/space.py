"""Whether there is room for what an apply will write."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from installers.host import Host


@dataclass(frozen=True)
class Shortage:
    """A file system that is too small: the paths on it, and bytes."""

    paths: list[str]
    need: int
    free: int


def shortages(host: Host, needs: Mapping[str, int]) -> list[Shortage]:
    """``needs``: bytes per path; they add up on each file system."""
    found: dict[int, Shortage] = {}
    for path, size in needs.items():
        here = host.path(path)
        while not here.exists():
            here = here.parent
        device = here.stat().st_dev
        known = found.get(device, Shortage([], 0, host.free(path)))
        found[device] = Shortage([*known.paths, path], known.need + size, known.free)
    return [one for one in found.values() if one.need > one.free]
