"""Whether there is room for what an apply will write."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
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
    found = []
    for path, size in needs.items():
        here = host.path(path)
        while not here.exists():
            here = here.parent
        found.append((path, here.stat().st_dev, size, host.free(path)))
    return too_small(found)


def too_small(needs: Iterable[tuple[str, int, int, int]]) -> list[Shortage]:
    """The same of (path, number of its file system, bytes needed, bytes free there)."""
    found: dict[int, Shortage] = {}
    for path, device, size, free in needs:
        known = found.get(device, Shortage([], 0, free))
        found[device] = Shortage([*known.paths, path], known.need + size, known.free)
    return [one for one in found.values() if one.need > one.free]
