"""What is cached and large: made by one at a time, and let go when it was not used for long. An
image and its frozen machine take 1 GiB together, and each change of the installers makes new ones.

An entry's modification time says when it was last used (see :func:`used`). What a live run may
use is safe: it was used after that run began. Evicting takes the entry's lock, as making does.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from harness.errors import UsageError
from harness.state import cache_dir, claimed, exclusive, lock_of, private_dir, state_dir

#: What is large: everything else in the cache together is less than one image.
KINDS = ("images", "frozen", "base", "cloud")
#: How many GiB of them are kept; ``AIRLOCK_CACHE_GB`` overrides it.
VARIABLE = "AIRLOCK_CACHE_GB"
BUDGET_GIB = 20.0
#: What a run needs on its disk; with less than this free, the oldest go whatever the budget says.
FREE_BYTES = 10 << 30


@dataclass(frozen=True)
class _Entry:
    path: Path
    used: float
    size: int


def used(path: Path) -> None:
    """Note that an entry is used; only under its lock, and before it is."""
    with contextlib.suppress(FileNotFoundError):
        os.utime(path)


def budget() -> int:
    """How many bytes of cached things are kept. UsageError if the variable is no number."""
    given = os.environ.get(VARIABLE)
    try:
        gib = float(given) if given else BUDGET_GIB
        if not 0 <= gib < 1 << 20:
            raise ValueError
    except ValueError:
        raise UsageError(f"{VARIABLE}={given}: must be a number of GiB") from None
    return int(gib * (1 << 30))


def evict() -> list[str]:
    """Let the least recently used go until the budget is kept; what went, in words."""
    with exclusive(
        private_dir(state_dir()) / "cache"
    ):  # else two would let go twice what is too much
        return _evict()


def _evict() -> list[str]:
    # Asked for first: what begins to use an entry from now on has used it later than this.
    since = min([time.time(), *_live_runs()])
    entries = sorted(_entries(), key=lambda entry: entry.used)
    over = sum(entry.size for entry in entries) - budget()
    short = FREE_BYTES - shutil.disk_usage(state_dir()).free
    gone = []
    for entry in entries:
        if max(over, short) <= 0 or entry.used >= since:
            break
        if _remove(entry.path, since):
            gone.append(f"{entry.path.parent.name}/{entry.path.name}: {entry.size / 2**30:.1f} GiB")
            over -= entry.size
            short -= entry.size
    return gone


def _live_runs() -> list[float]:
    """When each run that has its lock began, in unix seconds."""
    found = []
    for lock in (state_dir() / "runs").glob("*/lock"):
        with contextlib.suppress(OSError), lock.open("r+") as file:
            if not claimed(file):
                found.append(os.fstat(file.fileno()).st_mtime)
    return found


def _entries() -> Iterator[_Entry]:
    for kind in KINDS:
        for path in cache_dir(kind).iterdir():
            if path.is_dir():
                with contextlib.suppress(FileNotFoundError):
                    blocks = sum(file.lstat().st_blocks for file in path.rglob("*"))
                    yield _Entry(path, path.stat().st_mtime, blocks * 512)


def _remove(path: Path, since: float) -> bool:
    """False if somebody uses it or makes it anew meanwhile."""
    with lock_of(path).open("w") as lock:
        if not claimed(lock):
            return False
        try:
            if path.stat().st_mtime >= since:
                return False
            # Its manifest first: a removal that is cut short leaves nothing that looks whole.
            (path / "manifest.json").unlink(missing_ok=True)
            shutil.rmtree(path)
        except OSError:
            return False
    return True
