"""Remembers what a file or folder held, for as long as it is the same one and unchanged."""

# ruff: noqa: PTH116 - a Path for each of a thousand folders costs more than asking for it

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import Any, Generic, Optional, TypeVar

Value = TypeVar("Value")

# A change within one tick of the kernel's clock after we read leaves the times as they were, so
# what changed this short a while ago, in seconds, is not remembered yet.
FRESH = 0.5


class Remembered(Generic[Value]):
    """Path -> what ``read`` made of it.

    The key is everything that changes with a file's bytes or a folder's entries: device, inode,
    size, mtime, ctime; so a value is never older than the file. ``also`` is whatever else the
    value depends on.
    """

    def __init__(self) -> None:
        self._known: dict[str, tuple[tuple[Any, ...], Value]] = {}
        # Held while reading: a second reader waits for the answer instead of working it out too.
        self._lock = threading.Lock()

    def get(self, path: str, read: Callable[[str], Value], also: Optional[Any] = None) -> Value:
        """The value of this path now; raises whatever ``read`` raises, and OSError."""
        with self._lock:
            info = os.stat(path)
            key = (info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns, also)
            known = self._known.get(path)
            if known is not None and known[0] == key:
                return known[1]
            value = read(path)
            if time.time() - max(info.st_mtime, info.st_ctime) > FRESH:
                self._known[path] = (key, value)
            return value
