"""The node as a whole: units, kernel log, disks."""

from __future__ import annotations

from harness.checks import check, fact, fail
from harness.node import Node

MIB = 1024 * 1024
# Not "hung-task" or "warning": a machine under emulation on a busy host is slow, not broken.
TROUBLE = ("panic", "oops", "oom", "io-error")
ROOT_MINIMUM = 256 * MIB
MINIMUM_SHARE = 0.05


@check(
    id="system.running",
    severity="major",
    title="systemd finished booting and no unit failed",
    remedy="Read 'systemctl --failed' and the journal of each unit it names.",
    source="systemctl(1), is-system-running",
)
def test_running(node: Node) -> None:
    """``degraded`` is systemd's word for a boot that ended with failed units."""
    state = fact(node, "systemd.state")
    failed = fact(node, "systemd.failed")
    if failed:
        fail(f"{len(failed)} failed units: {', '.join(sorted(failed))}", failed)
    if state != "running":
        fail(f"systemd says the node is {state!r}, not running")


@check(
    id="system.kernel-log",
    severity="major",
    title="The kernel log holds no oops, panic, lack of memory or disk error",
    remedy="Read the kernel log in the capsule from the first such line on: what follows is a "
    "consequence.",
    source="kernel/panic.c, lib/bug.c, mm/oom_kill.c, block/blk-core.c",
)
def test_kernel_log(node: Node) -> None:
    """The node marks lines by kind; one of these kinds is too many."""
    flags = fact(node, "kernel_log_flags")
    lines = [f"{flag['name']}: {flag['line']}" for flag in flags if flag["name"] in TROUBLE]
    if lines:
        fail(f"the kernel log shows trouble: {lines[0]}", lines)


@check(
    id="system.disk",
    severity="major",
    title="Every file system has room left",
    remedy="Enlarge the disk, or mount the large volume where the space is needed; "
    "'airlock plan' says how much each path needs.",
    source="a full root file system is the commonest way for a driver install to end half done",
)
def test_disk(node: Node) -> None:
    """5 % of each file system, and at least 256 MiB of the root."""
    full = []
    for disk in fact(node, "disk"):
        least = disk["size"] * MINIMUM_SHARE
        if disk["path"] == "/":
            least = max(least, ROOT_MINIMUM)
        if disk["free"] < least:
            free, size = disk["free"] // MIB, disk["size"] // MIB
            full.append(f"{disk['path']}: {free} of {size} MiB free, {round(least / MIB)} needed")
    if full:
        fail(f"{len(full)} file systems are nearly full", full)
