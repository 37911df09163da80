"""The container toolkit for docker, containerd or CRI-O: configured by ``nvidia-ctk``, read back.

Where ``nvidia-ctk`` writes depends on its version: into the runtime's own file, or (1.18 and later)
into a file beside it, in one of several directories. Each is read; and containerd, which takes no
file that its own one does not import, is asked itself.
"""

from __future__ import annotations

import json
from typing import Optional

from installers.engine import Problem
from installers.errors import ConfigError, NodeError
from installers.host import Host
from installers.journal import Log

KEY = "container-runtime"
TOOLKIT = "nvidia-container-toolkit"
_WORD = "nvidia-container-runtime"
#: Runtime -> the files that nvidia-ctk writes for it, in any of its versions.
FILES = {
    "docker": ("/etc/docker/daemon.json",),
    "containerd": (
        "/etc/containerd/config.toml",
        "/etc/containerd/conf.d/99-nvidia.toml",
        "/etc/containerd/config.d/99-nvidia.toml",
    ),
    "crio": (
        "/etc/crio/crio.conf",
        "/etc/crio/crio.conf.d/99-nvidia.toml",
        "/etc/crio/crio.conf.d/99-nvidia.conf",
        "/etc/crio/conf.d/99-nvidia.toml",
    ),
}


def parse(text: Optional[str]) -> str:
    """The runtime that is wanted, or an empty text. Raises ConfigError."""
    runtime = (text or "").strip().lower()
    if runtime and runtime not in FILES:
        raise ConfigError(f"{runtime!r} is not one of {', '.join(FILES)}", where=KEY)
    return runtime


def is_configured(host: Host, runtime: str) -> bool:
    """Whether a file of the runtime's names NVIDIA's. NodeError for a daemon.json that is none."""
    return any(_names_it(path, host.read(path) or "") for path in FILES[runtime])


def _names_it(path: str, text: str) -> bool:
    if path.endswith(".json") and text:
        try:
            return _WORD in json.dumps(json.loads(text).get("runtimes", {}))
        except (ValueError, AttributeError):
            raise NodeError("is not JSON", where=path, remedy="mend or remove it") from None
    # A line that is commented out configures nothing.
    return any(_WORD in line for line in text.splitlines() if not line.lstrip().startswith("#"))


def configure(host: Host, runtime: str, log: Log) -> None:
    """Run the toolkit, and start the runtime again where it runs."""
    with log.step("container-runtime", runtime=runtime):
        host.run(["nvidia-ctk", "runtime", "configure", f"--runtime={runtime}"], timeout=300)
        if host.is_running_system:
            host.run(["systemctl", "try-restart", runtime], timeout=300)


def verify(host: Host, runtime: str) -> list[Problem]:
    """What containerd says of its own configuration; the others cannot be asked at rest."""
    program = host.find_program("containerd") if runtime == "containerd" else None
    if program is None:
        return []
    said = host.run([program, "config", "dump"], check=False, timeout=60)
    if said.code == 0 and _WORD not in said.out:
        return [
            Problem(
                "containerd does not read what nvidia-ctk wrote for it",
                'add imports = ["/etc/containerd/conf.d/*.toml"] to /etc/containerd/config.toml',
            )
        ]
    return []
