"""The ``devices`` hierarchy in which the NodeManager shuts a container out of others' GPUs.

It is a controller of cgroup v1. Where systemd uses v2 alone, the kernel still has it, unused: it is
mounted at a place of our own, which takes nothing from systemd. cgroup v2 has no such controller,
and Hadoop up to 3.5 looks for no other.

Source: cgroup-v1/devices.rst of the kernel; GpuResourceHandlerImpl.bootstrap.
"""

from __future__ import annotations

import grp
import pwd
from dataclasses import dataclass

from installers.errors import NodeError
from installers.host import Host

V1 = "/sys/fs/cgroup"
# YARN takes a directory called like the controller below its mount-path.
OWN = "/run/dataproc-gpu/cgroup"
NAME = "yarn"
_UNIFIED = f"{V1}/cgroup.controllers"


@dataclass(frozen=True)
class Hierarchy:
    """``version`` of what systemd uses (1 or 2), YARN's mount-path, and its own group there."""

    version: int
    mount_path: str
    name: str = NAME

    @property
    def directory(self) -> str:
        """YARN's group of the controller."""
        return f"{self.mount_path}/devices/{self.name}"


def find(host: Host) -> Hierarchy:
    """Where the hierarchy is, or will be mounted. NodeError where the kernel has none."""
    if host.exists(f"{V1}/devices"):
        return Hierarchy(1, V1)
    if "\ndevices\t" not in (host.read("/proc/cgroups") or ""):
        raise NodeError(
            "the kernel has no devices controller, and YARN cannot isolate GPUs without it",
            where="/proc/cgroups",
            remedy="boot without cgroup_no_v1=devices, with a kernel that has CONFIG_CGROUP_DEVICE",
        )
    return Hierarchy(2 if host.exists(_UNIFIED) else 1, OWN)


def state(host: Host, hierarchy: Hierarchy) -> str:
    """``absent``, or the owner of YARN's group."""
    if not host.exists(hierarchy.directory):
        return "absent"
    return owner(host, hierarchy.directory)


def make(host: Host, hierarchy: Hierarchy) -> None:
    """Mount the hierarchy where it is not, and give YARN its group, and only that."""
    devices = f"{hierarchy.mount_path}/devices"
    try:
        if hierarchy.mount_path == OWN and not host.exists(f"{devices}/tasks"):
            host.path(devices).mkdir(parents=True, exist_ok=True)
            host.run(["mount", "-t", "cgroup", "-o", "devices", "devices", devices], timeout=60)
        host.path(hierarchy.directory).mkdir(exist_ok=True)
    except OSError as error:
        raise NodeError(
            f"YARN's group cannot be made: {error.strerror}",
            where=hierarchy.directory,
            remedy="a container's view of cgroups is read-only: configure the machine itself",
        ) from error
    host.run(["chown", "-R", "yarn:yarn", hierarchy.directory], timeout=60)


def owner(host: Host, path: str) -> str:
    """``user:group`` of a path by the node's own names, numbers where it has none."""
    found = host.path(path).stat()
    return f"{_name(host, 'passwd', found.st_uid)}:{_name(host, 'group', found.st_gid)}"


def _name(host: Host, database: str, number: int) -> str:
    """From the node's files, and on the running node also from wherever else accounts are."""
    for line in (host.read(f"/etc/{database}") or "").splitlines():
        fields = line.split(":")
        if len(fields) > 2 and fields[2] == str(number):
            return fields[0]
    if host.root == host.root.parent:
        try:
            return pwd.getpwuid(number)[0] if database == "passwd" else grp.getgrgid(number)[0]
        except KeyError:
            pass
    return str(number)
