"""The system below: mounts, folders, packages, loaded units, and what the next boot needs."""

from __future__ import annotations

from harness.checks import check, fact, fail, proxy
from harness.node import Node

SINCE = "2026-11-22"
LEAST_INODES = 0.05
LEAST_INITRD = 1 << 20
# Bits of /proc/sys/kernel/tainted that a sound node never has: Documentation/admin-guide/
# tainted-kernels.rst. 13 is modules.not-tainted-unsigned's; 0 and 12 are NVIDIA's own; 9 and 14
# (a warning, a soft lockup) come of slow emulation too.
WRONG_TAINTS = {
    1: "a module was forced to load",
    2: "a processor out of its specification",
    3: "a module was forced to unload",
    4: "a processor reported a machine check",
    5: "a page of memory is bad",
    7: "the kernel died: an oops or a BUG",
}
STICKY = "1777"


@check(
    id="system.taint",
    severity="blocker",
    title="The kernel is tainted by nothing but modules from outside its tree",
    remedy="Read the kernel log from where it says 'Tainted:' for the first time ('dmesg'); after "
    "an oops or a machine check nothing that the node says can be relied on: reboot it.",
    source="Documentation/admin-guide/tainted-kernels.rst",
    since=SINCE,
)
def test_taint(node: Node) -> None:
    """The mask stays when the log has long been overwritten."""
    mask = fact(node, "kernel.tainted")
    found = [why for bit, why in WRONG_TAINTS.items() if mask >> bit & 1]
    if found:
        fail(f"the kernel is tainted: {found[0]}", [f"/proc/sys/kernel/tainted: {mask}", *found])


@check(
    id="system.fstab",
    severity="blocker",
    title="Everything that is to be mounted at boot is mounted",
    remedy="Run 'findmnt --verify' and 'systemctl status WHERE.mount' for the entry; add nofail to "
    "what the node can do without, or remove the entry.",
    source="fstab(5), /proc/self/mountinfo; entries without noauto, nofail and automount",
    since=SINCE,
)
def test_fstab(node: Node) -> None:
    """What is written meanwhile lies below the mount point, on the small disk."""
    absent = [
        f"{entry['what']} on {entry['where']}"
        for entry in fact(node, "upkeep.fstab")
        if not entry["mounted"]
    ]
    if absent:
        fail(f"{len(absent)} entries of fstab are not mounted: {absent[0]}", absent)


@check(
    id="system.inodes",
    severity="major",
    title="Every file system can hold more files",
    remedy="Run 'df -i', and 'du --inodes -xd1 PATH' on the one that is full: conda's cache of "
    "packages and container layers are the usual ones ('conda clean --packages').",
    source="statvfs(3): 'No space left on device' with gigabytes free",
    since=SINCE,
)
def test_inodes(node: Node) -> None:
    """5 % of them. Some file systems have no such limit."""
    full = [
        f"{disk['path']}: {disk['inodes_free']} of {disk['inodes']} left"
        for disk in fact(node, "disk")
        if disk["inodes"] and disk["inodes_free"] < disk["inodes"] * LEAST_INODES
    ]
    if full:
        fail(f"{len(full)} file systems can hold nearly no more files: {full[0]}", full)


@check(
    id="system.temporary",
    severity="major",
    title="Everybody can write to /tmp and /var/tmp, and delete their own files only",
    remedy="Run 'chmod 1777 /tmp /var/tmp': an image that was packed without its modes has others.",
    source="file-hierarchy(7); apt: 'Couldn't create temporary file /tmp/apt.conf...'",
    since=SINCE,
)
def test_temporary(node: Node) -> None:
    """apt's own user, Spark's and YARN's write there; root never notices."""
    found = fact(node, "upkeep.temporary")
    wrong = [f"{path}: {mode or 'not there'}" for path, mode in found.items() if mode != STICKY]
    if wrong:
        fail(f"{wrong[0]}, not {STICKY}", wrong)


@check(
    id="system.packages",
    severity="blocker",
    title="Every package is installed to its end",
    remedy="Run 'dpkg --configure -a' and then 'apt-get install --fix-broken': an installation was "
    "interrupted, and apt refuses the next one.",
    source="dpkg(1), PACKAGE STATES; /var/lib/dpkg/status",
    since=SINCE,
)
def test_packages(node: Node) -> None:
    """half-configured, unpacked, triggers-pending: the program is there, and does not work."""
    found = [f"{name}: {state}" for name, state in fact(node, "upkeep.unfinished").items()]
    if found:
        fail(f"{len(found)} packages are not installed to their end: {found[0]}", found)


@check(
    id="system.own-name",
    severity="major",
    title="The node can resolve its own name without a name server",
    remedy="Add '127.0.1.1 NAME' to /etc/hosts, or install libnss-myhostname: where nobody answers "
    "names, sudo waits, and Java ends with UnknownHostException.",
    requires=proxy,
    source="hosts(5), nss-myhostname(8); InetAddress.getLocalHost() of YARN's and Spark's daemons",
    since=SINCE,
)
def test_own_name(node: Node) -> None:
    """In a locked-down network the resolver may know no name at all."""
    if not fact(node, "upkeep.own_name"):
        fail(
            f"{fact(node, 'identity.hostname')} is not in /etc/hosts, and nss-myhostname is not on"
        )


@check(
    id="system.reloaded",
    severity="major",
    title="systemd has loaded its units as they are on the disk",
    remedy="Run 'systemctl daemon-reload', and restart the unit that the evidence names.",
    source="org.freedesktop.systemd1: NeedDaemonReload; 'changed on disk. Run systemctl "
    "daemon-reload'",
    since=SINCE,
)
def test_reloaded(node: Node) -> None:
    """A drop-in with the proxy that nobody loaded is a file, and no setting."""
    stale = fact(node, "systemd.stale")
    if stale:
        fail(f"{len(stale)} units are not loaded as they are on the disk: {stale[0]}", stale)


@check(
    id="system.boot-files",
    severity="blocker",
    title="Every installed kernel has its image and an initramfs that is whole",
    remedy="Make room in /boot, then run 'update-initramfs -u -k all' (dracut --regenerate-all) "
    "and 'update-grub'; remove kernels that are not wanted with their modules.",
    depends=["modules.boot-kernel"],
    source="/boot/vmlinuz-*, /boot/initrd.img-*; 'VFS: Unable to mount root fs'",
    since=SINCE,
)
def test_boot_files(node: Node) -> None:
    """A full /boot leaves an initramfs of no bytes, and the next boot takes that kernel."""
    wrong = []
    for kernel in fact(node, "boot.kernels"):
        release, initrd = kernel["release"], kernel["initrd"]
        if kernel["image"] is None:
            wrong.append(f"{release}: no image in /boot")
        if initrd is None:
            wrong.append(f"{release}: no initramfs in /boot")
        elif initrd["size"] < LEAST_INITRD or not kernel["archive"]:
            wrong.append(f"{initrd['path']}: {initrd['size']} bytes, and no whole archive")
    if wrong:
        fail(f"the next boot may fail: {wrong[0]}", wrong)
