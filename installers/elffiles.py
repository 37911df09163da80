"""Every ELF file of a folder, a wheel, a package or an image, and the versions it names."""

from __future__ import annotations

import json
import os
import re
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Optional, Union

from installers import unpacking
from installers.elf import ELFError
from installers.elfversions import FIRST, Read, Versions, versions

#: What one ELF file tells, or why it cannot be read.
Found = Union[Versions, str]
# The same of a member of an archive; None for one that is no ELF file.
_Entry = Optional[Found]

_MAGIC = b"\x7fELF"
_KEEP = 64 << 20  # larger members of archives go to the disk
_GUARD = 32 << 30  # and nothing is larger than this
_WHITEOUT = ".wh."  # OCI image specification, layer.md
_OPAQUE = ".wh..wh..opq"
#: Of uname(2) -> as images name it.
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def read(place: Path) -> dict[str, Found]:
    """Path inside of the source -> what the ELF file there tells.

    Sources: a folder, an ELF file, a zip (a wheel), a Debian package, a tar, an image as an OCI
    layout (a folder or a tar) or as ``docker save`` writes it. Whatever the standard library raises
    for a broken archive comes through, and unpacking.Damaged.
    """
    if place.is_dir():
        if (place / "oci-layout").is_file():
            return _image(Blobs(place))
        return dict(_walk(str(place), ""))
    with place.open("rb") as file:
        head = file.read(8)
        if head[:4] == _MAGIC:
            return {place.name: _versions(_reader(file))}
        file.seek(0)
        if head[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
            return dict(_zip(file))
        if head == unpacking.AR_MAGIC:
            with unpacking.deb_data(file) as data:
                return _present(_tar(data))
        return _from_tar(place, file)


def _from_tar(place: Path, file: IO[bytes]) -> dict[str, Found]:
    """An image, or the tar of a file system, packed or not."""
    file.seek(0)
    with unpacking.plain(file) as stream:
        first = stream.read(512)
    if first[257:262] != b"ustar":
        raise unpacking.Damaged("is neither a folder, an ELF file, nor an archive that is known")
    with tempfile.TemporaryFile() as copy:
        whole = file
        file.seek(0)
        if file.read(512) != first:  # packed: an image's parts are read in an order of their own
            file.seek(0)
            with unpacking.plain(file) as stream:
                _copy(stream, copy)
            whole = copy
        whole.seek(0)
        with tarfile.open(fileobj=whole, mode="r:") as archive:
            if {"manifest.json", "oci-layout"} & set(archive.getnames()):
                return _image(Blobs(place, archive))
        whole.seek(0)
        return _present(_tar(whole))


def _copy(stream: IO[bytes], into: IO[bytes]) -> None:
    """Damaged for more than any image holds: a megabyte of zeros packs into a thousand bytes."""
    size = 0
    while piece := stream.read(1 << 20):
        size += len(piece)
        if size > _GUARD:
            raise unpacking.Damaged(f"holds more than {_GUARD >> 30} GiB")
        into.write(piece)


def _walk(top: str, below: str) -> Iterator[tuple[str, Found]]:
    """Every ELF file of a folder. Strings, no Paths: there may be tens of thousands."""
    folders = []
    with os.scandir(f"{top}/{below}" if below else top) as entries:
        for entry in entries:
            path = f"{below}/{entry.name}" if below else entry.name
            if entry.is_dir(follow_symlinks=False):
                folders.append(path)
            elif entry.is_file(follow_symlinks=False):
                try:
                    descriptor = os.open(entry.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
                except OSError as error:
                    yield path, error.strerror or str(error)
                    continue
                try:
                    head = os.pread(descriptor, FIRST, 0)
                    if head.startswith(_MAGIC):
                        yield path, _versions(_by_descriptor(descriptor, head))
                finally:
                    os.close(descriptor)
    for path in folders:
        yield from _walk(top, path)


def _by_descriptor(descriptor: int, head: bytes) -> Read:
    """``head``: what has been read already, and is asked for first."""

    def read(size: int, offset: int) -> bytes:
        if offset == 0 and size == FIRST:
            return head
        return os.pread(descriptor, size, offset)

    return read


def _reader(file: IO[bytes]) -> Read:
    def read(size: int, offset: int) -> bytes:
        file.seek(offset)
        return file.read(size)

    return read


def _versions(read: Read) -> Found:
    try:
        return versions(read)
    except ELFError as error:
        return str(error)


def _member(file: IO[bytes]) -> Optional[Found]:
    """Of a member of an archive that can only be read forward; None where it is no ELF file."""
    head = file.read(4)
    if head != _MAGIC:
        return None
    with tempfile.SpooledTemporaryFile(max_size=_KEEP) as copy:
        copy.write(head)
        _copy(file, copy)
        return _versions(_reader(copy))


def _zip(file: IO[bytes]) -> Iterator[tuple[str, Found]]:
    with zipfile.ZipFile(file) as archive:
        for info in archive.infolist():
            if not info.is_dir():
                with archive.open(info) as member:
                    found = _member(member)
                if found is not None:
                    yield info.filename, found


def _tar(stream: IO[bytes]) -> dict[str, _Entry]:
    """What a tar holds, by paths without a leading ``./``; whiteouts among it."""
    found: dict[str, _Entry] = {}
    with tarfile.open(fileobj=stream, mode="r|") as archive:
        for member in archive:
            path = _inside(member.name)
            file = archive.extractfile(member) if member.isreg() else None
            if file is not None:
                found[path] = _member(file)
            elif member.islnk():
                found[path] = found.get(_inside(member.linkname))
            elif not member.isdir():
                found[path] = None
    return found


def _inside(name: str) -> str:
    return os.path.normpath(name.lstrip("/"))


def _present(found: dict[str, _Entry]) -> dict[str, Found]:
    return {path: entry for path, entry in found.items() if entry is not None}


def _stacked(layers: Iterator[IO[bytes]]) -> dict[str, Found]:
    """What is left when each layer lies on those before it: files replaced, hidden, kept."""
    whole: dict[str, _Entry] = {}
    for layer in layers:
        with unpacking.plain(layer) as stream:
            upper = _tar(stream)
        for path in upper:
            folder, _, name = path.rpartition("/")
            if name.startswith(_WHITEOUT):
                hidden = folder if name == _OPAQUE else f"{folder}/{name[len(_WHITEOUT) :]}"
                hidden = hidden.lstrip("/")
                below = f"{hidden}/" if hidden else ""
                gone = [old for old in whole if old == hidden or old.startswith(below)]
                for old in gone:
                    del whole[old]
        for path, entry in upper.items():
            if not path.rpartition("/")[2].startswith(_WHITEOUT):
                whole[path] = entry
    return _present(whole)


def _image(blobs: Blobs) -> dict[str, Found]:
    """The files of an image: docker's manifest.json, or an OCI layout's index.json."""
    saved = blobs.json("manifest.json")
    if saved is not None:
        names = [str(name) for name in saved[0]["Layers"]]
    else:
        names = _layers(blobs, blobs.json("index.json"), 0)
    return _stacked(blobs.open(name) for name in names)


def _layers(blobs: Blobs, index: Any, depth: int) -> list[str]:
    """Layers of the image for this machine, or of the only one (OCI image specification)."""
    if "layers" in index:
        return [_blob(layer["digest"]) for layer in index["layers"]]
    if depth > 3:
        raise unpacking.Damaged("its index leads to an index, and that to another")
    mine = _ARCHITECTURES.get(os.uname().machine)
    of = index["manifests"]
    fit = [one for one in of if (one.get("platform") or {}).get("architecture") in (mine, None)]
    chosen = (fit or of)[0]
    return _layers(blobs, blobs.json(_blob(chosen["digest"])), depth + 1)


def _blob(digest: str) -> str:
    kind, _, value = str(digest).partition(":")
    if not re.fullmatch(r"\w+", kind) or not re.fullmatch(r"[0-9a-f]{32,128}", value):
        raise unpacking.Damaged(f"{digest!r} is no digest")
    return f"blobs/{kind}/{value}"


class Blobs:
    """The parts of an image: files of a folder, or members of a tar that can be sought in."""

    def __init__(self, place: Path, archive: Optional[tarfile.TarFile] = None) -> None:
        self.place = place
        self.archive = archive

    def open(self, name: str) -> IO[bytes]:
        """One part. Damaged where it is not there."""
        try:
            if self.archive is None:
                return (self.place / name).open("rb")
            found = self.archive.extractfile(name)
        except (KeyError, FileNotFoundError):
            found = None
        if found is None:
            raise unpacking.Damaged(f"lacks {name}")
        return found

    def json(self, name: str) -> Any:
        """One part that is JSON; None where manifest.json is not there."""
        if name == "manifest.json" and not self.has(name):
            return None
        with self.open(name) as file:
            return json.loads(file.read(_KEEP))

    def has(self, name: str) -> bool:
        """Whether there is a part of this name."""
        if self.archive is None:
            return (self.place / name).is_file()
        return name in self.archive.getnames()
