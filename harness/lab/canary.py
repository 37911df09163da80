"""Looks for secrets in a disk image, byte by byte: what is not there cannot leak from there."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from harness.lab.namespace import host_env
from installers.collect.search import forms

# The superblock of ext2 and its heirs (the kernel's Documentation/filesystems/ext4/super.rst).
_SUPER, _BLOCK_SIZE, _MAGIC = 1024, 24, 56
_CHUNK = 8 << 20


def search(image: Path, secrets: Mapping[str, bytes]) -> list[dict[str, Any]]:
    """Where the named secrets occur: [{"name", "offset", "path"}], one entry at most for each form.

    Holes of a sparse file are skipped. ``path`` is the file of an ext4 image that the byte belongs
    to; empty where none owns it.
    """
    wanted = {form: name for name, secret in secrets.items() for form in forms(secret).values()}
    found: dict[bytes, int] = {}
    overlap = max((len(form) for form in wanted), default=1) - 1
    with image.open("rb") as file:
        for start, end in _data(file.fileno()):
            tail = b""
            file.seek(start)
            at = start
            while at < end and (part := file.read(min(_CHUNK, end - at))):
                window = tail + part
                for form in wanted:
                    if form not in found and (place := window.find(form)) >= 0:
                        found[form] = at - len(tail) + place
                tail = window[-overlap:] if overlap else b""
                at += len(part)
    return [
        {"name": wanted[form], "offset": offset, "path": _owner(image, offset)}
        for form, offset in sorted(found.items())
    ]


def _owner(image: Path, offset: int) -> str:
    """The path of the file that a byte of an ext4 image belongs to (debugfs(8)), or ``""``."""
    with image.open("rb") as file:
        file.seek(_SUPER)
        head = file.read(64)
    if head[_MAGIC : _MAGIC + 2] != b"\x53\xef":
        return ""
    block = 1024 << int.from_bytes(head[_BLOCK_SIZE : _BLOCK_SIZE + 4], "little")
    inode = _last_word(image, f"icheck {offset // block}")
    path = _last_word(image, f"ncheck {inode}") if inode.isdecimal() else ""
    return path if path.startswith("/") else ""


def _last_word(image: Path, request: str) -> str:
    """What debugfs answers below its heading: NUMBER, white space, the answer."""
    done = subprocess.run(
        ["debugfs", "-R", request, str(image)],
        capture_output=True,
        text=True,
        errors="replace",
        env=host_env(),
        check=False,
    )
    found = re.search(r"^\d+\s+(\S.*)$", done.stdout, re.MULTILINE)
    return found[1].strip() if found else ""


def blacken(directory: Path, secrets: Mapping[str, bytes]) -> list[str]:
    """Overwrite the secrets in the files of a directory; returns the names of those files.

    Evidence holds what a node really sent: a capture has the proxy's password, in the header that
    every request carries. Lengths stay as they are, so that captures can still be read.
    """
    touched = []
    for path in sorted(directory.iterdir()):
        if not path.is_file() or path.is_symlink():
            continue
        data = path.read_bytes()
        clean = blackened(data, secrets)
        if clean != data:
            path.write_bytes(clean)
            touched.append(path.name)
    return touched


def blackened(data: bytes, secrets: Mapping[str, bytes]) -> bytes:
    """``data`` with stars in place of the secrets, whatever form they have in it."""
    for secret in secrets.values():
        for form in forms(secret).values():
            data = data.replace(form, b"*" * len(form))
    return data


def _data(fd: int) -> Iterator[tuple[int, int]]:
    """The extents of a file that hold data (lseek(2), SEEK_DATA)."""
    size, at = os.fstat(fd).st_size, 0
    while at < size:
        try:
            start = os.lseek(fd, at, os.SEEK_DATA)
        except OSError:
            return  # ENXIO: only a hole is left
        at = os.lseek(fd, start, os.SEEK_HOLE)
        yield start, at
