"""Free disk and memory, asked before: a disk that fills up half-way explains nothing."""

from __future__ import annotations

import shutil
from pathlib import Path

from harness.errors import InfraError

MIB = 1 << 20


def existing(path: Path) -> Path:
    """The nearest parent that exists: the file system that ``path`` would be on."""
    return next(p for p in (path, *path.absolute().parents) if p.exists())


def free(path: Path) -> int:
    """Bytes that an ordinary user can still write at ``path``."""
    return shutil.disk_usage(existing(path)).free


def memory_available() -> int:
    """MiB of memory that programs can still take (proc(5), MemAvailable)."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) >> 10
    raise InfraError("/proc/meminfo has no MemAvailable")


def require(path: Path, megabytes: int, what: str, hint: str) -> None:
    """Raise InfraError if there is less than this free at ``path``."""
    there = free(path) // MIB
    if there < megabytes:
        raise InfraError(
            f"no space left for {what}: {path} has {there} MiB free, {megabytes} are needed",
            hint=hint,
        )
