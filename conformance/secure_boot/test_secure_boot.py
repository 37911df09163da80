"""The firmware enforces Secure Boot, and the kernel took our certificate from its ``db``."""

from __future__ import annotations

from harness.checks import check, fact, fail, secure_boot, signed_driver
from harness.node import Node

# A distribution's shim is signed by one of these. A custom db list replaces the defaults of a
# cloud image, and a db without them boots no shim at all.
MICROSOFT_UEFI_CAS = ("Microsoft Corporation UEFI CA 2011", "Microsoft UEFI CA 2023")


@check(
    id="secure-boot.enabled",
    severity="blocker",
    title="The node booted with Secure Boot on",
    remedy="Boot with UEFI firmware whose SecureBoot variable is 1: on a cloud, switch Secure Boot "
    "on for the instance; in QEMU, use the secboot firmware and an enrolled variable store.",
    requires=secure_boot,
    source="UEFI 2.10, 3.3: global variables SecureBoot and SetupMode",
)
def test_enabled(node: Node) -> None:
    """A node in setup mode verifies nothing, whatever SecureBoot says."""
    if not fact(node, "secure_boot.efi"):
        fail("the node did not boot through UEFI")
    if not fact(node, "secure_boot.enabled"):
        fail("Secure Boot is off: the SecureBoot variable is not 1")
    if fact(node, "secure_boot.setup_mode"):
        fail("the firmware is in setup mode: no platform key is enrolled, so nothing is verified")


@check(
    id="secure-boot.lockdown-integrity",
    severity="blocker",
    title="The kernel is locked down",
    remedy="Boot a distribution-signed kernel built with LOCK_DOWN_IN_EFI_SECURE_BOOT, or add "
    "lockdown=integrity to its command line.",
    requires=secure_boot,
    depends=["secure-boot.enabled"],
    source="kernel_lockdown(7); /sys/kernel/security/lockdown",
)
def test_lockdown(node: Node) -> None:
    """``confidentiality`` includes everything that ``integrity`` forbids."""
    level = fact(node, "secure_boot.lockdown")
    if level not in ("integrity", "confidentiality"):
        fail(f"kernel lockdown is {level!r}, not integrity", [f"lockdown: {level}"])


@check(
    id="secure-boot.db-certificate",
    severity="blocker",
    title="The signing certificate is in the firmware's db and in the kernel's platform keyring",
    remedy="Enroll the signing certificate in the UEFI db (a cloud image: the signature database "
    "files of its creation). If the db has it and the keyring does not, this kernel does not take "
    "keys from db: use a newer release.",
    requires=(secure_boot, signed_driver),
    depends=["secure-boot.enabled"],
    source="security/integrity/platform_certs/load_uefi.c",
)
def test_db_certificate(node: Node) -> None:
    """By fingerprint in db; the keyring shows names only, so there by the certificate's name."""
    wanted = node.expect["cert_sha256"]
    db = fact(node, "secure_boot.db")
    seen = [f"db: {entry['sha256']} {entry['subject_cn']}" for entry in db]
    ours = [entry for entry in db if entry["sha256"] == wanted]
    if not ours:
        fail(f"the UEFI db does not hold the signing certificate {wanted}", seen)
    name = ours[0]["subject_cn"]
    # x509_fabricate_name() of the kernel: "CN", or "O: CN" where there is an organisation.
    keys = [key["description"] for key in fact(node, "secure_boot.keyrings")[".platform"] or []]
    if not any(key == name or key.endswith(f": {name}") for key in keys):
        fail(
            f"the kernel's .platform keyring does not hold {name!r} although the UEFI db does",
            [f".platform: {key}" for key in keys],
        )


@check(
    id="secure-boot.microsoft-ca",
    severity="major",
    title="The firmware's db still trusts a CA that signs shim",
    remedy="Add the Microsoft UEFI CA certificates (2011 and 2023) back to the db: a list of your "
    "own replaces the defaults.",
    requires=secure_boot,
    source="shim is signed by Microsoft's third-party UEFI CA; new ones by that of 2023 only",
)
def test_microsoft_ca(node: Node) -> None:
    """Without one the node still runs today and does not boot after the next shim update."""
    names = [entry["subject_cn"] for entry in fact(node, "secure_boot.db")]
    if not any(name in MICROSOFT_UEFI_CAS for name in names):
        fail(
            "the UEFI db holds no Microsoft UEFI CA: no distribution's shim will boot",
            [f"db: {name}" for name in names],
        )
