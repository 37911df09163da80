"""Streams out of packages and layers: ar (deb(5)), and whatever a tar is compressed with."""

from __future__ import annotations

import contextlib
import gzip
import lzma
import shutil
import subprocess
import threading
from collections.abc import Iterator
from typing import IO

AR_MAGIC = b"!<arch>\n"
_XZ, _GZIP, _ZSTD = b"\xfd7zXZ\x00", b"\x1f\x8b", b"\x28\xb5\x2f\xfd"


class Damaged(ValueError):
    """The package is not what it says it is, or needs a program that is not there."""


class Part:
    """``size`` bytes of a file from ``start`` on, to be read forward."""

    def __init__(self, file: IO[bytes], start: int, size: int) -> None:
        self._file = file
        self._at = start
        self._left = size

    def read(self, size: int = -1) -> bytes:
        """As of a file; shorter than asked for at the part's end."""
        wanted = self._left if size < 0 else min(size, self._left)
        self._file.seek(self._at)
        data = self._file.read(wanted)
        self._at += len(data)
        self._left -= len(data)
        return data


@contextlib.contextmanager
def deb_data(file: IO[bytes]) -> Iterator[IO[bytes]]:
    """The data.tar of a Debian package, unpacked. Damaged where there is none."""
    file.seek(len(AR_MAGIC))
    while True:
        header = file.read(60)
        if len(header) < 60 or header[58:] != b"`\n":
            raise Damaged("has no data.tar: it is no Debian package")
        name = header[:16].decode("ascii", "replace").strip().rstrip("/")
        try:
            size = int(header[48:58])
        except ValueError:
            raise Damaged(f"the size of {name!r} is no number") from None
        start = file.tell()
        if name.startswith("data.tar"):
            part: IO[bytes] = Part(file, start, size)  # type: ignore[assignment]
            with plain(part) as data:
                yield data
            return
        file.seek(start + size + size % 2)


@contextlib.contextmanager
def plain(file: IO[bytes]) -> Iterator[IO[bytes]]:
    """The stream unpacked, whatever it is packed with by its first bytes: gzip, xz, zstd or not."""
    head = file.read(6)
    whole: IO[bytes] = _Again(head, file)  # type: ignore[assignment]
    if head.startswith(_GZIP):
        with gzip.open(whole) as stream:
            yield stream  # type: ignore[misc]
    elif head.startswith(_XZ):
        with lzma.open(whole) as stream:
            yield stream
    elif head.startswith(_ZSTD):
        with _zstd(whole) as stream:
            yield stream
    else:
        yield whole


class _Again:
    """What was read to look at it comes again."""

    def __init__(self, head: bytes, file: IO[bytes]) -> None:
        self._head = head
        self._file = file

    def read(self, size: int = -1) -> bytes:
        head = self._head if size < 0 else self._head[:size]
        self._head = self._head[len(head) :]
        return head + self._file.read(-1 if size < 0 else size - len(head))


@contextlib.contextmanager
def _zstd(file: IO[bytes]) -> Iterator[IO[bytes]]:
    """By the program: the standard library has had zstd since Python 3.14 only."""
    program = shutil.which("zstd")
    if program is None:
        raise Damaged("is packed with zstd; install the package zstd to read it")
    process = subprocess.Popen(
        [program, "-dcq"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    given, out, said = process.stdin, process.stdout, process.stderr
    assert given is not None
    assert out is not None
    assert said is not None
    feeder = threading.Thread(target=_feed, args=(file, given), daemon=True)
    feeder.start()
    try:
        yield out
        # A reader that stops at the tar's end leaves what follows it.
        while out.read(1 << 16):
            pass
        feeder.join()
        if process.wait() != 0:
            raise Damaged(said.read().decode("utf-8", "replace").strip())
    finally:
        process.kill()
        process.wait()
        feeder.join()
        for pipe in (out, said):
            pipe.close()


def _feed(file: IO[bytes], into: IO[bytes]) -> None:
    # A program that ended early, because the data is damaged, says so itself.
    with contextlib.suppress(OSError), into:
        shutil.copyfileobj(file, into, 1 << 16)
