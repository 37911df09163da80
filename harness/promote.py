"""Moving an image family: what a release is, once the gate has let it through.

A store is behind one interface, which Google Cloud's images fit as well: an image has something
that names it exactly, a family has a current image, and labels go along. Its labels' rules are
Google's, the stricter ones.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from abc import ABC, abstractmethod
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from harness.errors import InfraError, UsageError
from harness.names import nearest
from harness.policy import sha256_of
from reports.findings import Judgement
from reports.model import Run, Subject
from reports.policy import Bound

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_LABEL = re.compile(r"[^a-z0-9_-]")


class ImageStore(ABC):
    """Images, and families that point at one of them each."""

    #: By what an image of this store is bound to the report, whatever the policy says.
    bound: tuple[Bound, ...]

    @abstractmethod
    def subject(self, image: str) -> Subject:
        """What names an image exactly. UsageError when there is no such image."""

    @abstractmethod
    def current(self, family: str) -> str:
        """The image that a family points at; empty when it never did. UsageError: not known."""

    @abstractmethod
    def promote(self, family: str, image: str, labels: Mapping[str, str]) -> None:
        """Move a family and its labels to an image: both, or neither.

        InfraError when the store cannot.
        """


class DirectoryStore(ImageStore):
    """A directory: ``images/NAME`` are disk files, ``families/NAME`` directories.

    A family's ``current`` is a link to a directory with ``image`` (a link to the disk file) and
    ``labels.json``: one rename moves both. The earlier ones stay beside it, to go back to.
    """

    bound = ("disk",)

    def __init__(self, root: Path) -> None:
        self._images, self._families = root / "images", root / "families"
        for place in (self._images, self._families):
            if not place.is_dir():
                raise UsageError(f"--store {root}: has no directory {place.name}/")

    def subject(self, image: str) -> Subject:
        """The disk file's digest."""
        path = self._image(image)
        try:
            return Subject(disk_sha256=sha256_of(path))
        except OSError as error:
            raise UsageError(f"{path}: {error.strerror or error}") from error

    def current(self, family: str) -> str:
        """Where ``current`` leads to."""
        try:
            return (self._family(family) / "current" / "image").readlink().name
        except FileNotFoundError:
            return ""

    def promote(self, family: str, image: str, labels: Mapping[str, str]) -> None:
        """A new directory, whole and synced, then one rename."""
        home, disk = self._family(family), self._image(image)
        stamp = f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}-{os.getpid()}"
        new, link = home / stamp, home / f".current-{stamp}"
        try:
            new.mkdir()
            (new / "image").symlink_to(os.path.relpath(disk, new))
            with (new / "labels.json").open("w") as file:
                file.write(json.dumps(dict(labels), indent=1, sort_keys=True) + "\n")
                file.flush()
                os.fsync(file.fileno())
            _sync(new)
            link.symlink_to(stamp)
            link.replace(home / "current")
            _sync(home)
        except OSError as error:
            link.unlink(missing_ok=True)
            if not (home / "current").is_symlink() or (home / "current").readlink().name != stamp:
                shutil.rmtree(new, ignore_errors=True)
            raise InfraError(f"{home}: {error.strerror or error}") from error

    def _family(self, name: str) -> Path:
        known = [path.name for path in self._families.iterdir() if path.is_dir()]
        if name not in known:
            raise UsageError(
                f"--promote {name}: {self._families} has no such family",
                hint=nearest(name, known)
                if known
                else f"make it once: mkdir {self._families}/NAME",
            )
        return self._families / name

    def _image(self, name: str) -> Path:
        known = [path.name for path in self._images.iterdir() if path.is_file()]
        if not _NAME.fullmatch(name) or name not in known:
            hint = nearest(name, known)
            raise UsageError(f"--image {name}: {self._images} has no such image", hint=hint)
        return self._images / name


def labels(
    run: Run, judgement: Judgement, *, policy: str, report: str, image: Subject
) -> dict[str, str]:
    """What an image's labels say of its gate. ``report`` is the report's SHA-256.

    Values have at most 63 of ``[a-z0-9_-]``: a digest is told by its first half.
    """
    said = {
        "airlock-run": run.id,
        "airlock-verdict": judgement.verdict,
        "airlock-waived": str(judgement.waived),
        "airlock-policy": policy or "none",
        "airlock-report": report[:32],
        "airlock-image": image.disk_sha256[:32] or image.id,
    }
    return {key: _LABEL.sub("-", value.lower())[:63] for key, value in said.items()}


def _sync(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
