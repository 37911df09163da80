"""The driver's source from NVIDIA itself: the runfile, or the open modules' own repository.

Neither comes with a signed index, so both need a pin: ``airlock-driver-sha256``. The runfile is
only unpacked, by itself, into the work directory; nothing of it is installed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from installers import build, nvidiaurls
from installers.cache.download import Download, forget
from installers.cache.store import StoreError
from installers.cache.web import Web
from installers.config import Config
from installers.debian import Package
from installers.engine import Refusal
from installers.errors import NodeError, UnreachableError
from installers.gpudecide import Decision
from installers.host import Host

PIN, MIRROR, URL = "airlock-driver-sha256", "airlock-nvidia-mirror", "gpu-driver-url"
KINDS = ("runfile", "open-source")
#: Name of the source in cache keys and provenance.
_NAMES = {"runfile": "nvidia-runfile", "open-source": "nvidia-open-gpu-kernel-modules"}


@dataclass(frozen=True)
class Upstream:
    """One file of NVIDIA's. ``kind`` of KINDS; ``flavour`` open or proprietary."""

    kind: str
    version: str
    flavour: str
    url: str
    sha256: str

    @property
    def host(self) -> str:
        """The name that will be contacted."""
        return urlsplit(self.url).hostname or ""

    def package(self) -> Package:
        """The same as a cache key and a report hold it."""
        return Package(f"{_NAMES[self.kind]}-{self.flavour}", self.version, self.sha256)


def of(decision: Decision, config: Config) -> Upstream:
    """Where the decided driver's source is; a mirror keeps NVIDIA's paths below its own."""
    version = decision.driver or ""
    if decision.source == "open-source":
        url = nvidiaurls.open_modules(version)
    else:
        url = (config.raw.get(URL) or "").strip() or nvidiaurls.driver(version)
    mirror = (config.raw.get(MIRROR) or "").strip().rstrip("/")
    if mirror:
        parts = urlsplit(url)
        url = f"{mirror}/{parts.hostname}{parts.path}"
    pin = (config.raw.get(PIN) or "").strip().lower()
    return Upstream(decision.source, version, decision.flavour, url, pin)


def refuse(wanted: Upstream) -> list[Refusal]:
    """No version, no pin, no proprietary modules in the open repository."""
    if not wanted.version:
        reason = f"a driver from {wanted.kind} needs a version"
        return [Refusal("driver.version", reason, "set gpu-driver-version or cuda-version")]
    if not wanted.url.startswith(("https://", "http://")):
        return [Refusal("driver.url", f"{wanted.url} is no address", f"correct {URL} or {MIRROR}")]
    if not re.fullmatch(r"[0-9a-f]{64}", wanted.sha256):
        reason = f"{wanted.url} has no signed index: its SHA-256 must be pinned"
        return [Refusal("driver.pin", reason, f"set {PIN} to the SHA-256 of the file (64 hex)")]
    if wanted.kind == "open-source" and wanted.flavour != "open":
        reason = "NVIDIA publishes no source of the proprietary modules"
        return [Refusal("driver.flavour", reason, "set airlock-driver-source=runfile")]
    return []


def fetch(host: Host, wanted: Upstream, config: Config, into: str) -> str:
    """Download, check and unpack below ``into``; the directory to run make in.

    Raises NodeError: another content than pinned, no such modules inside.
    """
    name = urlsplit(wanted.url).path.rpartition("/")[2]
    target = host.path(f"{into}/{name}")
    target.parent.mkdir(parents=True, exist_ok=True)
    found = _download(wanted, config, f"{into}/{name}", host)
    if found != wanted.sha256:
        forget(target)
        raise NodeError(
            f"has SHA-256 {found}, not the pinned {wanted.sha256}",
            where=wanted.url,
            remedy=f"somebody replaced the file, or {PIN} is another file's",
        )
    tree = f"{into}/tree"
    if wanted.kind == "open-source":
        build.unpack(host, f"{into}/{name}", tree)
        host.remove(f"{into}/{name}")
        (top,) = host.glob(tree, "*") or [""]
        return _checked(host, top, "kernel-open/Kbuild", wanted)
    host.run(["sh", f"{into}/{name}", "--extract-only", "--target", tree], timeout=900, cwd=into)
    host.remove(f"{into}/{name}")
    folder = "kernel-open" if wanted.flavour == "open" else "kernel"
    return _checked(host, f"{tree}/{folder}", "Kbuild", wanted)


def _checked(host: Host, tree: str, must: str, wanted: Upstream) -> str:
    if not tree or not host.exists(f"{tree}/{must}"):
        raise NodeError(
            f"holds no {wanted.flavour} kernel modules",
            where=wanted.url,
            remedy="give the driver's own file, not another of NVIDIA's",
        )
    return tree


def _download(wanted: Upstream, config: Config, path: str, host: Host) -> str:
    """The SHA-256 of what came, in parts and going on after a kill."""
    web = Web(config.proxy)
    try:
        with web.send("HEAD", wanted.url) as answer:
            size = answer.length
        if size is None:
            raise UnreachableError("does not say how large it is", where=wanted.url)
        return Download(web, wanted.url, host.path(path), size).run().sha256
    except FileNotFoundError:
        raise NodeError(
            "is not there", where=wanted.url, remedy="some versions have no stand-alone driver"
        ) from None
    except StoreError as error:
        raise UnreachableError(error.what, where=error.where, remedy=error.remedy) from error
