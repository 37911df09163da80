"""Ends what a run that was killed with -9 left behind: processes, mounts, files.

Whether a run is dead is the kernel's answer (its flock is free), not a guess from a pid. What it
owned is found twice: by its ledger, and by the marker in the environment of its children, so a
child that was never registered is found too.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.state import MARKER, Owned, boot_id, claimed, started_at, state_dir

#: A record being made has no lock yet for an instant; only an old one is a leftover.
NURSERY_SECONDS = 60


@dataclass
class Swept:
    """What a sweep ended, and what refused to die."""

    runs: list[str] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)


def sweep() -> Swept:
    """End what dead runs own, then forget them. Runs that are alive are not touched."""
    swept = Swept()
    runs = state_dir() / "runs"
    if not runs.is_dir():
        return swept
    for record in sorted(runs.iterdir()):
        try:
            lock = (record / "lock").open("r+")
        except OSError:
            if record.name.startswith(".new-") and _age(record) > NURSERY_SECONDS:
                shutil.rmtree(record, ignore_errors=True)
            continue
        with lock:
            if not claimed(lock):
                continue
            swept.runs.append(record.name)
            _end(record, swept)
    return swept


def end_children(run_id: str, owned: Owned) -> list[str]:
    """End every process that belongs to a run but is not this one; their descriptions."""
    ended: list[str] = []
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        victims = _processes(run_id, owned.entries())
        if not victims:
            return ended
        for pid, what in victims.items():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
                ended.append(f"process {pid} ({what})")
        time.sleep(0.05)
    return ended


def remove_tree(path: Path) -> bool:
    """Remove ``path`` whatever it is; True if nothing of it is left.

    Never crosses a mount: what is mounted below is unmounted first, and if that fails nothing is
    removed. A tree of files owned by subordinate user ids is removed from a user namespace.
    """
    if path.is_symlink() or path.is_file() or path.is_socket():
        path.unlink(missing_ok=True)
        return True
    if not path.exists():
        return True
    with contextlib.suppress(OSError):
        path.rmdir()  # empty, so no mount point either: nearly every scratch directory is
        return True
    if not all(unmount(Path(point)) for point in mounts_below(path)):
        return False
    shutil.rmtree(path, ignore_errors=True)
    if path.exists() and os.geteuid() != 0:
        subprocess.run(
            ["unshare", "--map-root-user", "--map-auto", "rm", "-rf", "--", str(path)],
            check=False,
            capture_output=True,
        )
    return not path.exists()


def mounts_below(path: Path) -> list[str]:
    """Mount points at or below ``path``, deepest first (proc(5): mountinfo, field 5)."""
    prefix = str(path.resolve())
    points = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        point = line.split()[4].encode().decode("unicode_escape")
        if point == prefix or point.startswith(prefix + "/"):
            points.append(point)
    return sorted(points, key=len, reverse=True)


def unmount(point: Path) -> bool:
    """Detach one mount point; True if it is no longer one."""
    subprocess.run(["umount", "-l", "--", str(point)], check=False, capture_output=True)
    return not os.path.ismount(point)


def _age(path: Path) -> float:
    with contextlib.suppress(FileNotFoundError):
        return time.time() - path.stat().st_mtime
    return 0.0


def _end(record: Path, swept: Swept) -> None:
    owned = Owned(record / "owned.jsonl")
    swept.ended += end_children(record.name, owned)
    entries = owned.entries()
    for entry in reversed(entries):
        path = Path(entry.get("path", "/nonexistent"))
        if entry["kind"] == "mount" and os.path.ismount(path):
            _tell(swept, unmount(path), f"mount {path}")
    for entry in reversed(entries):
        path = Path(entry.get("path", "/nonexistent"))
        if entry["kind"] == "path" and (path.exists() or path.is_symlink()):
            _tell(swept, remove_tree(path), str(path))
    if instances := owned.instances():
        from harness.providers.gce_reap import end_owned  # a run without a cloud needs none of it

        done = end_owned(instances)
        swept.ended += done.ended
        # Their own ledger remembers them, so that this record may go.
        left = done.refused
    else:
        left = []
    if not swept.refused:
        _tell(swept, remove_tree(record), f"record of run {record.name}")
    swept.refused += left


def _tell(swept: Swept, done: bool, what: str) -> None:
    (swept.ended if done else swept.refused).append(what)


def _processes(run_id: str, entries: list[dict[str, Any]]) -> dict[int, str]:
    """Live processes of a run: registered ones, their descendants, and marked ones."""
    boot = boot_id()
    found = {
        entry["pid"]: entry["what"]
        for entry in entries
        if entry["kind"] == "process"
        and entry["boot"] == boot
        and entry["start"] is not None
        and started_at(entry["pid"]) == entry["start"]
    }
    marker = f"{MARKER}={run_id}".encode()
    parents: dict[int, int] = {}
    for proc in Path("/proc").iterdir():
        if not proc.name.isdigit():
            continue
        pid = int(proc.name)
        with contextlib.suppress(OSError, ValueError, IndexError):
            fields = (proc / "stat").read_text().rpartition(")")[2].split()
            if fields[0] == "Z":
                continue
            parents[pid] = int(fields[1])
            if pid not in found and marker in (proc / "environ").read_bytes().split(b"\0"):
                found[pid] = (proc / "comm").read_text().strip()
    grown = True
    while grown:
        young = {p: "child of a swept process" for p, up in parents.items() if up in found}
        grown = bool(young.keys() - found.keys())
        found = {**young, **found}
    found.pop(os.getpid(), None)
    return found
