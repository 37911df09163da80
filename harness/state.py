"""Where Airlock keeps things, and who owns what.

``AIRLOCK_STATE`` (default: ``$XDG_STATE_HOME/airlock``) holds::

    keys/            CA, signing keys: mode 0700, files 0600
    cache/           content-addressed: base images, builds
    runs/<run-id>/   one live run: lock (flock), owned.jsonl, scratch/

A run holds an flock on its record for as long as it lives. The kernel drops the lock when the
owner dies, however it dies, so a later run can tell the living from the dead (see ``sweep``).
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any

from harness.errors import InfraError

#: Put into the environment of every child of a run: what has it belongs to that run.
MARKER = "AIRLOCK_RUN"
#: A unix socket's path holds 107 bytes; a scratch directory must leave room for names in it.
SOCKET_ROOM = 60


def state_dir() -> Path:
    """The state directory, absolute; not created here."""
    if given := os.environ.get("AIRLOCK_STATE"):
        return Path(given).expanduser().absolute()
    base = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(base).expanduser().absolute() / "airlock"


def private_dir(path: Path) -> Path:
    """``path``, created with mode 0700 if it is not there."""
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    return path


def keys_dir() -> Path:
    """Where keys are kept, mode 0700."""
    return private_dir(state_dir() / "keys")


def cache_dir(kind: str) -> Path:
    """The content-addressed store of one kind of thing."""
    path = state_dir() / "cache" / kind
    path.mkdir(parents=True, exist_ok=True)
    return path


def lock_of(path: Path) -> Path:
    """The file by which ``path`` is locked: beside it, for the thing itself comes and goes."""
    return path.with_name(path.name + ".lock")


@contextlib.contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Only one process or thread at a time makes ``path``; the others wait and then find it."""
    with lock_of(path).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def claimed(lock: IO[str]) -> bool:
    """Take a lock if nobody has it; it is ours then until the file is closed."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def boot_id() -> str:
    """The kernel's id of this boot: process ids of another boot mean nothing."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def started_at(pid: int) -> int | None:
    """A process's start time in clock ticks since boot, or None if it is gone.

    proc(5): field 22 of ``stat``; the second field may hold blanks and parentheses.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] == "Z" and not _other_threads(pid) else int(fields[19])


def _other_threads(pid: int) -> bool:
    """Whether threads of a process whose first is a zombie live on: they hold its files, locks."""
    try:
        return len(list(Path(f"/proc/{pid}/task").iterdir())) > 1
    except OSError:
        return False


@dataclass
class Owned:
    """The ledger of what a ``kill -9`` of the run would leave behind. One line per thing.

    Thread-safe. A line is written before the thing can be forgotten, and flushed to the kernel,
    so it survives the death of this process (not a power cut, which ends processes anyway).
    """

    path: Path
    cell: str = ""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def of(self, cell: str) -> Owned:
        """The same ledger; what is written to it says that it belongs to this cell."""
        return replace(self, cell=cell)

    def _write(self, entry: dict[str, Any]) -> None:
        line = json.dumps({**entry, "cell": self.cell}) + "\n"
        with self._lock, self.path.open("a") as out:
            out.write(line)

    def process(self, pid: int, what: str) -> None:
        """``pid`` and everything it started are to be ended with the run."""
        self._write(
            {
                "kind": "process",
                "pid": pid,
                "start": started_at(pid),
                "boot": boot_id(),
                "what": what,
            }
        )

    def directory(self, path: Path, what: str) -> Path:
        """``path`` (file, socket, link or tree) is to be removed with the run. Returns it."""
        self._write({"kind": "path", "path": str(path), "what": what})
        return path

    def mount(self, path: Path, what: str) -> Path:
        """``path`` (a mount point or a pinned namespace) is to be unmounted with the run."""
        self._write({"kind": "mount", "path": str(path), "what": what})
        return path

    def instance(self, project: str, zone: str, name: str) -> None:
        """An instance on Google Cloud is to be deleted with the run; or an image (zone global)."""
        self._write({"kind": "instance", "project": project, "zone": zone, "name": name})

    def instance_gone(self, project: str, zone: str, name: str) -> None:
        """It is deleted already."""
        self._write({"kind": "instance-gone", "project": project, "zone": zone, "name": name})

    def instances(self) -> list[dict[str, Any]]:
        """The entries of instances that nobody said to be gone."""
        found: dict[tuple[str, str, str], dict[str, Any]] = {}
        for entry in self.entries():
            if entry["kind"].startswith("instance"):
                key = (entry["project"], entry["zone"], entry["name"])
                if entry["kind"] == "instance":
                    found[key] = entry
                else:
                    found.pop(key, None)
        return list(found.values())

    def entries(self) -> list[dict[str, Any]]:
        """Everything ever registered; a torn last line is left out."""
        found = []
        with contextlib.suppress(FileNotFoundError):
            for line in self.path.read_text().splitlines():
                with contextlib.suppress(ValueError):
                    found.append(json.loads(line))
        return found


def new_run_id() -> str:
    """A name for a run that no other has: when it began (UTC), and a little chance."""
    return f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{secrets.token_hex(3)}"


class RunRecord:
    """A live run: its id, its lock, its ledger and its scratch space. A context manager."""

    def __init__(self) -> None:
        self.id = new_run_id()
        runs = private_dir(state_dir()) / "runs"
        runs.mkdir(exist_ok=True)
        self.path = runs / self.id
        # Locked under another name first: a sweep must never see a record without its lock.
        nursery = Path(tempfile.mkdtemp(prefix=".new-", dir=runs))
        lock = (nursery / "lock").open("w")
        fcntl.flock(lock, fcntl.LOCK_EX)
        self._lock_file = lock
        (nursery / "owner").write_text(json.dumps({"pid": os.getpid(), "boot": boot_id()}))
        nursery.rename(self.path)
        self.owned = Owned(self.path / "owned.jsonl")
        self.scratch = self._scratch()

    def _scratch(self) -> Path:
        """Scratch on the state directory's disk, by a path short enough for sockets."""
        real = self.path / "s"
        real.mkdir()
        if len(str(real)) <= SOCKET_ROOM:
            return real
        link = Path(tempfile.gettempdir()) / f"airlock-{self.id[-6:]}-{secrets.token_hex(2)}"
        self.owned.directory(link, "short path of the scratch directory")
        link.symlink_to(real)
        return link

    def __enter__(self) -> RunRecord:
        os.environ[MARKER] = self.id
        return self

    def __exit__(self, *_: object) -> None:
        from harness.sweep import remove_tree

        os.environ.pop(MARKER, None)
        if self.scratch.is_symlink():
            self.scratch.unlink()
        if not remove_tree(self.path):
            raise InfraError(
                f"cannot remove {self.path}", hint="something of the run still holds it"
            )
        self._lock_file.close()
