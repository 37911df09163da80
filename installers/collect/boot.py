"""What the next boot takes: kernels with their initramfs, modprobe's settings, DKMS's modules.

Sources: /boot, /lib/modules/*/modules.dep, modprobe.d(5), /var/lib/dkms; PE files by Microsoft's
"PE Format" (the security directory holds an Authenticode signature).
"""

# ruff: noqa: PTH116, PTH123 - paths come as text and go as text
from __future__ import annotations

import os
import re
import struct
from typing import Any, Optional

from installers.collect import modules
from installers.collect.reader import Reader

BOOT = "/boot"
DKMS = "/var/lib/dkms"
# In the order of their precedence: a file hides those of the same name in later folders.
MODPROBE = ("/etc/modprobe.d", "/run/modprobe.d", "/usr/lib/modprobe.d", "/lib/modprobe.d")
_INITRDS = ("initrd.img-{}", "initramfs-{}.img", "initrd-{}")
# cpio (an uncompressed beginning holds microcode), gzip, zstd, xz, lz4, lzma.
_ARCHIVES = (
    b"0707",
    b"\x1f\x8b",
    b"\x28\xb5\x2f\xfd",
    b"\xfd7zXZ",
    b"\x02\x21\x4c\x18",
    b"\x5d\0\0",
)
_PE32_PLUS, _SECURITY = 0x20B, 4
_HEAD = 4096
_SHOWN = 10


def collect(reader: Reader, seen: modules.Seen) -> dict[str, Any]:
    """``kernels``: one object for each folder of modules, see _kernel. ``modprobe``: names that are
    blacklisted, commands that stand in for loading (``install``), and files that are passed over
    (``ignored``). ``dkms``: [{"module", "version", "kernels"}], those that it was built for.
    """
    releases = [name for name in reader.names(modules.TREE) if _folder(reader, modules.TREE, name)]
    return {
        "kernels": [_kernel(reader, release, seen) for release in releases],
        "modprobe": _modprobe(reader),
        "dkms": _dkms(reader),
    }


def _folder(reader: Reader, *parts: str) -> bool:
    return os.path.isdir(reader.path("/".join(parts)))  # noqa: PTH112


def _kernel(reader: Reader, release: str, seen: modules.Seen) -> dict[str, Any]:
    """``release``; ``image`` and ``initrd``: path and size in bytes, or None; ``signed``: whether
    the image has a signature, None where it is no PE file; ``archive``: whether the initramfs
    begins as one; ``unlisted``: modules that depmod has not seen; ``lost``: those it has seen, that
    are not there.
    """
    image = f"{BOOT}/vmlinuz-{release}"
    initrds = [f"{BOOT}/{name.format(release)}" for name in _INITRDS]
    initrd = next((path for path in initrds if _size(reader, path) is not None), None)
    return {
        "release": release,
        "image": _file(reader, image),
        "signed": signed(_head(reader, image)),
        "initrd": _file(reader, initrd),
        "archive": _head(reader, initrd).startswith(_ARCHIVES) if initrd else None,
        **_listed(reader, release, seen),
    }


def _file(reader: Reader, path: Optional[str]) -> Optional[dict[str, Any]]:
    size = None if path is None else _size(reader, path)
    return None if size is None else {"path": path, "size": size}


def _size(reader: Reader, path: str) -> Optional[int]:
    try:
        return os.stat(reader.path(path)).st_size
    except OSError:
        return None


def _head(reader: Reader, path: str, size: int = _HEAD) -> bytes:
    try:
        with open(reader.path(path), "rb", buffering=0) as file:
            return file.read(size)
    except OSError:
        return b""


def signed(head: bytes) -> Optional[bool]:
    """Whether a PE file has a signature, by its first bytes; None for what is no PE file."""
    try:
        optional = _optional(head)
        _, size = struct.unpack_from("<II", head, optional + 112 + 8 * _SECURITY)
    except (struct.error, ValueError):
        return None
    return bool(size)


def section(head: bytes, name: bytes) -> Optional[tuple[int, int]]:
    """(offset, size) of a section of a PE file, by its first bytes; None where it has none."""
    try:
        optional = _optional(head)
        (count,) = struct.unpack_from("<H", head, optional - 18)
        (length,) = struct.unpack_from("<H", head, optional - 4)
        for row in range(count):
            at = optional + length + 40 * row
            size, _, raw, offset = struct.unpack_from("<IIII", head, at + 8)
            if head[at : at + 8].rstrip(b"\0") == name:
                return offset, min(size, raw)
    except (struct.error, ValueError):
        return None
    return None


def _optional(head: bytes) -> int:
    """Where the optional header is; ValueError for what is no 64-bit PE file."""
    (start,) = struct.unpack_from("<I", head, 0x3C)
    if head[:2] != b"MZ" or head[start : start + 4] != b"PE\0\0":
        raise ValueError("no PE file")
    at: int = start + 24
    if struct.unpack_from("<H", head, at)[0] != _PE32_PLUS:
        raise ValueError("no 64-bit PE file")
    return at


def _listed(reader: Reader, release: str, seen: modules.Seen) -> dict[str, list[str]]:
    top = f"{modules.TREE}/{release}"
    real = reader.path(top)
    found: list[str] = []
    modules.walk(real, seen, found)
    there = {path[len(real) + 1 :] for path in found}
    lines = (reader.text(f"{top}/modules.dep") or "").splitlines()
    known = {line.partition(":")[0] for line in lines}
    return {
        "unlisted": sorted(there - known)[:_SHOWN],
        "lost": sorted(known - there)[:_SHOWN],
    }


def _modprobe(reader: Reader) -> dict[str, Any]:
    files: dict[str, str] = {}
    ignored = []
    for folder in MODPROBE:
        for name in reader.names(folder):
            if name.endswith(".conf"):
                files.setdefault(name, f"{folder}/{name}")
            elif name != "README":
                ignored.append(f"{folder}/{name}")
    blacklist: set[str] = set()
    install = {}
    for path in files.values():
        text = reader.text(path) or ""
        for line in re.sub(r"\\\n", " ", text).splitlines():
            words = line.split()
            if len(words) > 1 and words[0] == "blacklist":
                blacklist.add(words[1].replace("-", "_"))
            elif len(words) > 2 and words[0] == "install":
                install[words[1].replace("-", "_")] = f"{path}: {' '.join(words)}"
    return {"blacklist": sorted(blacklist), "install": install, "ignored": sorted(set(ignored))}


def _dkms(reader: Reader) -> list[dict[str, Any]]:
    found = []
    for module in reader.names(DKMS):
        for version in reader.names(f"{DKMS}/{module}"):
            place = f"{DKMS}/{module}/{version}"
            # kernel-RELEASE-ARCH are links to what was installed last; others are mok.key and such.
            if version.startswith("kernel-") or not _folder(reader, place):
                continue
            built = [
                name
                for name in reader.names(place)
                if name not in ("source", "build") and _folder(reader, place, name)
            ]
            found.append({"module": module, "version": version, "kernels": built})
    return found
