"""Set-up scripts that would ask a key server: by their text, before anybody runs them."""

from __future__ import annotations

import os
import re
from typing import Any

from installers.collect.reader import Reader

# Where images keep what they run at build or boot. Programs of packages lie elsewhere.
PLACES = (
    "/etc/rc.local",
    "/etc/init.d",
    "/etc/cron.d",
    "/etc/systemd/system",
    "/usr/local/bin",
    "/usr/local/sbin",
    "/opt",
    "/var/lib/cloud/scripts/per-boot",
    "/var/lib/cloud/scripts/per-instance",
)
_ASKS = re.compile(r"--recv-keys?\b|--keyserver[ =]|\bhkps?://")
_LIMIT = 256 << 10
_DEEPEST = 3


def collect(reader: Reader) -> list[dict[str, Any]]:
    """[{"path", "line", "text"}]: the first line of each script that asks a key server."""
    found = []
    for place in PLACES:
        for path in _files(reader, place, _DEEPEST):
            data = reader.data(path)
            if data is None or len(data) > _LIMIT or b"\0" in data[:1024]:
                continue
            for number, line in enumerate(data.decode("utf-8", "replace").splitlines(), 1):
                if _ASKS.search(line) and not line.lstrip().startswith("#"):
                    found.append({"path": path, "line": number, "text": line.strip()[:200]})
                    break
    return found


def _files(reader: Reader, path: str, deep: int) -> list[str]:
    real = reader.path(path)
    if os.path.isfile(real):  # noqa: PTH113
        return [path]
    if not deep or os.path.islink(real):  # noqa: PTH114
        return []
    names = reader.names(path)
    return [file for name in names for file in _files(reader, f"{path}/{name}", deep - 1)]
