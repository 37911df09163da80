"""Packs ``installers/`` into ``airlock-node.pyz``, the one file that is copied to a node."""

from __future__ import annotations

import hashlib
import io
import os
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import installers

NAME = "airlock-node.pyz"
#: In front of the archive: finds a Python, so that ``sh airlock-node.pyz`` works on any node.
_HEADER = "header.sh"
_MAIN = b"import sys\n\nfrom installers.__main__ import main\n\nsys.exit(main())\n"
_SUFFIXES = frozenset({".py", ".json"})
# The first moment a zip file can tell.
_EPOCH = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class Packed:
    """A packed node file and its fingerprint (hex), which names it in reports."""

    path: Path
    sha256: str


def pack(into: Path, source: Path | None = None) -> Packed:
    """The node file of ``source`` (default: our own ``installers``) in the directory ``into``.

    Kept by content, so a second call with the same sources writes nothing. The same sources give
    the same bytes everywhere: entries are sorted, undated, and stored, since what zlib compresses
    differs from version to version.
    """
    data = _archive(source or Path(str(installers.__file__)).parent)
    sha256 = hashlib.sha256(data).hexdigest()
    path = into / sha256[:16] / NAME
    if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
        # mkstemp makes it private; a node runs it as any user.
        Path(temporary).chmod(0o755)
        Path(temporary).replace(path)
    return Packed(path, sha256)


def _archive(source: Path) -> bytes:
    files = sorted(
        path.relative_to(source.parent).as_posix()
        for path in source.rglob("*")
        if path.suffix in _SUFFIXES and "__pycache__" not in path.parts and path.is_file()
    )
    # A zip file is read from its end: whatever comes before it does not matter to Python.
    buffer = io.BytesIO((source / _HEADER).read_bytes())
    buffer.seek(0, io.SEEK_END)
    with zipfile.ZipFile(buffer, "a", zipfile.ZIP_STORED) as archive:
        _add(archive, "__main__.py", _MAIN)
        for name in files:
            _add(archive, name, (source.parent / name).read_bytes())
    return buffer.getvalue()


def _add(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    entry = zipfile.ZipInfo(name, _EPOCH)
    entry.create_system = 3
    entry.external_attr = 0o644 << 16
    archive.writestr(entry, data)
