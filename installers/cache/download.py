"""One object over HTTP: in parts, several at a time, each going on where it was cut off.

The file has its full size from the start, so a disk that is too small is found before anything is
fetched. Which parts are whole stands in a file beside it; after a kill the next call goes on there.
The hash is taken while the rest is still coming, in the order of the bytes. It is what limits the
speed (one core hashes 400 to 2000 MB/s), so nothing else may cost much: each stream reads into one
buffer that stays in the processor's cache, and no block is copied or allocated on the way.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import queue
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Optional

from installers.cache.store import Fetched, TamperedError, disk_error
from installers.cache.web import CutError, Web

#: Measured against 50 MB/s a connection: smaller parts cost requests, larger ones idle streams.
PART = 8 << 20
STREAMS = 8
#: The first part of each stream is smaller: the hash begins with the first bytes, and would else
#: wait for one stream to bring a whole part.
LEAD = 1 << 20
#: A stream's buffer; measured: a new MiB for each read costs as much again as the hash.
_BLOCK = 256 << 10
_READ = 1 << 20
#: Cuts in a row, without one byte between them, after which a part is given up.
_CUTS = 5


class _NoRangesError(Exception):
    """The server sends the whole object whatever is asked: one stream must do."""


def reserve(descriptor: int, size: int) -> None:
    """Take the room on the disk now; OSError (no space) when there is none."""
    if size:
        os.posix_fallocate(descriptor, 0, size)


def notes(target: Path) -> Path:
    """Where the finished parts of a partial file are noted."""
    return target.with_name(f"{target.name}.parts")


def forget(target: Path) -> None:
    """Remove a partial file and its notes."""
    for path in (target, notes(target)):
        path.unlink(missing_ok=True)


class Download:
    """The download of one object of ``size`` bytes from ``url`` into ``target``."""

    def __init__(
        self,
        web: Web,
        url: str,
        target: Path,
        size: int,
        *,
        part: int = PART,
        streams: int = STREAMS,
        lead: int = LEAD,
    ) -> None:
        self._web = web
        self._url = url
        self._place = url.partition("?")[0]
        self._target = target
        self._size = size
        self._starts = list(_starts(size, part, streams, lead))
        # strict= needs Python 3.10.
        self._ends = dict(zip(self._starts, [*self._starts[1:], size]))  # noqa: B905
        self._streams = streams
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._failure: Optional[Exception] = None
        self._generation = ""
        # Start of a part -> where its bytes that are there end; and the part that is being hashed.
        self._reached: dict[int, int] = {}
        self._hashing = 0
        self._changed = threading.Condition(self._lock)

    def run(self) -> Fetched:
        """Fetch what is missing (generation "" when the server names none).

        Raises FileNotFoundError (the server's 404), StoreError, TamperedError (another size), and
        NodeError when the disk is full.
        """
        try:
            descriptor = os.open(self._target, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise disk_error(error, self._target.parent) from error
        try:
            try:
                done = self._resume(descriptor)
            except OSError as error:
                raise disk_error(error, self._target.parent) from error
            try:
                sha256 = self._parts(descriptor, done)
            except _NoRangesError:
                notes(self._target).unlink(missing_ok=True)
                self._stop.clear()
                self._reached = {}
                self._copy(descriptor, 0, self._size, _buffer(_BLOCK), ranged=False)
                self._reached = dict(self._ends)
                sha256 = self._hash(descriptor)
        finally:
            os.close(descriptor)
        notes(self._target).unlink(missing_ok=True)
        return Fetched(self._generation, sha256)

    def _resume(self, descriptor: int) -> set[int]:
        """Starts of parts that an earlier call finished; the file is made fit for this one."""
        head = " ".join(map(str, [*self._starts, self._size]))
        kept = os.fstat(descriptor).st_size == self._size
        lines: list[str] = []
        with contextlib.suppress(OSError, UnicodeDecodeError):
            lines = notes(self._target).read_text("ascii").splitlines()
        if kept and lines and lines[0] == head:
            return {int(line) for line in lines[1:] if line.isdigit()}
        os.ftruncate(descriptor, 0)
        reserve(descriptor, self._size)
        notes(self._target).write_text(f"{head}\n", "ascii")
        return set()

    def _parts(self, descriptor: int, done: set[int]) -> str:
        todo: queue.SimpleQueue[int] = queue.SimpleQueue()
        missing = [start for start in self._starts if start not in done]
        self._reached = {start: self._ends[start] for start in done & self._ends.keys()}
        for start in missing:
            todo.put(start)
        threads = [
            threading.Thread(target=self._work, args=(descriptor, todo), daemon=True)
            for _ in range(min(self._streams, len(missing)))
        ]
        for thread in threads:
            thread.start()
        try:
            sha256 = self._hash(descriptor)
        except BaseException:
            self._stop.set()
            raise
        finally:
            for thread in threads:
                thread.join()
        if self._failure is not None:
            raise self._failure
        return sha256

    def _hash(self, descriptor: int) -> str:
        """SHA-256 of the file, each byte as soon as it and all before it are there."""
        digest = hashlib.sha256()
        buffer = _buffer(_READ)
        for start, end in self._ends.items():
            at = start
            while at < end:
                there = self._wait_beyond(start, at)
                if self._stop.is_set():
                    return ""
                while at < there:
                    count = os.preadv(descriptor, [buffer[: there - at]], at)
                    digest.update(buffer[:count])
                    at += count
        return digest.hexdigest()

    def _wait_beyond(self, start: int, at: int) -> int:
        """Where the bytes of the part end that are there, once there are any after ``at``."""
        if (there := self._reached.get(start, 0)) > at:
            return there
        with self._changed:
            self._hashing = start
            self._changed.wait_for(lambda: self._reached.get(start, 0) > at or self._stop.is_set())
            return self._reached.get(start, 0)

    def _work(self, descriptor: int, todo: queue.SimpleQueue[int]) -> None:
        buffer = _buffer(_BLOCK)
        try:
            while not self._stop.is_set():
                try:
                    start = todo.get_nowait()
                except queue.Empty:
                    return
                self._copy(descriptor, start, self._ends[start], buffer, ranged=True)
                if not self._stop.is_set():
                    with self._lock, notes(self._target).open("a", encoding="ascii") as out:
                        out.write(f"{start}\n")
        except Exception as failure:
            with self._changed:
                self._failure = self._failure or failure
                self._stop.set()
                self._changed.notify_all()

    def _copy(
        self, descriptor: int, start: int, end: int, buffer: memoryview, *, ranged: bool
    ) -> None:
        """Bytes ``start`` to ``end`` of the object, asked for again after each cut."""
        at, cuts = start, 0
        while at < end and not self._stop.is_set():
            before = at
            try:
                for block in self._stream(at, end, buffer, ranged=ranged):
                    at += _write(descriptor, block, at, self._target)
                    self._reached[start] = at
                    if self._hashing == start:
                        with self._changed:
                            self._changed.notify()
                    if self._stop.is_set():
                        return
                if at == end:
                    return
                raise CutError(f"was cut off at {at} of {end} bytes", where=self._place)
            except CutError:
                cuts = 0 if at > before else cuts + 1
                if cuts == _CUTS or not ranged:
                    raise

    def _stream(
        self, at: int, end: int, buffer: memoryview, *, ranged: bool
    ) -> Iterator[memoryview]:
        headers = {"Range": f"bytes={at}-{end - 1}"} if ranged else {}
        with self._web.send("GET", self._url, headers=headers, accept=(404, 416)) as answer:
            if answer.status == 404:
                raise FileNotFoundError(self._url)
            if answer.status == 416:
                raise TamperedError(f"it has fewer than {end} bytes", where=self._place)
            if ranged and answer.status != 206:
                if at == 0 and end == self._size and answer.length == self._size:
                    ranged = False  # the whole object was asked for and came
                else:
                    raise _NoRangesError
            self._check_size(answer.headers.get("Content-Range", ""), answer.length, ranged=ranged)
            with self._lock:
                self._generation = answer.headers.get("x-goog-generation", "")
            left = end - at
            while left and (count := answer.read_into(buffer[:left])):
                left -= count
                yield buffer[:count]

    def _check_size(self, content_range: str, length: Optional[int], *, ranged: bool) -> None:
        total = content_range.rpartition("/")[2] if ranged else str(length)
        if total != str(self._size):
            raise TamperedError(
                f"it has {total or 'no stated number of'} bytes, not {self._size}",
                where=self._place,
            )


def _starts(size: int, part: int, streams: int, lead: int) -> Iterator[int]:
    """Where the parts begin: ``streams`` of ``lead`` bytes at most, then of ``part``."""
    at, number = 0, 0
    while at < size:
        yield at
        at += min(lead, part) if number < streams else part
        number += 1


def _buffer(size: int) -> memoryview:
    return memoryview(bytearray(size))


def _write(descriptor: int, block: memoryview, at: int, target: Path) -> int:
    """Write the whole block; its length."""
    written = 0
    try:
        while written < len(block):
            written += os.pwrite(descriptor, block[written:], at + written)
    except OSError as error:
        raise disk_error(error, target.parent) from error
    return written
