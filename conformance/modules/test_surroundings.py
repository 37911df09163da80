"""What decides at the next boot which modules are loaded: depmod, modprobe's settings, DKMS."""

from __future__ import annotations

import re

from conformance.modules.reading import boot_kernel, kernel_of, some_nvidia
from harness.checks import boot_kernel as known_boot_kernel
from harness.checks import check, fact, fail, signed_driver
from harness.node import Node

SINCE = "2026-11-22"
_ON_COMMAND_LINE = re.compile(r"(?:modprobe\.blacklist|module_blacklist)=(\S+)")


@check(
    id="modules.depmod",
    severity="blocker",
    title="modprobe's index lists every module that is there, and none that is not",
    remedy="Run 'depmod -a KERNEL' for the kernel that the evidence names, as the last thing that "
    "is done to its modules.",
    requires=signed_driver,
    depends=["modules.present", "modules.boot-kernel", "modules.audit"],
    source="modules.dep(5); modprobe: 'FATAL: Module nvidia not found in directory /lib/modules'",
    since=SINCE,
)
def test_depmod(node: Node) -> None:
    """insmod of the file works, and modprobe does not know it."""
    wrong = []
    for kernel in fact(node, "boot.kernels"):
        release = kernel["release"]
        wrong += [f"{release}: {name} is not listed" for name in kernel["unlisted"]]
        wrong += [f"{release}: {name} is listed and not there" for name in kernel["lost"]]
    if wrong:
        fail(f"modules.dep is not of these modules: {wrong[0]}", wrong)


@check(
    id="modules.blacklist",
    severity="blocker",
    title="nouveau will not be loaded at the next boot",
    remedy="Write 'blacklist nouveau' into /etc/modprobe.d/NAME.conf (other endings are passed "
    "over), and run 'update-initramfs -u -k all': it holds a copy.",
    requires=signed_driver,
    source="modprobe.d(5); NVIDIA's README: Interaction with the Nouveau Driver",
    since=SINCE,
)
def test_blacklist(node: Node) -> None:
    """modules.nouveau looks at what runs; without a card in the build nothing loads it there."""
    settings = fact(node, "boot.modprobe")
    if "nouveau" in {*settings["blacklist"], *settings["install"], *_blocked(node)}:
        return
    seen = [f"passed over: {path}" for path in settings["ignored"]]
    fail("nothing keeps nouveau from being loaded: no blacklist in modprobe.d", seen)


@check(
    id="modules.unblocked",
    severity="blocker",
    title="Nothing keeps NVIDIA's own modules from being loaded",
    remedy="Remove the line from modprobe.d that the evidence names, or the word from the kernel's "
    "command line, and run 'update-initramfs -u -k all'.",
    requires=signed_driver,
    source="modprobe.d(5), install and blacklist; tools that switch cards off leave such files",
    since=SINCE,
)
def test_unblocked(node: Node) -> None:
    """'install nvidia /bin/true' succeeds, and loads nothing."""
    settings = fact(node, "boot.modprobe")
    found = [
        line
        for name, line in settings["install"].items()
        if name.startswith("nvidia") and re.search(r"/(true|false)\b", line)
    ]
    found += [f"blacklist {name}" for name in settings["blacklist"] if name.startswith("nvidia")]
    found += [f"command line: {name}" for name in _blocked(node) if name.startswith("nvidia")]
    if found:
        fail(f"the driver is kept from being loaded: {found[0]}", found)


def _blocked(node: Node) -> list[str]:
    """Modules that the kernel's command line names."""
    words = _ON_COMMAND_LINE.findall(fact(node, "kernel.cmdline"))
    return [name.replace("-", "_") for word in words for name in word.split(",")]


@check(
    id="modules.one-release",
    severity="blocker",
    title="NVIDIA's modules of one kernel are of one release",
    remedy="Remove the driver's modules of that kernel and build them again with 'airlock-node.pyz "
    "apply --only driver': an upgrade ended half done.",
    requires=signed_driver,
    depends=["modules.present"],
    source="modinfo -F version; nvidia-uvm and nvidia-modeset take their own nvidia's symbols only",
    since=SINCE,
)
def test_one_release(node: Node) -> None:
    """nvidia: disagrees about version of symbol; or, later, 'API mismatch'."""
    releases: dict[str, dict[str, str]] = {}
    for module in some_nvidia(node):
        if module["version"]:
            releases.setdefault(kernel_of(module), {})[module["version"]] = module["path"]
    wrong = [
        f"{kernel}: " + ", ".join(f"{path} is {version}" for version, path in found.items())
        for kernel, found in releases.items()
        if len(found) > 1
    ]
    if wrong:
        fail(f"modules of several releases lie together: {wrong[0]}", wrong)


@check(
    id="modules.dkms",
    severity="major",
    title="DKMS has built what it keeps for the kernel that boots, or keeps nothing",
    remedy="Run 'dkms remove MODULE/VERSION --all' in the image: what it builds on a node is "
    "unsigned, or signed with a key that lies on the disk; or build it ('dkms autoinstall').",
    requires=known_boot_kernel,
    source="/var/lib/dkms: MODULE/VERSION/KERNEL; dkms.service builds at boot what is missing",
    since=SINCE,
)
def test_dkms(node: Node) -> None:
    """A first boot that compiles for minutes, without headers, behind a proxy."""
    kernel = boot_kernel(node)
    waiting = [
        f"{one['module']}/{one['version']}: built for {', '.join(one['kernels']) or 'no kernel'}"
        for one in fact(node, "boot.dkms")
        if kernel not in one["kernels"]
    ]
    if waiting:
        fail(f"DKMS has not built for {kernel}: {waiting[0]}", waiting)
