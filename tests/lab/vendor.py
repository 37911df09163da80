"""A cloud image as a vendor ships it, made here: GPT, ESP with shim and GRUB, ext4, cloud-init.

It stands for a downloaded one. Nothing in it is the lab's: kernel and initrd lie on the root file
system, GRUB looks for it by its UUID, and its name, network and users are cloud-init's to set.
"""

from __future__ import annotations

import io
import shutil
import subprocess
import tarfile
import uuid
import zlib
from pathlib import Path

from harness.cells import Image
from harness.lab import base
from harness.lab.namespace import host_env, remove_tree, run_as_root
from harness.state import cache_dir, exclusive

SECTOR, MIB = 512, 1 << 20
#: (Partition number, type, name, first MiB, MiB), laid out as Debian's own cloud images are.
ESP, LINUX = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b", "0fc63daf-8483-4772-8e79-3d69d8477de4"
_ESP = (15, ESP, "ESP", 1, 100)
_ROOT = (1, LINUX, "root", 101, 2400)
_END = 101 + 2400 + 1
_UUID = "7f3a1c52-5f0e-4c0b-9a51-0d9c3a4be6aa"
PACKAGES = ("cloud-init", "cloud-guest-utils", "netplan.io", "systemd-resolved")
IMAGE = Image(
    name="vendor",
    title="",
    family="debian",
    version="12",
    suite="bookworm",
    kernel="linux-image-cloud-amd64",
    packages=(*PACKAGES, "systemd-timesyncd", "sudo"),
)
_SHIM = "usr/lib/shim/shimx64.efi.signed"
_GRUB = "usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed"
_ON_ESP = (
    f"search.fs_uuid {_UUID} root\nset prefix=($root)'/boot/grub'\nconfigfile $prefix/grub.cfg\n"
)
_GRUB_CFG = """\
set timeout=0
menuentry "Debian GNU/Linux" {{
  search.fs_uuid {uuid} root
  linux /boot/vmlinuz-{kernel} root=UUID={uuid} ro console=tty0 console=ttyS0,115200
  initrd /boot/initrd.img-{kernel}
}}
"""
_FILES = {
    "etc/default/locale": "LANG=C.UTF-8\n",
    "etc/fstab": f"UUID={_UUID} / ext4 rw,discard,errors=remount-ro 0 1\n",
    "etc/hostname": "localhost\n",
    "etc/hosts": "127.0.0.1 localhost\n",
    "etc/machine-id": "",
    # As Ubuntu's has it: neighbours are asked for no names.
    "etc/systemd/resolved.conf.d/names.conf": "[Resolve]\nLLMNR=no\nMulticastDNS=no\n",
}


def make() -> Path:
    """The image as qcow2, from the cache or made now (minutes)."""
    made_of = [Path(__file__).read_text(), base.recipe(IMAGE)]
    directory = cache_dir("vendor") / base.canonical(made_of)[:32]
    found = directory / "vendor-12-generic-amd64.qcow2"
    with exclusive(directory):
        if not found.exists():
            shutil.rmtree(directory, ignore_errors=True)
            directory.mkdir()
            tree = directory / "tree"
            try:
                _make(tree, directory)
            finally:
                remove_tree(tree)
    return found


def _make(tree: Path, directory: Path) -> None:
    found = base.build(IMAGE, log=directory / "log")
    run_as_root(["mkdir", str(tree)], timeout=20)
    untar = ["tar", "-x", "-p", "--numeric-owner", "-C", str(tree)]
    run_as_root([*untar, "--exclude=./dev/*", "-f", str(found.tar)], timeout=600)
    listed = run_as_root(["ls", "-1v", str(tree / "lib/modules")], timeout=20)
    kernel = listed.stdout.decode().split()[-1]
    files = {**_FILES, "boot/grub/grub.cfg": _GRUB_CFG.format(uuid=_UUID, kernel=kernel)}
    packed = directory / "files.tar"
    packed.write_bytes(_archive(files))
    run_as_root([*untar, "--overwrite", "-f", str(packed)], timeout=60)
    raw, esp, root = directory / "disk.raw", directory / "esp", directory / "root"
    make_ext4 = ["mkfs.ext4", "-q", "-F", "-L", "root", "-U", _UUID, "-d", str(tree)]
    run_as_root([*make_ext4, str(root), f"{_ROOT[4]}M"], timeout=600)
    _make_esp(tree, esp)
    raw.write_bytes(table([_ROOT, _ESP], _END))
    for part, (_, _, _, first, _) in ((esp, _ESP), (root, _ROOT)):
        _run(["dd", f"if={part}", f"of={raw}", "bs=1M", f"seek={first}", "conv=notrunc,sparse"])
        part.unlink()
    whole = directory / "partial.qcow2"
    _run(["qemu-img", "convert", "-q", "-f", "raw", "-O", "qcow2", str(raw), str(whole)])
    raw.unlink()
    whole.rename(directory / "vendor-12-generic-amd64.qcow2")


def _make_esp(tree: Path, esp: Path) -> None:
    with esp.open("wb") as file:
        file.truncate(_ESP[4] * MIB)
    _run(["mformat", "-i", str(esp), "-F", "-v", "UEFI", "::"])
    _run(["mmd", "-i", str(esp), "::/EFI", "::/EFI/BOOT", "::/EFI/debian"])
    config = esp.with_name("grub.cfg")
    config.write_text(_ON_ESP)
    for source, targets in (
        (tree / _SHIM, ("EFI/BOOT/BOOTX64.EFI", "EFI/debian/shimx64.efi")),
        (tree / _GRUB, ("EFI/BOOT/grubx64.efi", "EFI/debian/grubx64.efi")),
        (config, ("EFI/debian/grub.cfg",)),
    ):
        for target in targets:
            _run(["mcopy", "-i", str(esp), str(source), f"::/{target}"])


def table(partitions: list[tuple[int, str, str, int, int]], mib: int) -> bytes:
    """A disk of ``mib`` MiB that holds a GPT and nothing else (UEFI 2.10, 5.3)."""
    sectors = mib * MIB // SECTOR
    entries = bytearray(128 * 128)
    for number, kind, name, first, size in partitions:
        start = first * MIB // SECTOR
        end = start + size * MIB // SECTOR - 1
        entry = uuid.UUID(kind).bytes_le + uuid.uuid5(uuid.NAMESPACE_DNS, name).bytes_le
        entry += start.to_bytes(8, "little") + end.to_bytes(8, "little") + bytes(8)
        entries[(number - 1) * 128 : number * 128] = entry + name.encode("utf-16-le").ljust(
            72, b"\0"
        )
    disk = bytearray(sectors * SECTOR)
    # A protective MBR: one partition of type 0xEE over the whole disk.
    record = bytes([0, 0, 2, 0, 0xEE, 255, 255, 255]) + (1).to_bytes(4, "little")
    disk[446:462] = record + (sectors - 1).to_bytes(4, "little")
    disk[510:512] = b"\x55\xaa"
    for own, other, place in ((1, sectors - 1, 2), (sectors - 1, 1, sectors - 33)):
        header = bytearray(b"EFI PART" + bytes.fromhex("00000100") + (92).to_bytes(4, "little"))
        header += bytes(8)
        for value in (own, other, 34, sectors - 34):
            header += value.to_bytes(8, "little")
        header += uuid.UUID(_UUID).bytes_le + place.to_bytes(8, "little")
        header += (128).to_bytes(4, "little") * 2 + zlib.crc32(entries).to_bytes(4, "little")
        header[16:20] = zlib.crc32(header).to_bytes(4, "little")
        disk[own * SECTOR : own * SECTOR + 92] = header
        disk[place * SECTOR : place * SECTOR + len(entries)] = entries
    return bytes(disk)


def _archive(files: dict[str, str]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for path, text in sorted(files.items()):
            info = tarfile.TarInfo(path)
            info.size, info.mode = len(text.encode()), 0o644
            tar.addfile(info, io.BytesIO(text.encode()))
    return out.getvalue()


def _run(argv: list[str]) -> None:
    subprocess.run(argv, check=True, capture_output=True, env=host_env())
