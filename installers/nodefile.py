"""This program, put on the node for the units that run it at boot."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any, Optional

import installers
from installers.host import Host
from installers.units import NODE_FILE

SETTING = "node-file"
_UNITS = "/etc/systemd/system"


def running_pyz() -> Optional[Path]:
    """The packed file this program runs from, None when it runs from a source tree."""
    archive = getattr(getattr(installers.__spec__, "loader", None), "archive", None)
    return Path(archive) if archive else None


def sha256(host: Host) -> Optional[str]:
    """Of the file on the node, None where it is not there."""
    data = host.read_bytes(NODE_FILE)
    return None if data is None else hashlib.sha256(data).hexdigest()


def inspect(host: Host) -> dict[str, Any]:
    """The setting of the installed file; empty where it is not there or we are no packed file."""
    installed = sha256(host)
    return {SETTING: installed} if installed and running_pyz() else {}


def desired() -> dict[str, Any]:
    """The same of the file that runs now."""
    pyz = running_pyz()
    return {SETTING: hashlib.sha256(pyz.read_bytes()).hexdigest()} if pyz else {}


def install(host: Host) -> None:
    """Put it on the node."""
    pyz = running_pyz()
    if pyz is not None:
        host.write(NODE_FILE, pyz.read_bytes(), mode=0o755)


def remove(host: Host) -> None:
    """Take it away, unless a unit still runs it: one that cannot start keeps YARN from starting."""
    for path in host.glob(_UNITS, "*.service") if host.exists(_UNITS) else []:
        if re.search(rf"^ExecStart=.*{re.escape(NODE_FILE)}", host.read(path) or "", re.M):
            return
    host.remove(NODE_FILE)
    host.prune(NODE_FILE.rpartition("/")[0])
