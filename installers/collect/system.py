"""Who the node is and what it runs: identity, operating system, kernel, memory, disk.

Sources: /etc/machine-id, /proc/sys/kernel/*, /etc/os-release, /proc/cmdline, /lib/modules, statvfs.
"""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any, Optional

from installers.collect.reader import Reader, assignments

# Where installers, packages and modules are written: a full disk shows at one of these.
DISK_PATHS = (
    *("/", "/boot", "/var", "/tmp", "/usr", "/run", "/opt", "/home", "/srv"),  # noqa: S108
    *("/var/lib", "/var/log", "/var/tmp", "/var/lib/docker", "/var/lib/containerd"),  # noqa: S108
)


def identity(reader: Reader) -> dict[str, Any]:
    """Which machine answered. Read anew each time: a fork of a frozen node is another machine."""
    hostname: Optional[str]
    if reader.live:
        hostname = os.uname().nodename
        boot_id = reader.line("/proc/sys/kernel/random/boot_id", "identity.boot_id")
    else:
        hostname = reader.line("/etc/hostname")
        boot_id = None
        reader.need_live("identity.boot_id")
    return {
        "machine_id": reader.line("/etc/machine-id", "identity.machine_id"),
        "hostname": hostname,
        "boot_id": boot_id,
    }


def operating_system(reader: Reader) -> dict[str, Any]:
    """os-release's id, version_id, codename and pretty_name; the version of the GNU C library."""
    text = reader.text("/etc/os-release") or reader.text("/usr/lib/os-release", "os")
    values = assignments(text or "")
    return {
        "id": values.get("ID"),
        "version_id": values.get("VERSION_ID"),
        "codename": values.get("VERSION_CODENAME"),
        "pretty_name": values.get("PRETTY_NAME"),
        "glibc": _glibc() if reader.need_live("os.glibc") else None,
    }


def _glibc() -> Optional[str]:
    """The version of the C library this runs with ("2.36"); None where it is another's."""
    try:
        name, _, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").partition(" ")
    except ValueError:  # musl knows no such name
        return None
    return version if name == "glibc" else None


def kernel(reader: Reader) -> dict[str, Any]:
    """The running kernel, its taint bits, and the kernels that have modules here.

    ``tainted`` is the bit mask of /proc/sys/kernel/tainted (bit 13, 8192: an unsigned module).
    """
    modules = "/lib/modules"
    installed = [
        name for name in reader.names(modules) if Path(reader.path(modules), name).is_dir()
    ]
    if not reader.need_live("kernel.release"):
        fields = ("release", "version", "cmdline", "arch", "tainted", "module_sig_enforce")
        return {**dict.fromkeys(fields), "installed": installed}
    uname = os.uname()
    enforce = reader.line("/sys/module/module/parameters/sig_enforce", "kernel.module_sig_enforce")
    return {
        "release": uname.release,
        "version": uname.version,
        "cmdline": reader.line("/proc/cmdline", "kernel.cmdline"),
        "arch": uname.machine,
        "tainted": reader.number("/proc/sys/kernel/tainted", "kernel.tainted"),
        "installed": installed,
        "module_sig_enforce": None if enforce is None else enforce in ("Y", "1"),
    }


def python(reader: Reader) -> Optional[str]:
    """The version of the python3 that runs this."""
    return platform.python_version() if reader.need_live("python") else None


def memory(reader: Reader) -> dict[str, Any]:
    """Total and available memory and swap, in bytes (/proc/meminfo)."""
    if not reader.need_live("memory"):
        return {"total": None, "available": None, "swap": None}
    values = {}
    for line in (reader.text("/proc/meminfo", "memory") or "").splitlines():
        key, _, rest = line.partition(":")
        values[key] = rest.split()
    names = {"total": "MemTotal", "available": "MemAvailable", "swap": "SwapTotal"}
    return {
        name: int(values[source][0]) * 1024 if source in values else None
        for name, source in names.items()
    }


def disk(reader: Reader) -> list[dict[str, Any]]:
    """Size and free bytes (for an ordinary user) of each path that is a file system of its own, and
    how many files it may hold (``inodes``, 0 for any number) and still can.
    """
    found = []
    seen = set()
    for path in DISK_PATHS:
        try:
            device = Path(reader.path(path)).stat().st_dev
            if device in seen:
                continue
            seen.add(device)
            stat = os.statvfs(reader.path(path))
        except OSError:
            continue
        found.append(
            {
                "path": path,
                "size": stat.f_blocks * stat.f_frsize,
                "free": stat.f_bavail * stat.f_frsize,
                "inodes": stat.f_files,
                "inodes_free": stat.f_favail,
            }
        )
    return found
