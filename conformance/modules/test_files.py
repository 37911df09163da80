"""The module files: which are there, who signed them, and for which kernel they were built."""

from __future__ import annotations

import itertools
import re
from typing import Any

from conformance.modules.reading import boot_kernel, kernel_of, name_of, nvidia, some_nvidia
from harness.checks import boot_kernel as known_boot_kernel
from harness.checks import check, fact, fail, not_verified, signed_driver
from harness.node import Node

EXPECTED = ("nvidia", "nvidia_uvm", "nvidia_modeset", "nvidia_drm")
TAINT_UNSIGNED = 13  # Documentation/admin-guide/tainted-kernels.rst: "E"


@check(
    id="modules.present",
    severity="blocker",
    title="Every NVIDIA module is there for the boot kernel, once",
    remedy="Build the driver for the kernel the image boots (airlock-boot-kernel), not for the one "
    "that runs during the build, and remove older copies.",
    requires=signed_driver,
    source="NVIDIA open kernel modules: nvidia, nvidia-uvm, nvidia-modeset, nvidia-drm",
)
def test_present(node: Node) -> None:
    """nvidia-peermem is optional: it needs InfiniBand's symbols. Of two copies depmod picks one."""
    kernel = boot_kernel(node)
    found = nvidia(node, kernel)
    names = [name_of(module) for module in found]
    seen = [module["path"] for module in nvidia(node)]
    missing = [name for name in EXPECTED if name not in names]
    if missing:
        fail(f"no {', '.join(missing)} module for the boot kernel {kernel}", seen)
    double = sorted({name for name in names if names.count(name) > 1})
    if double:
        fail(f"more than one file for {', '.join(double)} of kernel {kernel}", seen)


@check(
    id="modules.signature",
    severity="blocker",
    title="Every NVIDIA module is signed exactly once, by our certificate, over what it holds",
    remedy="Sign each module once with the enrolled key, after strip and before compression, and "
    "leave it alone afterwards: strip removes a signature without a word.",
    requires=signed_driver,
    depends=["modules.present"],
    source="kernel/module/signing.c: only the last signature counts",
)
def test_signature(node: Node) -> None:
    """Modules of every installed kernel: the next boot may take another one."""
    wanted = node.expect["cert_sha256"]
    modules = some_nvidia(node)
    wrong = [
        f"{module['path']}: {why}" for module in modules if (why := _unsound(node, module, wanted))
    ]
    if wrong:
        fail(f"{len(wrong)} of {len(modules)} nvidia modules are not soundly signed", wrong)
    unread = [module["path"] for module in modules if module["digest_ok"] is None]
    if unread:
        not_verified(f"the node could not verify the digest of {', '.join(unread)}")


def _unsound(node: Node, module: Any, wanted: str) -> str:
    """What is wrong with a module's signature, or ``""``."""
    if module["signatures"] is None:
        return f"not a module: {node.facts['unreadable'].get('modules.' + module['path'])}"
    if module["signatures"] == 0:
        return "unsigned"
    if module["signatures"] != 1:
        return f"{module['signatures']} signatures, one over the other"
    if module["cert_sha256"] != wanted:
        signer = module["signer"] or {}
        by = module["cert_sha256"] or f"{signer.get('issuer_cn')} (serial {signer.get('serial')})"
        return f"signed by {by}, not by {wanted}"
    return "altered after it was signed" if module["digest_ok"] is False else ""


@check(
    id="modules.vermagic",
    severity="blocker",
    title="Every NVIDIA module was built for the kernel it lies under",
    remedy="Build against the headers of exactly the kernel the image boots; a module of another "
    "release is refused with 'Exec format error'.",
    requires=signed_driver,
    depends=["modules.present"],
    source="kernel/module/version.c: same_magic()",
)
def test_vermagic(node: Node) -> None:
    """The first word of vermagic is the release it was built for."""
    wrong = []
    for module in some_nvidia(node):
        if module["signatures"] is None:
            continue  # cannot be read as a module at all: modules.signature says so
        built_for = (module["vermagic"] or "no kernel").split(" ", 1)[0]
        if built_for != kernel_of(module):
            wrong.append(f"{module['path']}: built for {built_for}")
    if wrong:
        fail(f"{len(wrong)} nvidia modules were built for another kernel", wrong)


@check(
    id="modules.boot-kernel",
    severity="blocker",
    title="The node booted the kernel the modules were built for, and will again",
    remedy="Hold the kernel packages after the driver is built, or build the driver again for the "
    "newest installed kernel; the next boot takes the newest.",
    requires=(signed_driver, known_boot_kernel),
    depends=["modules.present"],
    source="a kernel upgrade between build and snapshot leaves the first boot without a driver",
)
def test_boot_kernel(node: Node) -> None:
    """A newer kernel without our modules is what the boot loader takes next."""
    wanted = node.expect["boot_kernel"]
    release = fact(node, "kernel.release")
    if release != wanted:
        fail(f"the node booted {release}; the modules were built for {wanted}")
    newer = [
        other
        for other in fact(node, "kernel.installed")
        if _version(other) > _version(wanted) and not nvidia(node, other)
    ]
    if newer:
        fail(
            f"kernel {newer[-1]} is newer than {wanted} and has no nvidia module: "
            "the next boot has no driver",
            [f"/lib/modules/{other}" for other in fact(node, "kernel.installed")],
        )


def _version(release: str) -> list[tuple[int, int, str]]:
    """Orders kernel releases as people do: numbers by value, and before words."""
    parts = re.findall(r"\d+|[a-z]+", release)
    return [(1, int(part), "") if part.isdigit() else (0, 0, part) for part in parts]


@check(
    id="modules.not-tainted-unsigned",
    severity="blocker",
    title="The kernel never took an unsigned module",
    remedy="Find the module marked (E) in /proc/modules and the kernel log, and sign it; then see "
    "why the kernel took it: it enforces no signatures.",
    depends=["modules.control-unsigned"],
    source="Documentation/admin-guide/tainted-kernels.rst, bit 13",
)
def test_not_tainted(node: Node) -> None:
    """The taint stays when the module goes: it covers everything since boot."""
    tainted = fact(node, "kernel.tainted")
    if tainted >> TAINT_UNSIGNED & 1:
        bits = [
            str(bit)
            for bit in itertools.takewhile(lambda b: tainted >> b, range(64))
            if tainted >> bit & 1
        ]
        fail(
            f"the kernel is tainted by an unsigned module (bit {TAINT_UNSIGNED})",
            [f"/proc/sys/kernel/tainted: {tainted} (bits {', '.join(bits)})"],
        )


@check(
    id="modules.nouveau",
    severity="blocker",
    title="The nouveau driver is not loaded",
    remedy="Blacklist nouveau in modprobe.d, rebuild the initramfs, and reboot: a loaded driver "
    "does not let go of the card.",
    requires=signed_driver,
    source="/proc/modules; NVIDIA's README: Interaction with the Nouveau Driver",
)
def test_nouveau(node: Node) -> None:
    """It would hold the GPU, and NVIDIA's module could not have it."""
    if "nouveau" in fact(node, "loaded_modules"):
        fail("nouveau is loaded: it holds the GPU, and nvidia cannot take it")
