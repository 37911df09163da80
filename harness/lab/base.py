"""Base images: a distribution's own packages in a tar file, made by mmdebstrap, kept by content."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.cached import used
from harness.errors import InfraError
from harness.lab.namespace import host_env
from harness.state import cache_dir, exclusive

if TYPE_CHECKING:
    from harness.cells import Image

# What a cloud image of the distribution holds and a test of ours needs. Full python3:
# python3-minimal has no json.
PACKAGES = [
    "systemd-sysv",
    "udev",
    "dbus",
    "kmod",
    "mokutil",
    "keyutils",
    "iproute2",
    "procps",
    "zstd",
    "openssh-server",
    "ca-certificates",
    "curl",
    "wget",
    "git",
    "python3",
    "shim-signed",
    "grub-efi-amd64-signed",
]
COMPONENTS = "main,contrib,non-free,non-free-firmware"
# Documentation and translations are of no use in a lab, and every file costs time on a disk.
_EXCLUDE = ("/usr/share/man/*", "/usr/share/locale/*", "/usr/share/doc/*/*", "/usr/share/info/*")


@dataclass(frozen=True)
class Base:
    """A base image: ``digest`` is the sha256 of ``tar``; ``built`` an ISO date."""

    tar: Path
    digest: str
    built: str
    cached: bool


def canonical(value: object) -> str:
    """SHA-256 (hex) of a value's canonical JSON: the key of everything that is cached."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def sha256_file(path: Path) -> str:
    """SHA-256 of a file, hex."""
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def recipe(image: Image) -> dict[str, object]:
    """Everything that decides what is in the image, but for the mirror's state of the day."""
    more = {"archives": image.archives} if image.archives else {}
    return {
        "suite": image.suite,
        "components": COMPONENTS,
        "packages": sorted([*PACKAGES, image.kernel, *image.packages]),
        "exclude": _EXCLUDE,
        "format": 1,
        **more,
    }


def find(image: Image) -> Base | None:
    """The image if it is in the cache."""
    directory = cache_dir("base") / canonical(recipe(image))[:32]
    try:
        kept = json.loads((directory / "manifest.json").read_text())
        return Base(directory / "root.tar", kept["digest"], kept["built"], cached=True)
    except (OSError, ValueError, KeyError):
        return None


def build(image: Image, *, log: Path, fresh: bool = False) -> Base:
    """The base image, from the cache or built now (about a minute; the log goes to ``log``).

    Raises :class:`InfraError` when mmdebstrap fails, with its last errors.
    """
    directory = cache_dir("base") / canonical(recipe(image))[:32]
    with exclusive(directory):
        used(directory)
        if not fresh and (found := find(image)):
            return found
        with tempfile.TemporaryDirectory(dir=directory.parent, prefix="partial-") as tmp:
            tar = Path(tmp) / "root.tar"
            _mmdebstrap(image, tar, log)
            digest = sha256_file(tar)
            built = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
            manifest = {"digest": digest, "built": built, "recipe": recipe(image)}
            (Path(tmp) / "manifest.json").write_text(json.dumps(manifest, indent=1))
            if directory.exists():
                shutil.rmtree(directory)
            Path(tmp).rename(directory)
            Path(tmp).mkdir()  # TemporaryDirectory wants something to remove
        return Base(directory / "root.tar", digest, built, cached=False)


def _mmdebstrap(image: Image, tar: Path, log: Path) -> None:
    argv = ["mmdebstrap", "--variant=minbase", f"--components={COMPONENTS}"]
    argv += [f"--dpkgopt=path-exclude={pattern}" for pattern in _EXCLUDE]
    included = [*PACKAGES, image.kernel, *image.packages]
    argv += [f"--include={','.join(included)}", image.suite, str(tar)]
    argv += sources(image.suite, image.archives)
    try:
        with log.open("ab") as out:
            done = subprocess.run(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env=host_env(),
                timeout=1800,
                check=False,
            )
    except FileNotFoundError as e:
        raise InfraError("mmdebstrap is not installed", hint="airlock doctor --fix") from e
    except subprocess.TimeoutExpired as e:
        raise InfraError(f"{image.name}: mmdebstrap did not end within 30 minutes") from e
    if done.returncode:
        lines = log.read_text(errors="replace").splitlines()
        errors = [line for line in lines if line.startswith(("E:", "W:", "Err:"))][-4:]
        raise InfraError(
            f"{image.name}: mmdebstrap failed: {' | '.join(errors or lines[-3:])}",
            hint=f"the whole log is {log}",
        )


def sources(suite: str, archives: Sequence[str] = ()) -> Sequence[str]:
    """Mirror arguments for mmdebstrap, from ``AIRLOCK_MIRROR`` or the host's apt configuration.

    ``archives``: names beside the suite's, such as ``bookworm-backports``.
    Empty when the host is no Debian: mmdebstrap then uses the mirror it knows itself.
    """
    if given := os.environ.get("AIRLOCK_MIRROR"):
        return [f"deb {given} {s} {COMPONENTS.replace(',', ' ')}" for s in (suite, *archives)]
    found: dict[str, str] = {}  # kind of archive -> its address
    done = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI)|$(CODENAME)|$(ORIGIN)|$(LABEL)"],
        capture_output=True,
        text=True,
        env=host_env(),
        check=False,
    )
    for line in done.stdout.splitlines():
        uri, codename, origin, label = line.split("|")
        if origin == "Debian" and uri.startswith("http"):
            kind = "security" if "ecurity" in label else "main"
            if "-backports" not in codename:
                found.setdefault(kind, uri.rstrip("/"))
    if "main" not in found:
        return []
    words = COMPONENTS.replace(",", " ")
    lines = [f"deb {found['main']} {s} {words}" for s in (suite, f"{suite}-updates", *archives)]
    if "security" in found:
        lines.append(f"deb {found['security']} {suite}-security {words}")
    return lines
