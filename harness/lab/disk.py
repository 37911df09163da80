"""Disks from a tree of files, without root on the host and without loop devices."""

from __future__ import annotations

import json
import subprocess
import tarfile
import tempfile
from pathlib import Path

from harness.errors import InfraError
from harness.lab.namespace import host_env, root_prefix, run_as_root

_GRUB_CFG = """\
set timeout=0
set default=0
menuentry "airlock" {{
  linux ($root)/vmlinuz root=/dev/vda rw console=ttyS0 net.ifnames=0 {extra}
  initrd ($root)/initrd.img
}}
"""

# Where Debian and Ubuntu keep the signed first stages. GRUB's built-in prefix names the vendor.
_SHIM = "usr/lib/shim/shimx64.efi.signed"
_GRUB = "usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed"


def make_root(tree: Path, image: Path, *, size_mib: int) -> None:
    """Write ``tree`` as an ext4 file system of ``size_mib`` MiB (a sparse raw file)."""
    partial = image.with_suffix(".partial")
    partial.unlink(missing_ok=True)
    run_as_root(
        ["mkfs.ext4", "-q", "-F", "-L", "root", "-d", str(tree), str(partial), f"{size_mib}M"],
        timeout=600,
    )
    partial.rename(image)


def make_esp(tree: Path, image: Path, *, kernel: str, vendor: str, cmdline: str = "") -> None:
    """Write the EFI system partition that boots ``kernel``: shim, GRUB, kernel and initrd.

    Kernel and initrd lie beside GRUB because it did not find an ext4 file system made by
    ``mkfs.ext4 -d``; the firmware verifies shim, shim verifies GRUB, GRUB has shim verify the
    kernel (https://www.rodsbooks.com/efi-bootloaders/secureboot.html).
    """
    wanted = {
        _SHIM: "EFI/BOOT/BOOTX64.EFI",
        _GRUB: "EFI/BOOT/grubx64.efi",
        f"boot/vmlinuz-{kernel}": "vmlinuz",
        f"boot/initrd.img-{kernel}": "initrd.img",
    }
    with tempfile.TemporaryDirectory(dir=image.parent) as tmp:
        packed, plain = Path(tmp) / "boot.tar", Path(tmp) / "esp"
        with packed.open("wb") as out:
            done = subprocess.run(
                [*root_prefix(), "tar", "-C", str(tree), "-cf", "-", *wanted],
                stdout=out,
                stderr=subprocess.PIPE,
                env=host_env(),
                check=False,
            )
        if done.returncode:
            raise InfraError(
                f"the image has no signed boot chain for {kernel}: {done.stderr.decode().strip()}",
                hint="its recipe needs a signed kernel, shim-signed and grub-efi-amd64-signed",
            )
        (plain / "EFI/BOOT").mkdir(parents=True)
        (plain / "EFI" / vendor).mkdir()
        with tarfile.open(packed) as tar:
            for source, target in wanted.items():
                member = tar.extractfile(source)
                if member is None:
                    raise InfraError(f"{source} of the image is not a file")
                (plain / target).write_bytes(member.read())
        (plain / "EFI" / vendor / "grub.cfg").write_text(_GRUB_CFG.format(extra=cmdline))
        used = sum(f.stat().st_size for f in plain.rglob("*") if f.is_file())
        make_volume(image, plain, size=used * 5 // 4 + (32 << 20))


def make_volume(image: Path, folder: Path, *, size: int, label: str = "") -> None:
    """Write what is in ``folder`` as a FAT file system of ``size`` bytes, whole or not at all."""
    sectors = size // 512
    partial = image.with_suffix(".partial")
    with partial.open("wb") as f:
        f.truncate(sectors * 512)
    named = ["-v", label] if label else []
    for argv in (
        ["mformat", "-i", str(partial), "-F", *named, "-T", str(sectors), "::"],
        ["mcopy", "-i", str(partial), "-s", "-Q", *map(str, folder.iterdir()), "::/"],
    ):
        _quiet(argv)
    partial.rename(image)


def make_overlay(base: Path, overlay: Path, kind: str = "raw") -> None:
    """A qcow2 file that holds what one node writes, over ``base``, which stays as it is."""
    _quiet(["qemu-img", "create", "-q", "-f", "qcow2", "-F", kind, "-b", str(base), str(overlay)])


def grow(overlay: Path, size_mib: int) -> None:
    """Give a qcow2 disk at least so many MiB; what is on it finds them behind its end."""
    told = _quiet(["qemu-img", "info", "--output=json", str(overlay)])
    if json.loads(told)["virtual-size"] < size_mib << 20:
        _quiet(["qemu-img", "resize", "-q", "-f", "qcow2", str(overlay), f"{size_mib}M"])


def copy(source: Path, target: Path) -> None:
    """Copy a disk: as a reference where the file system can, without its holes elsewhere."""
    _quiet(["cp", "--reflink=auto", "--sparse=always", str(source), str(target)])


def flatten(source: Path, target: Path, kind: str = "qcow2") -> None:
    """Write ``source`` (qcow2) as one file of the format ``kind`` that needs no other."""
    _quiet(["qemu-img", "convert", "-q", "-f", "qcow2", "-O", kind, str(source), str(target)])


def to_qcow2(raw: Path) -> None:
    """Make a raw file a qcow2 file of the same name."""
    partial = raw.with_name(raw.name + ".partial")
    _quiet(["qemu-img", "convert", "-q", "-f", "raw", "-O", "qcow2", str(raw), str(partial)])
    partial.replace(raw)


def _quiet(argv: list[str]) -> str:
    try:
        done = subprocess.run(argv, capture_output=True, text=True, env=host_env(), check=False)
    except FileNotFoundError as e:
        raise InfraError(f"{argv[0]} is not installed", hint="airlock doctor --fix") from e
    if done.returncode:
        raise InfraError(f"{argv[0]} failed: {done.stderr.strip()}")
    return done.stdout
