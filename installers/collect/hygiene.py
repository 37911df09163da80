"""What must not be in an image: private keys, secrets, leftovers of the build.

The facts look where such things usually are, by name; ``search`` reads every byte below the paths
it is given, which takes seconds, and is an operation of its own.
"""

# Thousands of files are looked at: Path objects would cost more than reading them.
# ruff: noqa: PTH113, PTH116, PTH119, PTH122, PTH123

from __future__ import annotations

import base64
import gzip
import lzma
import mmap
import os
import re
import stat
import zlib
from collections.abc import Callable, Iterator
from typing import Any, Optional, Union
from urllib.parse import quote

from installers.collect.reader import Reader

PEM_KEY = rb"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----[\r\n]"
KEY_FOLDERS = (
    "/etc/ssl",
    "/etc/pki",
    "/etc/airlock",
    "/root",
    "/home",
    "/opt",
    "/var/lib/airlock",
    "/usr/lib/airlock",
    "/usr/share/airlock",
    "/usr/share/nvidia",
    "/var/lib/shim-signed",
    "/var/lib/dkms",
)
# Facts are to be quick; whole home directories are what ``search`` is for.
KEY_DEPTH = 3
KEY_NAME = re.compile(r"\.(?:key|pem|priv|der|p8|p12|pfx)$|^id_[a-z0-9]+$|private|MOK", re.I)
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
# Paths that only a build makes; a name ending in /* stands for what is in the folder.
LEFTOVERS = (
    "/usr/sbin/policy-rc.d",
    "/var/cache/apt/archives/*.deb",
    "/var/cache/apt/archives/partial/*",
    "/var/lib/apt/lists/partial/*",
    "/etc/apt/apt.conf.d/*airlock-build*",
    "/run/airlock/sign.sock",
    "/run/airlock/apt.conf",
    "/tmp/*",  # noqa: S108
    "/var/tmp/*",  # noqa: S108
)
# systemd's own private directories in /tmp are no leftovers.
EXPECTED = re.compile(r"/systemd-private-|/\.(?:X11|ICE|XIM|font)-unix$|^/tmp/airlock-\d")
PACK: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".xz": lzma.open}
HEAD = 4096
CHUNK = 1 << 22
LARGEST_UNPACKED = 1 << 28

Readable = Union[bytes, mmap.mmap]


def is_private_key(head: bytes) -> bool:
    """PEM of any kind, or DER of PKCS#8, PKCS#1 or SEC 1, by the first bytes of a file."""
    if re.search(PEM_KEY, head):
        return True
    # SEQUENCE { INTEGER 0 or 1, then SEQUENCE (PKCS#8), INTEGER (PKCS#1), OCTET STRING (SEC 1)
    match = re.match(rb"\x30(?:[\x20-\x7f]|\x81.|\x82..)\x02\x01([\x00\x01])(.)", head, re.S)
    if not match:
        return False
    return match.groups() in (
        (b"\0", b"\x30"),
        (b"\0", b"\x02"),
        (b"\1", b"\x04"),
        (b"\1", b"\x30"),
    )


def _files(folder: str, depth: int = 1 << 16) -> Iterator[str]:
    """Every regular file down to ``depth`` folders below; links are not followed.

    Other file systems are not entered: that keeps /proc, /sys and network mounts out whatever
    they are below.
    """
    try:
        device = os.lstat(folder).st_dev
    except OSError:
        return
    waiting = [(folder, depth)]
    while waiting:
        here, left = waiting.pop()
        try:
            with os.scandir(here) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        if left > 1 and entry.stat(follow_symlinks=False).st_dev == device:
                            waiting.append((entry.path, left - 1))
                    elif entry.is_file(follow_symlinks=False):
                        yield entry.path
        except OSError:
            continue


def private_keys(reader: Reader) -> list[str]:
    """Files in the usual places that hold a private key. Host keys of SSH are told separately."""
    found = []
    for folder in KEY_FOLDERS:
        base = reader.path(folder)
        for real in _files(base, KEY_DEPTH):
            if not KEY_NAME.search(os.path.basename(real)):
                continue
            path = folder + real[len(base) :]
            try:
                with open(real, "rb") as file:
                    if is_private_key(file.read(HEAD)):
                        found.append(path)
            except OSError as error:
                reader.miss(f"hygiene.private_keys.{path}", error)
    return sorted(found)


def _leftovers(reader: Reader) -> list[str]:
    """Which of LEFTOVERS exist."""
    found = []
    for pattern in LEFTOVERS:
        folder, name = pattern.rsplit("/", 1)
        wanted = re.compile(re.escape(name).replace(r"\*", ".*") + r"\Z")
        listed = [f"{folder}/{entry}" for entry in reader.names(folder) if wanted.match(entry)]
        found += [path for path in listed if not EXPECTED.search(path)]
    return sorted(found)


def _host_keys(reader: Reader) -> list[dict[str, Any]]:
    """SSH host keys and when each was made (its mtime, Unix seconds)."""
    found = []
    for name in reader.names("/etc/ssh"):
        if re.match(r"ssh_host_\w+_key$", name):
            path = f"/etc/ssh/{name}"
            found.append({"path": path, "mtime": os.stat(reader.path(path)).st_mtime})
    return found


def collect(reader: Reader) -> dict[str, Any]:
    """What a quick look finds; ``secrets`` is [] here, ``search`` fills it."""
    return {
        "private_keys": private_keys(reader),
        "secrets": [],
        "leftovers": _leftovers(reader),
        "ssh_host_keys": _host_keys(reader),
        "machine_id": reader.line("/etc/machine-id"),
    }


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
    """One expression that finds every form of every secret in a single pass."""

    def __init__(self, secrets: list[bytes]) -> None:
        self.found: list[tuple[str, int, str]] = []
        self.meaning: dict[bytes, tuple[int, str]] = {}
        for index, secret in enumerate(secrets):
            for form, needle in forms(secret).items():
                self.meaning.setdefault(needle, (index, form))
        # Longest first: a secret that begins another one must not hide it.
        ordered = sorted(self.meaning, key=len, reverse=True)
        self.overlap = max([64, *(len(needle) for needle in ordered)])
        self.expression = re.compile(b"|".join([*map(re.escape, ordered), PEM_KEY]))

    def scan(self, data: Readable, base: int = 0) -> Iterator[tuple[int, Optional[int], str]]:
        """(offset, secret's index or None for a private key, form) of each hit."""
        for match in self.expression.finditer(data):
            index, form = self.meaning.get(match.group(), (None, "pem"))
            yield base + match.start(), index, form


def _scan_file(path: str, needles: _Needles) -> Iterator[tuple[int, Optional[int], str]]:
    """Hits in one file, and in what a .gz or .xz file unpacks to."""
    with open(path, "rb") as file:
        info = os.fstat(file.fileno())
        if not stat.S_ISREG(info.st_mode) or info.st_size == 0:
            return
        head = file.read(HEAD)
        if is_private_key(head) and not re.search(PEM_KEY, head):
            yield 0, None, "der"
        if info.st_size <= HEAD:
            yield from needles.scan(head)
        else:
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
                yield from needles.scan(view)
    unpack = PACK.get(os.path.splitext(path)[1])
    if unpack is None:
        return
    try:
        with unpack(path, "rb") as stream:
            tail, base = b"", 0
            while base < LARGEST_UNPACKED:
                chunk = stream.read(CHUNK)
                if not chunk:
                    return
                data = tail + chunk
                yield from needles.scan(data, base - len(tail))
                base += len(chunk)
                tail = data[-needles.overlap + 1 :]
    except (OSError, EOFError, lzma.LZMAError, zlib.error):
        return  # named .gz and is not: its bytes were searched as they are


def search(
    secrets: list[bytes], paths: Optional[list[str]] = None, reader: Optional[Reader] = None
) -> dict[str, Any]:
    """Reads every file below ``paths`` for secrets (in all their forms) and private keys.

    Returns {"secrets": [{"path", "offset", "secret", "form"}], "private_keys": [path], "files",
    "bytes", "unreadable"}: ``secret`` is the index in the list, never its text. An empty secret
    raises ValueError: it would be everywhere.
    """
    if any(len(secret) < 4 for secret in secrets):
        raise ValueError("a secret to search for needs at least 4 bytes")
    reader = reader or Reader()
    needles = _Needles(secrets)
    hits: dict[tuple[str, int, int], dict[str, Any]] = {}
    keys: set[str] = set()
    unreadable: dict[str, str] = {}
    files = size = 0
    for folder in paths if paths is not None else SEARCHED:
        base = reader.path(folder)
        for real in [base] if os.path.isfile(base) else _files(base):
            path = folder + real[len(base) :]
            files += 1
            try:
                size += os.lstat(real).st_size
                for offset, index, form in _scan_file(real, needles):
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
