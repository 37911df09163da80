"""A search of every byte below some folders, for secrets in all their forms and private keys.

Bytes are looked for one needle after the other: ``bytes.find`` is several times faster than one
expression for all of them, six times where the machine is emulated.
"""

# Thousands of files are looked at: Path objects would cost more than reading them.
# ruff: noqa: PTH113, PTH122, PTH123

from __future__ import annotations

import base64
import errno
import gzip
import hashlib
import lzma
import os
import re
import stat
import zlib
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, Optional
from urllib.parse import quote

from installers.collect.hygiene import HEAD, PEM_KEY, files_below, is_private_key
from installers.collect.reader import Reader
from installers.collect.remember import Remembered

SEARCHED = (
    "/etc",
    "/var",
    "/usr/lib/airlock",
    "/usr/share/airlock",
    "/usr/local",
    "/root",
    "/home",
    "/opt",
    "/boot",
    "/srv",
    "/tmp",  # noqa: S108 - searched, not written to
    "/usr/src",
)
PACK: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".xz": lzma.open}
# Small, because the agent's other threads wait while one chunk is looked through.
CHUNK = 1 << 18
LARGEST_UNPACKED = 1 << 28
# Every PEM_KEY holds it, and it is found at once.
KEY_WORDS = b"PRIVATE KEY"
KEY_ROOM = 64

# (offset, index of the secret or None for a private key, form)
Hit = tuple[int, Optional[int], str]
#: What a resident agent remembers of files between two searches: none is read again that nobody
#: has touched.
Found = Remembered[tuple[Hit, ...]]


def forms(secret: bytes) -> dict[str, bytes]:
    """The ways a secret is written down: plain, percent-encoded, UTF-16, base64."""
    found = {"plain": secret}
    encoded = quote(secret, safe="")
    found["percent"] = encoded.encode()
    found["percent-lower"] = re.sub(r"%..", lambda match: match[0].lower(), encoded).encode()
    try:
        text = secret.decode()
        found["utf-16-le"] = text.encode("utf-16-le")
        found["utf-16-be"] = text.encode("utf-16-be")
    except UnicodeDecodeError:
        pass
    # Inside a longer base64 text a secret has three looks; its edges mix with the neighbours.
    for shift in range(3):
        coded = base64.b64encode(bytes(shift) + secret)
        start = -(-shift * 4 // 3)
        whole = (shift + len(secret)) // 3 * 4
        if whole - start >= 8:
            found[f"base64+{shift}"] = coded[start:whole]
    unique: dict[bytes, str] = {}
    for name, value in found.items():
        unique.setdefault(value, name)
    return {name: value for value, name in unique.items()}


class _Needles:
    """All forms of all secrets, and what each stands for."""

    def __init__(self, secrets: list[bytes]) -> None:
        self.meaning: dict[bytes, tuple[int, str]] = {}
        for index, secret in enumerate(secrets):
            for form, needle in forms(secret).items():
                self.meaning.setdefault(needle, (index, form))
        self.overlap = max([2 * KEY_ROOM, *(len(needle) for needle in self.meaning)])
        # Which secrets these are, for what remembers longer than it may know them.
        self.digest = hashlib.sha256(repr(sorted(self.meaning.items())).encode()).digest()

    def scan(self, data: bytes, base: int) -> Iterator[Hit]:
        """Every hit in ``data``, whose first byte is at offset ``base`` of the file."""
        for needle, (index, form) in self.meaning.items():
            found = data.find(needle)
            while found >= 0:
                yield base + found, index, form
                found = data.find(needle, found + 1)
        words = data.find(KEY_WORDS)
        while words >= 0:
            match = re.search(PEM_KEY, data[max(0, words - KEY_ROOM) : words + KEY_ROOM])
            if match:
                yield base + words, None, "pem"
            words = data.find(KEY_WORDS, words + 1)

    def stream(self, stream: BinaryIO, limit: int, base: int = 0) -> Iterator[Hit]:
        """Every hit in what can be read up to ``limit``, from ``base``, where the stream stands;
        some twice, where two chunks overlap.
        """
        tail = b""
        while base < limit:
            chunk = stream.read(min(CHUNK, limit - base))
            if not chunk:
                return
            data = tail + chunk
            yield from self.scan(data, base - len(tail))
            base += len(chunk)
            tail = data[-self.overlap :]


def _written(file: BinaryIO, size: int) -> Iterator[tuple[int, int]]:
    """Start and end of each run of bytes that was ever written: what was only set aside for a disk
    image or a swap file reads as zeros, gigabytes of them (lseek(2), SEEK_DATA).

    To be asked before anything is read: what the kernel reads ahead counts as written.
    """
    start = end = 0
    while end < size:
        try:
            start = file.seek(end, os.SEEK_DATA)
            end = file.seek(start, os.SEEK_HOLE)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return  # nothing but a hole is left
            start, end = end, size
        yield start, end


def _scan_file(path: str, needles: _Needles) -> Iterator[Hit]:
    """Hits in one file, and in what a .gz or .xz file unpacks to."""
    with open(path, "rb", buffering=0) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            return
        runs = list(_written(file, status.st_size))
        file.seek(0)
        head = file.read(HEAD)
        if is_private_key(head) and not re.search(PEM_KEY, head):
            yield 0, None, "der"
        for start, end in runs:
            file.seek(start)
            yield from needles.stream(file, end, start)
    unpack = PACK.get(os.path.splitext(path)[1])
    if unpack is None:
        return
    try:
        with unpack(path, "rb") as stream:
            yield from needles.stream(stream, LARGEST_UNPACKED)
    except (OSError, EOFError, lzma.LZMAError, zlib.error):
        return  # named .gz and is not: its bytes were searched as they are


def search(
    secrets: list[bytes],
    paths: Optional[list[str]] = None,
    reader: Optional[Reader] = None,
    found: Optional[Found] = None,
) -> dict[str, Any]:
    """Reads every file below ``paths`` for secrets (in all their forms) and private keys; those
    alone that ``found`` does not know as they are now.

    Returns {"secrets": [{"path", "offset", "secret", "form"}], "private_keys": [path], "files",
    "bytes", "unreadable"}: ``secret`` is the index in the list, never its text. An empty secret
    raises ValueError: it would be everywhere.
    """
    if any(len(secret) < 4 for secret in secrets):
        raise ValueError("a secret to search for needs at least 4 bytes")
    reader = reader or Reader()
    needles = _Needles(secrets)
    known = Found() if found is None else found

    def look(real: str) -> tuple[Hit, ...]:
        return tuple(_scan_file(real, needles))

    hits: dict[tuple[str, int, int], dict[str, Any]] = {}
    keys: set[str] = set()
    unreadable: dict[str, str] = {}
    files = size = 0
    for folder in paths if paths is not None else SEARCHED:
        base = reader.path(folder)
        for real in [base] if os.path.isfile(base) else files_below(base):
            path = folder + real[len(base) :]
            files += 1
            try:
                size += os.lstat(real).st_size
                for offset, index, form in known.get(real, look, needles.digest):
                    if index is None:
                        keys.add(path)
                    else:
                        hit = {"path": path, "offset": offset, "secret": index, "form": form}
                        hits.setdefault((path, offset, index), hit)
            except (OSError, ValueError) as error:
                unreadable[path] = str(error)
    return {
        "secrets": list(hits.values()),
        "private_keys": sorted(key for key in keys if not re.search(r"/ssh_host_\w+_key$", key)),
        "files": files,
        "bytes": size,
        "unreadable": unreadable,
    }
