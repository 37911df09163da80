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
from harness.providers.base import Refusal
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
_COMPONENTS = {
    "debian": "main,contrib,non-free,non-free-firmware",
    "ubuntu": "main,restricted,universe,multiverse",
}
#: Whose archives apt's configuration names, by the family of an image (Origin of a Release file).
_ORIGINS = {"debian": "Debian", "ubuntu": "Ubuntu"}
#: Names a mirror for all images; an image's own ``mirror`` comes first.
VARIABLE = "AIRLOCK_MIRROR"
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


def components(image: Image) -> str:
    """The components of its archives, with commas."""
    return _COMPONENTS.get(image.family, _COMPONENTS["debian"])


def refusal(image: Image) -> Refusal | None:
    """Why it cannot be made here: nobody has said where its packages are.

    Debian's are where mmdebstrap or apt of this machine looks. Others' are no guess of ours.
    """
    if image.cloud or image.family == "debian" or find(image) or sources(image):
        return None
    return Refusal(
        "image.no-mirror",
        f"nobody has said where the packages of {image.name} ({image.family}) are",
        f'airlock image build {image.name} --mirror URL, or mirror = "URL" in images.toml, or '
        f"{VARIABLE}; or take the vendor's cloud image: --image FILE",
    )


def recipe(image: Image) -> dict[str, object]:
    """Everything that decides what is in the image, but for the mirror's state of the day."""
    more = {"archives": image.archives} if image.archives else {}
    return {
        "suite": image.suite,
        "components": components(image),
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
    argv = ["mmdebstrap", "--variant=minbase", f"--components={components(image)}"]
    argv += [f"--dpkgopt=path-exclude={pattern}" for pattern in _EXCLUDE]
    included = [*PACKAGES, image.kernel, *image.packages]
    argv += [f"--include={','.join(included)}", image.suite, str(tar)]
    argv += sources(image)
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


def sources(image: Image) -> Sequence[str]:
    """Mirror arguments for mmdebstrap: the image's own mirror, VARIABLE, or this machine's apt.

    Empty when apt here knows none of its family: mmdebstrap then uses the mirror it knows itself.
    """
    words = components(image).replace(",", " ")
    if given := image.mirror or os.environ.get(VARIABLE):
        return [f"deb {given} {s} {words}" for s in (image.suite, *image.archives)]
    found = configured(_ORIGINS.get(image.family, ""))
    if "main" not in found:
        return []
    suites = (image.suite, f"{image.suite}-updates", *image.archives)
    lines = [f"deb {found['main']} {s} {words}" for s in suites]
    if "security" in found:
        lines.append(f"deb {found['security']} {image.suite}-security {words}")
    return lines


def configured(origin: str) -> dict[str, str]:
    """Kind of archive (main, security) -> its address, as apt of this machine has it."""
    found: dict[str, str] = {}
    try:
        done = subprocess.run(
            ["apt-get", "indextargets", "--format", "$(REPO_URI)|$(CODENAME)|$(ORIGIN)|$(LABEL)"],
            capture_output=True,
            text=True,
            env=host_env(),
            check=False,
        )
    except FileNotFoundError:
        return found
    for line in done.stdout.splitlines():
        uri, codename, whose, label = line.split("|")
        if whose == origin and uri.startswith("http"):
            security = "ecurity" in label or codename.endswith("-security")
            if "-backports" not in codename:
                found.setdefault("security" if security else "main", uri.rstrip("/"))
    return found
