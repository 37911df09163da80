"""The chain before and after today's boot: db and dbx, shim, the owner's list, the next kernel."""

from __future__ import annotations

import re

from conformance.modules.reading import boot_kernel
from harness.checks import check, fact, fail, not_verified, secure_boot
from harness.node import Node

SINCE = "2026-11-22"
NEW_CA = "Microsoft UEFI CA 2023"
# shim 15.8 (January 2024): the first without the flaws for which older ones are revoked.
LEAST_SHIM = 4
# The certificate that a distribution's shim brings for its own kernels.
VENDORS = re.compile(
    r"(Debian|Fedora|Red Hat|CentOS|Rocky|AlmaLinux|SUSE|openSUSE|Oracle|Amazon).*Secure ?Boot"
    r"|Canonical Ltd\. Master Certificate Authority"
    r"|Secure Boot.*(Debian|Rocky|Alma|Oracle|Amazon)"
)
# What undoes Secure Boot from the command line: Documentation/admin-guide/kernel-parameters.txt.
UNDOING = re.compile(
    r"module\.sig_enforce=(0|n|off)|lockdown=none|ima_appraise=off|noefi|efi=noruntime|efi=debug"
)


@check(
    id="secure-boot.ca-2023",
    severity="major",
    title="The firmware's db holds Microsoft's UEFI CA of 2023",
    remedy="Add microsoft_uefi_ca_2023 beside MicCorUEFCA2011 to the image's signature database "
    "('gcloud compute images create --signature-database-file=...'; on a machine: fwupdmgr "
    "update): shims are signed under the new one only, since the old one ended in June 2026.",
    requires=secure_boot,
    depends=["secure-boot.microsoft-ca"],
    source="shim-review: signing under the CA of 2011 has ended; Microsoft: 'Windows Secure Boot "
    "certificate expiration'",
    since=SINCE,
)
def test_ca_2023(node: Node) -> None:
    """The node boots today; after the next shim update it does not."""
    names = [entry["subject_cn"] for entry in fact(node, "secure_boot.db")]
    if NEW_CA not in names:
        fail(f"the UEFI db lacks {NEW_CA}", [f"db: {name}" for name in names])


@check(
    id="secure-boot.dbx",
    severity="major",
    title="The firmware revokes what is known to be broken",
    remedy="Give the image a dbx (on a cloud: leave its default; on a machine: 'fwupdmgr update' "
    "or 'dbxtool --apply'): without one every shim and boot loader with a known hole is taken.",
    requires=secure_boot,
    source="UEFI 2.10, 32.4.1: dbx; an image with a db of its own loses the cloud's dbx with it",
    since=SINCE,
)
def test_dbx(node: Node) -> None:
    """An empty list and no list are the same."""
    if not fact(node, "secure_boot.dbx_entries"):
        fail("the firmware's dbx is empty: nothing is revoked")


@check(
    id="secure-boot.owner-keys",
    severity="blocker",
    title="The machine owner's list holds nobody's key but the distribution's and ours",
    remedy="Delete the key ('mokutil --list-enrolled', 'mokutil --delete FILE', and confirm at the "
    "console): whoever has it signs modules and kernels that this node takes.",
    requires=secure_boot,
    depends=["secure-boot.enabled"],
    source="shim's MokListRT; DKMS and vendors' installers enroll keys that they leave on disks",
    since=SINCE,
)
def test_owner_keys(node: Node) -> None:
    """The kernel takes this list into its .machine keyring, beside its own."""
    strange = [
        f"{entry['sha256']} {entry['subject_cn']}"
        for entry in fact(node, "secure_boot.mok")
        if entry["sha256"] != node.expect.get("cert_sha256")
        and not VENDORS.search(str(entry["subject_cn"]))
    ]
    if strange:
        fail(f"{len(strange)} keys of strangers are enrolled: {strange[0]}", strange)


@check(
    id="secure-boot.shim-verifies",
    severity="blocker",
    title="shim was not told to leave out its verification",
    remedy="Run 'mokutil --enable-validation' and confirm it at the console at the next boot.",
    requires=secure_boot,
    depends=["secure-boot.enabled"],
    source="shim's MokSBStateRT, set by 'mokutil --disable-validation'",
    since=SINCE,
)
def test_shim_verifies(node: Node) -> None:
    """The firmware still says that Secure Boot is on: it verified shim, and nobody the kernel."""
    if fact(node, "secure_boot.mok_unverified"):
        fail("shim's validation is switched off (MokSBState): any kernel boots")


@check(
    id="secure-boot.shim-current",
    severity="major",
    title=f"The installed shim is of generation {LEAST_SHIM} or later, and not revoked",
    remedy="Install the distribution's current shim ('apt-get install --only-upgrade shim-signed "
    "grub-efi-amd64-signed') before the firmware or another system raises its SBAT level.",
    requires=secure_boot,
    source="shim's SBAT.md and its section .sbat; SbatLevelRT, which a dual boot or an update "
    "raises: 'Verifying shim SBAT data failed: Security Policy Violation'",
    since=SINCE,
)
def test_shim_current(node: Node) -> None:
    """The one on the EFI partition where it is mounted, else the package's."""
    shim = fact(node, "secure_boot.shim")
    own = shim["generations"].get("shim")
    if own is None:
        fail(f"{shim['path']} has no SBAT data: it is older than 15.3, and revoked")
    least = (node.facts["secure_boot"].get("sbat_level") or {}).get("shim", 0)
    if own < max(LEAST_SHIM, least):
        fail(f"{shim['path']} is of generation {own}; {max(LEAST_SHIM, least)} is needed")


@check(
    id="secure-boot.command-line",
    severity="blocker",
    title="Nothing on the kernel's command line undoes Secure Boot",
    remedy="Remove the option from GRUB_CMDLINE_LINUX in /etc/default/grub and grub.d, and run "
    "'update-grub'.",
    requires=secure_boot,
    depends=["secure-boot.enabled"],
    source="Linux: Documentation/admin-guide/kernel-parameters.txt",
    since=SINCE,
)
def test_command_line(node: Node) -> None:
    """Without EFI's runtime the kernel cannot read db, and refuses our modules too."""
    words = [word for word in fact(node, "kernel.cmdline").split() if UNDOING.fullmatch(word)]
    if words:
        fail(f"the kernel was started with {' '.join(words)}", words)


@check(
    id="secure-boot.next-kernel",
    severity="blocker",
    title="Every installed kernel is signed: the next boot starts one of them",
    remedy="Install the distribution's signed kernel ('apt-get install --reinstall linux-image-"
    "$(uname -r)'), and remove those that were built here.",
    requires=secure_boot,
    source="the security directory of /boot/vmlinuz-*: 'bad shim signature, you need to load the "
    "kernel first'",
    since=SINCE,
)
def test_next_kernel(node: Node) -> None:
    """linux-image-*-unsigned, or one that 'make install' put there, stops at the boot loader."""
    kernels = [kernel for kernel in fact(node, "boot.kernels") if kernel["image"]]
    if not kernels:
        not_verified(f"/boot holds no kernel, not even of {boot_kernel(node)}")
    unsigned = [
        f"{kernel['image']['path']}: "
        + ("is no EFI program" if kernel["signed"] is None else "is not signed")
        for kernel in kernels
        if not kernel["signed"]
    ]
    if unsigned:
        fail(f"{len(unsigned)} kernels will not boot: {unsigned[0]}", unsigned)
