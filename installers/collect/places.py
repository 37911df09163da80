"""Which file system each path that fills up on a node of a cluster is really on."""

from __future__ import annotations

import os
from typing import Any, Optional

from installers.collect.reader import Reader

#: What fills it -> the path; containerd's and kubelet's may be configured elsewhere.
PLACES = {
    "root": "/",
    "containerd": "/var/lib/containerd",
    "kubelet": "/var/lib/kubelet",
    "temporary": "/tmp",  # noqa: S108 - the node's, named and not used
    "sources": "/usr/src",
    "logs": "/var/log",
}


def collect(reader: Reader, moved: dict[str, Optional[str]]) -> list[dict[str, Any]]:
    """[{"use", "path", "real", "mount", "source", "type", "device", "size", "free"}].

    ``moved``: paths of PLACES that this node has elsewhere. ``real``: with links followed, or of
    its nearest parent that is there; ``mount``: the mount point it is below; ``device``: number of
    the file system, equal for those that share their space; ``size``, ``free`` in bytes.
    """
    if not reader.need_live("kubernetes.places"):
        return []
    mounts = _mounts(reader.text("/proc/self/mountinfo", "kubernetes.places") or "")
    return [_place(use, moved.get(use) or path, mounts) for use, path in PLACES.items()]


def _mounts(text: str) -> list[dict[str, str]]:
    """Mount points (proc(5), mountinfo), the later above the earlier of the same place."""
    found = []
    for line in text.splitlines():
        words = line.split()
        if len(words) < 10 or "-" not in words:
            continue
        dash = words.index("-")
        point = words[4].encode().decode("unicode_escape")  # \040 is a blank
        kind, source = words[dash + 1], words[dash + 2]
        found.append({"mount": point, "type": kind, "source": source})
    return found


def _place(use: str, path: str, mounts: list[dict[str, str]]) -> dict[str, Any]:
    real = os.path.realpath(path)
    while not os.path.exists(real):  # noqa: PTH110
        real = os.path.dirname(real)  # noqa: PTH120
    above = [
        one for one in mounts if one["mount"] == "/" or f"{real}/".startswith(f"{one['mount']}/")
    ]
    on = max(enumerate(above), key=lambda pair: (len(pair[1]["mount"]), pair[0]), default=(0, {}))[
        1
    ]
    room = os.statvfs(real)
    return {
        "use": use,
        "path": path,
        "real": real,
        "mount": on.get("mount"),
        "source": on.get("source"),
        "type": on.get("type"),
        "device": os.stat(real).st_dev,  # noqa: PTH116
        "size": room.f_blocks * room.f_frsize,
        "free": room.f_bavail * room.f_frsize,
    }
