"""What a run leaves behind when it dies: at once, or with the machine's power.

A disk keeps only what was synced: a file's content since its last fsync, a directory's entries
since its own. ``Disk`` notes both while a run works and can write down what would be left.
"""

from __future__ import annotations

import os
import shutil
import signal
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from installers import host, journal

#: How a run dies. ``lost``: all that was not synced is gone. ``torn``: every directory is as it
#: was at the end, and files that were not synced are empty.
WAYS = ("killed", "lost", "torn")


@dataclass
class _File:
    content: bytes
    status: os.stat_result


class Disk:
    """The durable side of a tree, by inode."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.files: dict[int, _File] = {}
        self.entries: dict[int, dict[str, int]] = {}
        self.links: dict[int, str] = {}
        self.directories: dict[int, os.stat_result] = {}
        # An open inode's number is not given to another file.
        self._held: list[int] = []
        self.everything()

    def everything(self) -> None:
        """All that is there now survives."""
        self._directory(self.root)
        for top, names, files in os.walk(self.root):
            for name in names:
                self._directory(Path(top) / name)
            for name in files:
                path = Path(top) / name
                if stat.S_ISREG(path.lstat().st_mode):
                    descriptor = os.open(path, os.O_RDONLY)
                    self._held.append(descriptor)
                    self.synced(descriptor)

    def synced(self, descriptor: int) -> None:
        """What fsync promises for a file or a directory."""
        path = Path(f"/proc/self/fd/{descriptor}")
        status = os.fstat(descriptor)
        if stat.S_ISDIR(status.st_mode):
            self._directory(path.readlink())
        else:
            self._held.append(os.dup(descriptor))
            self.files[status.st_ino] = _File(path.read_bytes(), status)

    def _directory(self, path: Path) -> None:
        if path.is_symlink() or not path.is_dir():
            return
        entries: dict[str, int] = {}
        for entry in os.scandir(path):
            inode = entry.inode()
            entries[entry.name] = inode
            if entry.is_symlink():
                # The target of a link comes to the disk with its entry.
                self.links[inode] = str(Path(entry.path).readlink())
            elif entry.is_dir(follow_symlinks=False):
                self.directories.setdefault(inode, entry.stat(follow_symlinks=False))
        self.directories[path.stat().st_ino] = path.stat()
        self.entries[path.stat().st_ino] = entries

    def leave(self, target: Path, *, torn: bool) -> None:
        """Write down what the disk holds; ``/run`` was in memory, devices stay."""
        if torn:
            self._tear()
        target.mkdir()
        self._write(self.root.stat().st_ino, target)
        shutil.rmtree(target / "run", ignore_errors=True)
        (target / "run").mkdir()
        shutil.rmtree(target / "dev")
        (target / "dev").mkdir()
        os.mknod(target / "dev/null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))

    def _tear(self) -> None:
        """Entries as they are, contents as they were synced or not at all."""
        for top, names, _ in os.walk(self.root):
            self._directory(Path(top))
            for name in names:
                self._directory(Path(top) / name)

    def _write(self, directory: int, target: Path) -> None:
        _own(target, self.directories[directory])
        for name, inode in self.entries.get(directory, {}).items():
            path = target / name
            if inode in self.links:
                path.symlink_to(self.links[inode])
            elif inode in self.directories:
                path.mkdir()
                self._write(inode, path)
            elif inode in self.files:
                path.write_bytes(self.files[inode].content)
                _own(path, self.files[inode].status)
            else:
                path.write_bytes(b"")


def _own(path: Path, status: os.stat_result) -> None:
    os.chown(path, status.st_uid, status.st_gid)
    path.chmod(stat.S_IMODE(status.st_mode))


def arm(root: Path, line: int, when: str, way: str, survivor: Path) -> None:
    """From now on die at journal line ``line`` (from 0), ``before`` or ``after`` it is written.

    ``survivor`` is made in the ways ``lost`` and ``torn``: what the disk holds then.
    """
    disk = None if way == "killed" else Disk(root)
    write, fsync, sync = journal.Journal.write, os.fsync, host.syncfs
    left = line

    def die() -> None:
        if disk is not None:
            disk.leave(survivor, torn=way == "torn")
        os.kill(os.getpid(), signal.SIGKILL)

    def counted(self: journal.Journal, *args: Any, **data: Any) -> None:
        nonlocal left
        if left == 0 and when == "before":
            die()
        write(self, *args, **data)
        if left == 0:
            die()
        left -= 1

    def noted(descriptor: int) -> None:
        fsync(descriptor)
        if disk is not None:
            disk.synced(descriptor)

    def all_noted(descriptor: int) -> None:
        sync(descriptor)
        if disk is not None:
            disk.everything()

    journal.Journal.write = counted  # type: ignore[method-assign]
    os.fsync = noted  # type: ignore[assignment]
    host.syncfs = all_noted
