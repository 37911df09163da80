"""Cloud images: a vendor's disk, fetched and verified, made raw, looked at, and kept by content."""

from __future__ import annotations

import datetime as dt
import http.client
import json
import shutil
import subprocess
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.cached import used
from harness.errors import InfraError
from harness.lab.base import sha256_file
from harness.lab.diskimage import BadImage, Inspection, Partition, inspect
from harness.lab.namespace import host_env
from harness.space import MIB, require
from harness.state import cache_dir, exclusive

if TYPE_CHECKING:
    from harness.cells import Image

Say = Callable[[str], None]
_SECONDS = 60  # without a byte
_CHUNK = 1 << 20
_PACKED = {b"\xfd7zXZ": "xz", b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"PK": "zip"}
_NO_SPACE = "No space left on device"
_ROOM = "free some, or set AIRLOCK_STATE to a directory on a larger disk"


@dataclass(frozen=True)
class Disk:
    """A cloud image that was taken in: ``raw`` its disk, ``digest`` the sha256 of the source."""

    raw: Path
    digest: str
    built: str
    cached: bool
    inspection: Inspection


def find(image: Image) -> Disk | None:
    """The image if its digest is known beforehand and it was taken in."""
    return _find(image.sha256) if image.sha256 else None


def _place(digest: str) -> Path:
    return cache_dir("cloud") / digest[:32]


def _find(digest: str) -> Disk | None:
    directory = _place(digest)
    try:
        kept = json.loads((directory / "manifest.json").read_text())
        found = kept["inspection"]
        found["partitions"] = tuple(Partition(**part) for part in found["partitions"])
        for key in ("loaders", "kernels", "untold"):
            found[key] = tuple(found[key])
        seen = Inspection(**found)
        return Disk(directory / "disk.img", kept["digest"], kept["built"], True, seen)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def take(image: Image, say: Say, *, fresh: bool = False) -> Disk:
    """Take the image in, from the cache or now.

    Raises :class:`BadImage` where it is not what it should be (its digest, a disk), and
    :class:`InfraError` where it cannot be had: not reachable, no room.
    """
    if not fresh and image.sha256:
        with exclusive(_place(image.sha256)):
            used(_place(image.sha256))
            if (found := find(image)) is not None:
                return found
    with tempfile.TemporaryDirectory(dir=cache_dir("cloud"), prefix="partial-") as folder:
        source = Path(image.source)
        if image.remote:
            source = Path(folder, "fetched")
            say(f"fetching {image.source}")
            _fetch(image.source, source, say)
        say("SHA-256")
        digest = _digest(source)
        if image.sha256 and digest != image.sha256:
            raise BadImage(
                "image.sha256",
                f"{image.source} has the SHA-256 {digest}, and {image.sha256} was asked for",
                hint="it was replaced or damaged: compare with the vendor's list of checksums",
            )
        directory = _place(digest)
        with exclusive(directory):
            used(directory)
            if not fresh and (found := _find(digest)) is not None:
                return found
            say("as a raw disk")
            raw = Path(folder, "disk.img")
            _convert(source, raw, image.source)
            seen = inspect(raw, image.source)
            built = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
            manifest = {"digest": digest, "built": built, "source": image.source}
            Path(folder, "manifest.json").write_text(
                json.dumps({**manifest, "inspection": asdict(seen)}, indent=1)
            )
            Path(folder, "fetched").unlink(missing_ok=True)
            shutil.rmtree(directory, ignore_errors=True)
            Path(folder).rename(directory)
            Path(folder).mkdir()  # TemporaryDirectory wants something to remove
    return Disk(directory / "disk.img", digest, built, cached=False, inspection=seen)


def known(image: Image, disk: Disk) -> Image:
    """The image with what was read in it, where its table does not say it."""
    seen = disk.inspection
    return replace(image, family=image.family or seen.family, version=image.version or seen.version)


def look(path: Path) -> str:
    """The format of an image file, ``qcow2`` or ``raw``, by its first bytes. BadImage, at once."""
    try:
        with path.open("rb") as file:
            head = file.read(512)
    except OSError as error:
        raise BadImage("image.unreadable", f"{path} cannot be read: {error.strerror}") from error
    for magic, packed in _PACKED.items():
        if head.startswith(magic):
            raise BadImage(
                "image.compressed", f"{path} is compressed ({packed})", hint="unpack it first"
            )
    if head.startswith(b"QFI\xfb"):
        return "qcow2"
    if head[510:512] == b"\x55\xaa":
        return "raw"
    raise BadImage(
        "image.not-a-disk",
        f"{path} is no disk image: neither qcow2 nor a raw disk with a partition table",
        hint="qemu-img convert -O qcow2 makes one of vmdk, vdi or vhdx",
    )


def _digest(path: Path) -> str:
    try:
        return sha256_file(path)
    except OSError as error:
        raise BadImage("image.unreadable", f"{path} cannot be read: {error.strerror}") from error


def _fetch(url: str, target: Path, say: Say) -> None:
    """As urllib goes: by the proxy of this machine's environment."""
    got = 0
    try:
        with (
            urllib.request.urlopen(url, timeout=_SECONDS) as answer,  # noqa: S310 - see harness.vendordisk
            target.open("wb") as out,
        ):
            size = int(answer.headers.get("Content-Length") or 0)
            require(target.parent, 2 * size // MIB, f"{url} and its raw disk", _ROOM)
            while part := answer.read(_CHUNK):
                out.write(part)
                got += len(part)
                if got % (64 * _CHUNK) < _CHUNK:
                    say(f"{got >> 20} of {size >> 20} MiB")
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError) as error:
        why = getattr(error, "reason", "") or error
        raise InfraError(
            f"{url} cannot be fetched: {why}",
            hint="is it reachable from here, by this machine's proxy? A file can be named as well",
        ) from error
    except OSError as error:
        raise InfraError(f"{url}: {error.strerror or error}", hint=_ROOM) from error
    if size and got != size:
        raise InfraError(f"{url} ended after {got} of {size} bytes", hint="try again")


def _convert(source: Path, target: Path, name: str) -> None:
    """Write the disk raw and with its holes. What an image refers to is not followed."""
    kind = look(source)
    told = _qemu_img(["info", "--output=json", "-f", kind, str(source)])
    if told.returncode:
        why = _words(told.stderr, source)
        raise BadImage("image.not-a-disk", f"{name} cannot be read as {kind}: {why}")
    found: dict[str, Any] = json.loads(told.stdout)
    special = found.get("format-specific", {}).get("data", {})
    if "backing-filename" in found or special.get("data-file"):
        other = found.get("backing-filename") or special["data-file"]
        raise BadImage(
            "image.not-whole",
            f"{name} is only a part of a disk: the rest is {other}",
            hint="qemu-img convert -O qcow2 writes one that is whole",
        )
    require(target.parent, found.get("actual-size", 0) // MIB, f"the raw disk of {name}", _ROOM)
    done = _qemu_img(["convert", "-q", "-f", kind, "-O", "raw", str(source), str(target)])
    if done.returncode:
        why = _words(done.stderr, source)
        if _NO_SPACE in why:
            raise InfraError(f"no space left for the raw disk of {name}", hint=_ROOM)
        raise BadImage("image.damaged", f"{name} cannot be read: {why}", hint="fetch it again")


def _words(said: str, source: Path) -> str:
    """QEMU's last line, without its own name and the path."""
    line = said.strip().rpartition("\n")[2]
    return line.replace(f"'{source}'", "it").replace(str(source), "it").removeprefix("qemu-img: ")


def _qemu_img(words: list[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            ["qemu-img", *words], capture_output=True, text=True, env=host_env(), check=False
        )
    except FileNotFoundError as error:
        raise InfraError("qemu-img is not installed", hint="airlock doctor --fix") from error
