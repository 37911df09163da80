"""The three controls: the kernel itself says what it takes, by errno and by its log.

An unsigned module that is refused proves nothing if everything is refused, and a module of ours
that ends in ENODEV proves nothing if the kernel enforces no signatures. Only the three together do.
"""

from __future__ import annotations

from typing import Any

from harness.checks import check, fact, fail, not_verified, secure_boot, signed_driver
from harness.node import Node

UNSIGNED = "Loading of unsigned module is rejected"
STRANGER = "Loading of module with unavailable key is rejected"
NO_GPU = "NVRM: No NVIDIA GPU found"

# What an errno of finit_module(2) means when a refusal for the signature was expected.
MEANING = {
    "EPERM": "refused for another reason than the signature: lockdown alone, or loading is off",
    "ENODEV": "the kernel took it: its init ran and found no GPU",
    "EEXIST": "the module is loaded already, so the control proves nothing",
    "ENOEXEC": "not a module of this kernel",
    "ENOKEY": "a kernel that asks for keys but does not enforce signatures",
    "EBADMSG": "the signature cannot be parsed",
}
REQUIRES = (secure_boot, signed_driver)
SOURCE = "kernel/module/signing.c: module_sig_check()"


@check(
    id="modules.control-unsigned",
    severity="blocker",
    title="The kernel refuses an unsigned module because it is unsigned",
    remedy="Boot with Secure Boot on and a kernel that enforces signatures (lockdown, or "
    "module.sig_enforce=1). If every module is refused, see /proc/sys/kernel/modules_disabled.",
    requires=REQUIRES,
    depends=["secure-boot.enabled"],
    source=SOURCE,
)
def test_unsigned(node: Node) -> None:
    """EKEYREJECTED, and the kernel's own words for 'no signature'."""
    _refused(_control(node, "unsigned"), UNSIGNED)


@check(
    id="modules.control-stranger",
    severity="blocker",
    title="The kernel refuses a module that a stranger signed",
    remedy="Find whose key the firmware or the machine owner list trusts, and remove it.",
    requires=REQUIRES,
    depends=["secure-boot.enabled", "modules.control-unsigned"],
    source=SOURCE,
)
def test_stranger(node: Node) -> None:
    """EKEYREJECTED, and the kernel's own words for 'a key I do not have'."""
    _refused(_control(node, "stranger"), STRANGER)


@check(
    id="modules.control-ours",
    severity="blocker",
    title="The kernel accepts the NVIDIA module that we signed",
    remedy="Enroll the certificate that signed the modules in the firmware's db, on a release "
    "whose kernel takes keys from there; if it is enrolled, the module was altered afterwards.",
    requires=REQUIRES,
    depends=["secure-boot.db-certificate", "modules.signature", "modules.control-unsigned"],
    source=SOURCE,
)
def test_ours(node: Node) -> None:
    """Loaded where there is a GPU; else ENODEV and NVRM's words, from the module's own init."""
    control = _control(node, "ours")
    log = control["kernel_log"]
    gpu = node.expect.get("gpu")
    if control["errno"] == 0 and gpu is not False:
        if "nvidia" not in fact(node, "loaded_modules"):
            fail("the kernel said it took the module, but nvidia is not loaded", log)
        return
    if control["errno_name"] != "ENODEV":
        fail(f"the kernel refused our own nvidia module: {control['errno_name']}", log)
    if gpu:
        fail("our nvidia module found no GPU on a node that has one", log)
    if not any(NO_GPU in line for line in log):
        fail(f"our nvidia module ended in ENODEV without saying {NO_GPU!r}", log)


def _control(node: Node, name: str) -> Any:
    """The one result of a control; without it nothing is known."""
    found = [entry for entry in fact(node, "controls") if entry["name"] == name]
    if len(found) != 1:
        not_verified(f"the control {name!r} ran {len(found)} times, not once")
    if found[0]["errno"] is None:
        not_verified(f"the control {name!r} could not run")
    return found[0]


def _refused(control: Any, words: str) -> None:
    """Demand that the module was refused for its signature, for the reason in ``words``."""
    log = control["kernel_log"]
    what = f"the {control['name']} module"
    if control["errno"] == 0:
        fail(f"the kernel loaded {what}: signatures are not enforced", log)
    error = control["errno_name"]
    if error != "EKEYREJECTED":
        fail(f"{what} got {error}, not EKEYREJECTED: {MEANING.get(error, 'not a refusal')}", log)
    if not any(words in line for line in log):
        fail(f"{what} got EKEYREJECTED, but the kernel's log lacks {words!r}", log)
