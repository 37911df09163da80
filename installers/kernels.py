"""Which kernel an image will boot, and what we installed for it."""

from __future__ import annotations

import contextlib
import json
import re
from typing import Any, Optional

from installers import audit
from installers.config import Config
from installers.host import Host

#: Beside the modules: manifest and signature of the cache's entry that they were taken from.
ENTRY = "airlock-cache-entry.json"


def module_directory(kernel: str) -> str:
    """Where our modules of a kernel are: ``updates`` wins over the kernel's own in depmod."""
    return f"/lib/modules/{kernel}/updates/airlock"


def chosen(host: Host, kernel: str) -> str:
    """The file of ``nvidia`` that modprobe would load; empty when there is none."""
    return host.run(["modinfo", "-k", kernel, "-n", "nvidia"], check=False).out.strip()


def is_ours(path: str) -> bool:
    """Whether a module's path is in our directory, of any kernel."""
    return path.endswith("/updates/airlock/nvidia.ko")


def release_order(release: str) -> list[tuple[int, int, str]]:
    """A sort key under which 6.1.0-9 < 6.1.0-10 and 6.12~rc1 < 6.12."""
    parts = re.findall(r"\d+|~|[^\d~]+", release)
    kinds = [(2, int(p), "") if p.isdigit() else (0 if p == "~" else 1, 0, p) for p in parts]
    return [*kinds, (1, 0, "")]


def boot_kernel(host: Host, config: Config) -> Optional[str]:
    """The kernel that the image will boot: as configured, else the newest.

    Never the one that is running: that is the build machine's. None when there is none.
    """
    installed = [
        path.rpartition("/")[2]
        for path in host.glob("/lib/modules", "*")
        if host.exists(f"{path}/kernel") or host.exists(f"{path}/modules.builtin")
    ]
    if config.boot_kernel:
        return config.boot_kernel if config.boot_kernel in installed else None
    return max(installed, key=release_order, default=None)


def record(host: Host, kernel: Optional[str]) -> dict[str, Any]:
    """What the last installation noted beside its modules; empty when absent or damaged."""
    text = host.read(f"{module_directory(kernel)}/{audit.RECORD}") if kernel else None
    with contextlib.suppress(ValueError):
        found = json.loads(text or "{}")
        if isinstance(found, dict) and found.get("schema") == 1:
            return found
    return {}
