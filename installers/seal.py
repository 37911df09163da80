"""The last step of an image build: nothing in the image that belongs to its builder."""

from __future__ import annotations

import re
from typing import Any

from installers import units
from installers.adopt import kept
from installers.engine import Change, Contract, Installer, Problem
from installers.host import APT_CONF, RUN_DIR, Host
from installers.journal import Log
from installers.redact import forms

# Directories whose content goes, patterns for what in them. Setting → (directory, pattern) pairs.
_GOES: dict[str, tuple[tuple[str, str], ...]] = {
    "apt-lists": (("/var/lib/apt/lists", "*"),),
    "package-caches": (
        ("/var/cache/apt/archives", "*.deb"),
        ("/var/cache/apt/archives/partial", "*"),
        ("/var/cache/apt", "*.bin"),
        ("/var/cache/dnf", "*"),
        ("/root/.cache", "*"),
    ),
    "ssh-host-keys": (("/etc/ssh", "ssh_host_*"),),
    "transient-files": (
        ("/tmp", "*"),  # noqa: S108 - the image's, nobody else uses it now
        ("/tmp", ".[!.]*"),  # noqa: S108
        ("/var/tmp", "*"),  # noqa: S108
        ("/root", ".bash_history"),
        ("/root", ".wget-hsts"),
        ("/root", ".python_history"),
        ("/var/lib/systemd", "random-seed"),
        ("/var/lib/dhcp", "*.leases"),
    ),
    # An image of a configured node: its stamp is another machine's.
    "gpu-config": (("/var/lib/airlock", "gpu-config-*"),),
    # Old proxy settings with their passwords are kept there.
    "adopted": ((kept.DIRECTORY, "*"),),
    "logs": (
        ("/var/log/apt", "*"),
        ("/var/log/journal", "*"),
        ("/var/log", "*.log"),
        ("/var/log", "*.gz"),
        ("/var/log", "cloud-init*"),
    ),
}
_MACHINE_ID = "/etc/machine-id"
_DBUS_ID = "/var/lib/dbus/machine-id"
_POLICY = "/usr/sbin/policy-rc.d"
_VOLATILE = "/run/systemd/journald.conf.d/airlock-seal.conf"
# Where programs of the build may have left a password; /usr holds only packages' files.
_SEARCHED = ("/etc", "/root", "/home", "/var/lib", "/var/log", "/var/cache", "/opt", "/srv", "/run")
_SEARCH_LIMIT = 64 << 20
# apt keeps these two and complains without them.
_KEPT = frozenset({"lock", "partial", "auxfiles"})


class Seal(Installer):
    """Settings name what must be gone and list what is still there; only in image builds."""

    name = "seal"

    def inspect(self, host: Host) -> dict[str, Any]:
        if not self.config.image_build:
            return {}
        found: dict[str, Any] = {name: _present(host, name) for name in _GOES}
        found["machine-id"] = _machine_id(host)
        found["policy-rc.d"] = "denies all" if _denies_all(host) else "absent"
        found["host-key-unit"] = units.inspect(host, units.HOST_KEYS, units.HOST_KEYS_TEXT)
        return found

    def desired(self, host: Host) -> dict[str, Any]:
        if not self.config.image_build:
            return {}
        should: dict[str, Any] = {name: [] for name in _GOES}
        should["machine-id"] = "empty" if host.exists(_MACHINE_ID) else "absent"
        should["policy-rc.d"] = "absent"
        should["host-key-unit"] = "enabled"
        return should

    def contract(self, host: Host) -> Contract:
        notes = []
        if self.config.image_build and self.config.proxy.has_credentials and not _is_tmpfs(host):
            notes.append(
                f"{RUN_DIR} is on the image's own disk: its free blocks may keep the proxy "
                "password; mount a tmpfs on /run for the build"
            )
        return Contract(notes=notes)

    def apply(self, host: Host, changes: list[Change], log: Log) -> None:
        for change in changes:
            with log.step(f"seal {change.key}"):
                if change.key in _GOES:
                    if change.key == "logs" and host.is_running_system:
                        _to_memory(host)
                    for path in _present(host, change.key):
                        host.remove(path)
                elif change.key == "machine-id":
                    host.write(_MACHINE_ID, "", mode=0o444)
                    if host.readlink(_DBUS_ID) is None:
                        host.remove(_DBUS_ID)
                elif change.key == "policy-rc.d":
                    host.remove(_POLICY)
                elif change.key == "host-key-unit":
                    units.install(host, units.HOST_KEYS, units.HOST_KEYS_TEXT)

    def verify(self, host: Host) -> list[Problem]:
        """No file of the image holds a password of this build, in any of its spellings."""
        if not self.config.image_build:
            return []
        needles = [form.encode() for s in self.config.proxy.secrets for form in forms(s)]
        return [
            Problem(
                f"{path} holds the proxy password", "find out who wrote it, and remove it there"
            )
            for path in _holding(host, needles)
        ]

    def remove(self, host: Host) -> None:
        """Only the unit: what was thrown away cannot come back."""
        units.remove(host, units.HOST_KEYS)


def _to_memory(host: Host) -> None:
    """Until it boots the next time, the machine that the image is built on logs to memory alone:
    its journal would be back before the disk is taken (journald.conf(5), Storage=).
    """
    host.write(_VOLATILE, "# Written by airlock.\n[Journal]\nStorage=volatile\n")
    host.run(["systemctl", "restart", "systemd-journald.service"], timeout=60)


def _present(host: Host, name: str) -> list[str]:
    found: list[str] = []
    for directory, pattern in _GOES[name]:
        for path in host.glob(directory, pattern):
            if not (directory == "/var/lib/apt/lists" and path.rpartition("/")[2] in _KEPT):
                found.append(path)
    if name == "apt-lists":
        found += host.glob("/var/lib/apt/lists/partial", "*")
    return list(dict.fromkeys(found))


def _machine_id(host: Host) -> str:
    text = host.read(_MACHINE_ID)
    if text is None:
        return "absent"
    dbus = host.readlink(_DBUS_ID) is None and host.exists(_DBUS_ID)
    return "set" if text.strip() not in ("", "uninitialized") or dbus else "empty"


def _denies_all(host: Host) -> bool:
    """A builder's script that keeps services from starting would do so on every node."""
    text = host.read(_POLICY)
    if text is None:
        return False
    lines = [line.strip() for line in text.splitlines()]
    return [line for line in lines if line and not line.startswith("#")] == ["exit 101"]


def _holding(host: Host, needles: list[bytes]) -> list[str]:
    if not needles:
        return []
    pattern = re.compile(b"|".join(re.escape(needle) for needle in needles))
    found: list[str] = []
    for top in _SEARCHED:
        base = host.path(top)
        for path in sorted(base.rglob("*")) if base.is_dir() else []:
            node_path = f"/{path.relative_to(host.root)}"
            # Ours while the installers run; the session removes it.
            if node_path == APT_CONF or path.is_symlink() or not path.is_file():
                continue
            # What is mounted for the build (a tmpfs on /run, a socket) is not in the image.
            if path.stat().st_dev != host.root.stat().st_dev:
                continue
            if path.stat().st_size <= _SEARCH_LIMIT and pattern.search(path.read_bytes()):
                found.append(node_path)
    return found


def _is_tmpfs(host: Host) -> bool:
    mounts = host.root / "proc/self/mounts"
    text = mounts.read_text() if mounts.exists() else ""
    fields = [line.split() for line in text.splitlines()]
    return any(len(f) > 2 and f[1] in ("/run", RUN_DIR) and f[2] == "tmpfs" for f in fields)
