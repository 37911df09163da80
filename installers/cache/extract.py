"""Unpacking an archive that somebody else may have made: everything is checked before anything.

Stricter than tarfile's own filters, which not every Python 3.9 has, and which follow links that
the archive made itself. An archive of ours has no need of any of what is refused here.
"""

from __future__ import annotations

import os
import posixpath
import shutil
import tarfile
import tempfile
from pathlib import Path
from typing import Optional

from installers.cache.store import TamperedError, disk_error

#: Above these an archive is somebody's attempt to fill the disk. Bytes, and number of members.
MAX_BYTES = 64 << 30
MAX_MEMBERS = 2_000_000
_BLOCK = 1 << 20
_MODE = 0o755  # nobody gets a set-id bit, or write access for others, from an archive


def unpack(
    archive: Path, into: Path, *, max_bytes: int = MAX_BYTES, max_members: int = MAX_MEMBERS
) -> int:
    """Unpack a tar file (plain, gz, bz2, xz) as the new directory ``into``; how many members.

    All or nothing. Owner is who runs this; modes keep their execute bits. Raises TamperedError for
    an absolute name, ``..``, a link that leads out, something below a link, a device, an entry
    twice, or more than the limits; NodeError when the disk is full or ``into`` is there.
    """
    try:
        into.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{into.name}-", dir=into.parent))
        try:
            with tarfile.open(archive, "r:*", errorlevel=2) as tar:
                members = _checked(tar, max_bytes, max_members)
                for name, member in members.items():
                    _write(tar, member, name, scratch)
            # mkdtemp makes it private, and rename(2) takes an empty directory for no directory.
            scratch.chmod(_MODE)
            if into.exists():
                raise FileExistsError(17, "is there already", str(into))
            scratch.rename(into)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    except tarfile.TarError as wrong:
        raise TamperedError(f"cannot be unpacked: {wrong}", where=archive.name) from wrong
    except (EOFError, ValueError, UnicodeError) as wrong:
        raise TamperedError(f"is damaged: {wrong}", where=archive.name) from wrong
    except OSError as error:
        raise disk_error(error, into) from error
    return len(members)


def _checked(tar: tarfile.TarFile, max_bytes: int, max_members: int) -> dict[str, tarfile.TarInfo]:
    """Every member by its clean name. TamperedError for the first that must not be."""
    found: dict[str, tarfile.TarInfo] = {}
    parents: set[str] = set()  # directories that exist because something is in them
    size = 0
    for member in tar:
        name = _clean(member.name)
        size += member.size if member.isreg() else 0
        if name == "." and member.isdir():
            continue
        why = _against(name, member, found)
        if why is None and name in parents and not member.isdir():
            why = "is there twice"
        if why is None and (size > max_bytes or len(found) >= max_members):
            why = f"is more than {max_bytes} bytes or {max_members} members"
        if why is not None:
            raise TamperedError(f"{member.name[:200]!r} {why}", where=str(tar.name))
        found[name] = member
        while (name := posixpath.dirname(name)) and name not in parents:
            parents.add(name)
    return found


def _against(
    name: str, member: tarfile.TarInfo, found: dict[str, tarfile.TarInfo]
) -> Optional[str]:
    """Why a member must not be unpacked, None when it may."""
    if member.name.startswith("/"):
        return "has an absolute name"
    if ".." in name.split("/") or name in ("", ".") or "\0" in name:
        return "leads out of the directory, or has no name"
    if name in found and not (member.isdir() and found[name].isdir()):
        return "is there twice"
    parent = posixpath.dirname(name)
    while parent:
        if parent in found and not found[parent].isdir():
            return "lies below something that is no directory"
        parent = posixpath.dirname(parent)
    if member.issym():
        return _against_link(name, member.linkname)
    if member.islnk():
        target = found.get(_clean(member.linkname))
        return None if target is not None and target.isreg() else "links to no file of the archive"
    return None if member.isreg() or member.isdir() else "is neither file, directory nor link"


def _against_link(name: str, target: str) -> Optional[str]:
    """A link may climb only at its beginning, and not above the directory.

    Its own parents are real directories, so the climb is what it looks like; whatever it passes
    through afterwards is a link that was judged by the same rule.
    """
    parts = [part for part in target.split("/") if part not in ("", ".")]
    climb = 0
    while climb < len(parts) and parts[climb] == "..":
        climb += 1
    if target.startswith("/") or "\0" in target or ".." in parts[climb:] or climb > name.count("/"):
        return "is a link that leads out of the directory"
    return None


def _clean(name: str) -> str:
    """The name without ``.`` parts and doubled slashes; ``..`` stays, to be refused."""
    return "/".join(part for part in name.split("/") if part not in ("", ".")) or "."


def _write(tar: tarfile.TarFile, member: tarfile.TarInfo, name: str, root: Path) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True, mode=_MODE)
    if member.isdir():
        path.mkdir(mode=_MODE, exist_ok=True)
    elif member.issym():
        path.symlink_to(member.linkname)
    elif member.islnk():
        os.link(root / _clean(member.linkname), path, follow_symlinks=False)
    else:
        source = tar.extractfile(member)
        if source is None:
            raise TamperedError(f"{name!r} has no content", where=str(tar.name))
        with source, path.open("xb") as out:
            shutil.copyfileobj(source, out, _BLOCK)
        path.chmod(0o644 | (member.mode & 0o111))
