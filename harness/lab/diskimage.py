"""What a disk image holds, read without root and without mounting it.

The partition table and the kinds of file systems by their bytes, the EFI system partition by
mtools, ext4 by debugfs. Of xfs, btrfs, LVM and LUKS the kind is all that is told; the rest the
booted machine tells.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from harness.errors import InfraError, UsageError
from harness.lab.namespace import host_env
from installers.exits import Exit

_ESP = uuid.UUID("c12a7328-f81f-11d2-ba4b-00a0c93ec93b")
_SECTORS = (512, 4096)
_MBR_PROTECTIVE, _MBR_ESP = 0xEE, 0xEF
#: Where a file system says what it is: kind, offset, bytes there.
_MAGIC = (
    ("ext4", 0x438, b"\x53\xef"),
    ("xfs", 0, b"XFSB"),
    ("btrfs", 0x10040, b"_BHRfS_M"),
    ("lvm", 0x200, b"LABELONE"),
    ("luks", 0, b"LUKS\xba\xbe"),
    ("vfat", 0x52, b"FAT32"),
    ("vfat", 0x36, b"FAT1"),
    ("squashfs", 0, b"hsqs"),
)
#: What firmware without entries of its own starts (UEFI 2.10, 3.5.1.1).
_LOADER = "efi/boot/bootx64.efi"
_OS_RELEASE = ("usr/lib/os-release", "etc/os-release")


class BadImage(UsageError):
    """An image that cannot be used. ``code`` is stable; it is a refusal's where a cell has it."""

    def __init__(self, code: str, message: str, *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.code = code


class UnfitImage(BadImage):
    """A disk that is one, and cannot be a machine here: the image is at fault, not who named it."""

    exit = Exit.FAIL


@dataclass(frozen=True)
class Partition:
    """``start`` and ``size`` in bytes; ``holds``: the kind of file system, "" if unknown."""

    number: int
    start: int
    size: int
    esp: bool
    holds: str


@dataclass(frozen=True)
class Inspection:
    """What was found. ``untold``: what could not be told, as sentences.

    ``loaders``: EFI programs on the ESP, lower case. ``family`` and ``version``: ID and VERSION_ID
    of os-release. ``kernels``: releases with modules. ``cloud_init``: None if that is not known.
    """

    table: str
    partitions: tuple[Partition, ...]
    loaders: tuple[str, ...]
    family: str = ""
    version: str = ""
    title: str = ""
    kernels: tuple[str, ...] = ()
    cloud_init: bool | None = None
    untold: tuple[str, ...] = field(default=())

    def require_bootable(self, name: str) -> None:
        """Raise :class:`UnfitImage` where it is certain that it cannot be run in the lab."""
        if not any(part.esp for part in self.partitions):
            raise UnfitImage(
                "image.no-efi-partition",
                f"{name} has no EFI system partition ({self.table}: {self._layout()})",
                hint="take the vendor's UEFI image: Secure Boot needs one",
            )
        if _LOADER not in self.loaders:
            found = ", ".join(self.loaders) or "none"
            raise UnfitImage(
                "image.no-boot-loader",
                f"{name} has no {_LOADER.upper()} on its EFI system partition (there: {found})",
                hint="a machine without boot entries starts nothing else",
            )
        if self.cloud_init is False:
            raise UnfitImage(
                "image.no-cloud-init",
                f"{name} ({self.title or 'no os-release'}) has no cloud-init",
                hint="take the vendor's cloud image; the lab reaches a machine by its cloud-init",
            )

    def lines(self) -> Iterator[str]:
        """All of it for people, and what could not be told."""
        yield f"table       {self.table}: {self._layout()}"
        yield f"EFI         {', '.join(self.loaders) or 'no program'}"
        yield f"system      {self.title or self.family or 'not known'}"
        yield f"kernels     {', '.join(self.kernels) or 'not known'}"
        known = {True: "there", False: "not there", None: "not known"}
        yield f"cloud-init  {known[self.cloud_init]}"
        for sentence in self.untold:
            yield f"not told    {sentence}"

    def _layout(self) -> str:
        words = [
            f"{p.number} {'ESP' if p.esp else p.holds or 'unknown'} {p.size >> 20} MiB"
            for p in self.partitions
        ]
        return ", ".join(words) or "no partitions"


def inspect(disk: Path, name: str) -> Inspection:
    """Look at a raw disk. Raises :class:`BadImage` where it is none; ``name`` is for messages."""
    with disk.open("rb") as file:
        table, partitions = _table(file, name)
    untold: list[str] = []
    loaders: tuple[str, ...] = ()
    for part in partitions:
        if part.esp:
            loaders = _programs(disk, part, untold)
    told: dict[str, str] = {}
    kernels: tuple[str, ...] = ()
    cloud_init: bool | None = None
    for part in partitions:
        if part.holds != "ext4":
            continue
        tree = f"{disk}?offset={part.start}"
        text = next(filter(None, (_ask(tree, "cat", f"/{path}") for path in _OS_RELEASE)), "")
        if text:
            told = _pairs(text)
            listed = _ask(tree, "ls -p", "/usr/lib/modules") or _ask(tree, "ls -p", "/lib/modules")
            kernels = tuple(sorted(_names(listed)))
            cloud_init = "Inode:" in _ask(tree, "stat", "/usr/bin/cloud-init")
    if not told:
        kinds = sorted({p.holds for p in partitions if not p.esp and p.holds not in ("", "ext4")})
        which = f"on {' or '.join(kinds)}" if kinds else "on no file system that is known here"
        untold.append(
            f"its root file system is {which}, which only a booted machine can read: system, "
            "kernel and whether there is cloud-init are seen then"
        )
    return Inspection(
        table,
        partitions,
        loaders,
        family=told.get("ID", ""),
        version=told.get("VERSION_ID", ""),
        title=told.get("PRETTY_NAME", ""),
        kernels=kernels,
        cloud_init=cloud_init,
        untold=tuple(untold),
    )


def _table(file: BinaryIO, name: str) -> tuple[str, tuple[Partition, ...]]:
    head = _read(file, 0, 512)
    if head[510:512] != b"\x55\xaa":
        raise BadImage(
            "image.not-a-disk",
            f"{name} is no disk image: it begins with no partition table",
            hint="a qcow2 or raw image of a whole disk is wanted; unpack one that is compressed",
        )
    for sector in _SECTORS:
        header = _read(file, sector, 92)
        if header[:8] == b"EFI PART":
            return "GPT", tuple(_of_gpt(file, header, sector))
    return "MBR", tuple(_of_mbr(file, head))


def _of_gpt(file: BinaryIO, header: bytes, sector: int) -> Iterator[Partition]:
    """The entries of a GUID partition table (UEFI 2.10, 5.3.2 and 5.3.3)."""
    first = int.from_bytes(header[72:80], "little") * sector
    count, size = (int.from_bytes(header[at : at + 4], "little") for at in (80, 84))
    for number in range(min(count, 1024)):
        entry = _read(file, first + number * size, 48)
        kind = uuid.UUID(bytes_le=entry[:16])
        if kind.int == 0:
            continue
        start, end = (int.from_bytes(entry[at : at + 8], "little") for at in (32, 40))
        yield _partition(file, number + 1, start * sector, (end + 1) * sector, kind == _ESP)


def _of_mbr(file: BinaryIO, head: bytes) -> Iterator[Partition]:
    for number in range(4):
        entry = head[446 + number * 16 : 462 + number * 16]
        start, size = (int.from_bytes(entry[at : at + 4], "little") * 512 for at in (8, 12))
        if size and entry[4] not in (0, _MBR_PROTECTIVE):
            yield _partition(file, number + 1, start, start + size, entry[4] == _MBR_ESP)


def _partition(file: BinaryIO, number: int, start: int, end: int, esp: bool) -> Partition:
    holds = next((k for k, at, word in _MAGIC if _read(file, start + at, len(word)) == word), "")
    return Partition(number, start, end - start, esp, holds)


def _read(file: BinaryIO, offset: int, size: int) -> bytes:
    file.seek(offset)
    return file.read(size).ljust(size, b"\0")


def _programs(disk: Path, part: Partition, untold: list[str]) -> tuple[str, ...]:
    """The EFI programs on an ESP, by their path, in lower case."""
    done = _run(["mdir", "-i", f"{disk}@@{part.start}", "-/", "-b", "::/"])
    if done.returncode:
        untold.append(f"its EFI system partition cannot be read: {done.stderr.strip()[-200:]}")
        return ()
    paths = (line.strip().removeprefix("::/").lower() for line in done.stdout.splitlines())
    return tuple(sorted(path for path in paths if path.endswith(".efi")))


def _ask(tree: str, request: str, path: str) -> str:
    """What debugfs(8) answers, "" if it cannot."""
    return _run(["debugfs", "-R", f"{request} {path}", tree]).stdout


def _names(listed: str) -> list[str]:
    """The names of a directory as ``ls -p`` of debugfs prints it: /INODE/MODE/UID/GID/NAME/SIZE/"""
    names = [line.split("/")[5] for line in listed.splitlines() if line.count("/") >= 6]
    return [name for name in names if name not in (".", "..")]


def _pairs(text: str) -> dict[str, str]:
    """The assignments of os-release(5)."""
    found = re.findall(r"^([A-Z_]+)=(.*)$", text, re.MULTILINE)
    return {key: "".join(shlex.split(value)[:1]) for key, value in found}


def _run(argv: list[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            argv, capture_output=True, text=True, errors="replace", env=host_env(), check=False
        )
    except FileNotFoundError as error:
        raise InfraError(f"{argv[0]} is not installed", hint="airlock doctor --fix") from error
