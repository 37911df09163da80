"""When a tree's configuration first named the proxy: a program of its own, told by inotify(7).

``python3 -I proxywatch.py TREE NEEDLE`` prints ``ready``, and at the first file below TREE/etc or
TREE/root that holds NEEDLE one line of JSON, ``{"path", "time"}``; it ends when its input does.
Our own installers journal when they have set the proxy. Somebody else's script does not, and what
it has asked before that is what a locked-down network stops.

The time is the file's ctime: nobody can set it, and an event may be read late on a busy machine.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

_WATCHED = ("etc", "root")
_CLOSE_WRITE, _MOVED_TO, _CREATE = 0x8, 0x80, 0x100
_ONLYDIR, _DONT_FOLLOW, _ISDIR = 0x01000000, 0x02000000, 0x40000000
_EVENT = struct.Struct("iIII")
_LARGEST = 1 << 20
_libc = ctypes.CDLL(None, use_errno=True)


class _Watch:
    def __init__(self, tree: Path, needle: bytes) -> None:
        self.inotify = _libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
        if self.inotify < 0:
            raise OSError(ctypes.get_errno(), "inotify_init1")
        self._tree, self._needle = tree, needle
        self._folders: dict[int, Path] = {}

    def add(self, folder: Path) -> Iterator[Path]:
        """Watch a folder and what is below it; the files that are there already."""
        mask = _CLOSE_WRITE | _MOVED_TO | _CREATE | _ONLYDIR | _DONT_FOLLOW
        number = _libc.inotify_add_watch(self.inotify, os.fsencode(folder), mask)
        if number < 0:
            return  # gone again, or no folder
        self._folders[number] = folder
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    yield from self.add(Path(entry.path))
                elif entry.is_file(follow_symlinks=False):
                    yield Path(entry.path)

    def events(self) -> Iterator[Path]:
        """Files that were written, moved or made since the last call."""
        try:
            data = os.read(self.inotify, 1 << 16)
        except BlockingIOError:
            return
        at = 0
        while at < len(data):
            number, mask, _, size = _EVENT.unpack_from(data, at)
            at += _EVENT.size + size
            name = os.fsdecode(data[at - size : at].rstrip(b"\0"))
            if number not in self._folders or not name:
                continue
            path = self._folders[number] / name
            if mask & _ISDIR:
                yield from self.add(path)
            else:
                yield path

    def names_it(self, path: Path) -> float | None:
        """When a file that names the proxy last changed; None for one that does not."""
        try:
            found = path.lstat()
            if path.is_symlink() or found.st_size > _LARGEST:
                return None
            return found.st_ctime if self._needle in path.read_bytes() else None
        except OSError:
            return None

    def say(self, paths: Iterator[Path]) -> bool:
        """Print the first of these files that names the proxy, if one does."""
        times = {path: time for path in paths if (time := self.names_it(path)) is not None}
        for path in sorted(times, key=lambda path: times[path])[:1]:
            print(json.dumps({"path": f"/{path.relative_to(self._tree)}", "time": times[path]}))
        sys.stdout.flush()
        return bool(times)


def main() -> int:
    tree = Path(sys.argv[1])
    watch = _Watch(tree, sys.argv[2].encode())
    there = [path for name in _WATCHED for path in watch.add(tree / name)]
    print("ready", flush=True)
    if watch.say(iter(there)):
        return 0
    poll = select.poll()
    poll.register(0, select.POLLIN | select.POLLHUP)
    poll.register(watch.inotify, select.POLLIN)
    ended = False
    while not ended:
        ended = any(number == 0 for number, _ in poll.poll())
        # What was written until the end counts too.
        if watch.say(watch.events()):
            return 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
