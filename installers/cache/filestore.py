"""``file://``: a directory. Writers exclude one another with a lock file, readers need none."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Optional

from installers.cache import download
from installers.cache.store import (
    MANIFEST_LIMIT,
    QUARANTINE,
    Blob,
    Content,
    Fetched,
    Info,
    StoreError,
    TamperedError,
    digest_of,
    disk_error,
    size_of,
)
from installers.host import sync_directory

#: Files that are being written. A killed writer leaves one; ``sweep`` removes it.
PARTIAL = ".partial-"
_LOCK = ".lock"
_ABANDONED = 24 * 3600.0


class FileStore:
    """A directory of objects, written by rename, so that a reader never sees half of one.

    A generation is inode, time and size of the file: every rename makes a new one.
    """

    shared = False

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.url = f"file://{directory}"
        nearest = next(p for p in (directory, *directory.parents) if p.exists())
        self.writable = nearest.is_dir() and os.access(nearest, os.W_OK)

    def path(self, name: str) -> Path:
        """Where an object is. ValueError for a name that leads elsewhere."""
        if not re.fullmatch(r"[a-z]+/[A-Za-z0-9_.+@=-]+", name) or "/." in name:
            raise ValueError(f"{name!r} is no name of an object")
        return self.directory / name

    def read(self, name: str) -> Optional[Blob]:
        path = self.path(name)
        with self._errors(path):
            try:
                with path.open("rb") as stream:
                    state = os.fstat(stream.fileno())
                    if state.st_size > MANIFEST_LIMIT:
                        raise TamperedError(f"it has {state.st_size} bytes", where=str(path))
                    return Blob(stream.read(), _generation(state))
            except (FileNotFoundError, NotADirectoryError):
                return None

    def fetch(self, name: str, target: Path, size: int) -> Optional[Fetched]:
        path = self.path(name)
        with self._errors(path):
            try:
                stream = path.open("rb")
            except (FileNotFoundError, NotADirectoryError):
                return None
        with stream:
            state = os.fstat(stream.fileno())
            if state.st_size != size:
                raise TamperedError(f"it has {state.st_size} bytes, not {size}", where=str(path))
            try:
                with target.open("wb") as out:
                    download.reserve(out.fileno(), size)
                    shutil.copyfileobj(stream, out, 1 << 20)
            except OSError as error:
                raise disk_error(error, target.parent) from error
            return Fetched(_generation(state), digest_of(target))

    def create(self, name: str, data: Content) -> Optional[str]:
        return self._put(name, data, None)

    def replace(self, name: str, data: Content, generation: str) -> Optional[str]:
        return self._put(name, data, generation)

    def delete(self, name: str, generation: str) -> bool:
        path = self.path(name)
        with self._errors(path), self._locked():
            if self._present(path) != generation:
                return False
            path.unlink()
            sync_directory(path.parent)
            return True

    def set_aside(self, name: str, generation: str, why: str) -> None:
        """Move it away: a directory has one owner, and the broken file would be found again."""
        path = self.path(name)
        with self._errors(path), self._locked():
            if self._present(path) != generation:
                return  # somebody else was faster
            aside = self.directory / QUARANTINE
            aside.mkdir(exist_ok=True)
            target = aside / f"{path.name}.{int(time.time())}.{secrets.token_hex(2)}"
            path.rename(target)
            target.with_name(f"{target.name}.reason").write_text(f"{name}: {why}\n", "utf-8")

    def list(self, prefix: str) -> Iterator[Info]:
        if not self.directory.is_dir():
            return
        for path in sorted(self.directory.glob("*/*")):
            name = path.relative_to(self.directory).as_posix()
            if name.startswith(prefix) and not path.name.startswith("."):
                with contextlib.suppress(FileNotFoundError):
                    state = path.stat()
                    yield Info(name, state.st_size, _generation(state), state.st_mtime)

    @contextlib.contextmanager
    def claim(self, name: str) -> Iterator[Path]:
        """The partial file of an object, for one process or thread at a time; the others wait.

        Not locked through the partial file itself, which is renamed when it is whole.
        """
        path = self.path(name)
        with self._errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            guard = path.with_name(f"{PARTIAL}{path.name}.lock")
            while True:
                stream = guard.open("w")
                fcntl.flock(stream, fcntl.LOCK_EX)
                # Whoever was first has removed the file that we locked: lock its successor.
                if guard.exists() and os.path.samestat(guard.stat(), os.fstat(stream.fileno())):
                    break
                stream.close()
        with stream:
            try:
                yield path.with_name(f"{PARTIAL}{path.name}")
            finally:
                guard.unlink(missing_ok=True)

    def adopt(self, name: str, partial: Path) -> Path:
        """A whole, verified partial file takes its place."""
        path = self.path(name)
        with self._errors(path):
            with partial.open("rb") as stream:
                os.fsync(stream.fileno())
            partial.rename(path)
            sync_directory(path.parent)
        return path

    def sweep(self, older: float = _ABANDONED) -> int:
        """Remove what killed writers left more than ``older`` seconds ago; how many files."""
        count = 0
        for path in self.directory.glob(f"*/{PARTIAL}*"):
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_mtime < time.time() - older:
                    path.unlink()
                    count += 1
        return count

    def _put(self, name: str, data: Content, expected: Optional[str]) -> Optional[str]:
        path = self.path(name)
        with self._errors(path):
            # The common case of a shared object, without copying it first.
            if expected is None and path.exists():
                return None
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_name(f"{PARTIAL}{secrets.token_hex(8)}")
            try:
                with partial.open("xb") as out:
                    download.reserve(out.fileno(), size_of(data))
                    if isinstance(data, bytes):
                        out.write(data)
                    else:
                        with data.open("rb") as stream:
                            shutil.copyfileobj(stream, out, 1 << 20)
                    out.flush()
                    os.fsync(out.fileno())
                with self._locked():
                    if self._present(path) != expected:
                        return None
                    partial.rename(path)
                    sync_directory(path.parent)
                    return _generation(path.stat())
            finally:
                partial.unlink(missing_ok=True)

    def _present(self, path: Path) -> Optional[str]:
        try:
            return _generation(path.stat())
        except (FileNotFoundError, NotADirectoryError):
            return None

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        self.directory.mkdir(parents=True, exist_ok=True)
        with (self.directory / _LOCK).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    @contextlib.contextmanager
    def _errors(self, path: Path) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StoreError(
                error.strerror or str(error),
                where=str(error.filename or path),
                remedy="look at the disk and the permissions of the cache's directory",
            ) from error


def _generation(state: os.stat_result) -> str:
    return f"{state.st_ino}-{state.st_mtime_ns}-{state.st_size}"
