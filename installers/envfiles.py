"""Environments as files: a specification that people write, and a lock that says exactly what.

A lock names every package by URL and SHA-256. It is the whole identity of an environment: what is
built from it is kept under its hash, and two nodes with one lock have the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Optional
from urllib.parse import urlsplit

from installers import envmanifest, gpus
from installers.cache.manifest import canonical
from installers.compat import load_data, within
from installers.errors import ConfigError

SHIPPED = ("pytorch", "tensorflow", "rapids")
PLATFORMS = ("linux-64", "linux-aarch64")
KIND, LOCK_KIND = "conda-environment", "conda-lock"
_NAME = re.compile(r"[a-z][a-z0-9_-]{0,39}")
_NOARCH = (None, "python", "generic")


@dataclass(frozen=True)
class CudaPin:
    """Which CUDA an environment brings: ``package`` pins it, its range is [from, below)."""

    default: str
    package: str
    span: tuple[Optional[str], Optional[str]]


@dataclass(frozen=True)
class Spec:
    """What people ask for. ``channels`` in their order; ``imports`` must work afterwards."""

    name: str
    channels: tuple[str, ...]
    packages: tuple[str, ...]
    imports: tuple[str, ...]
    cuda: Optional[CudaPin] = None

    def pinned(self, cuda: Optional[str]) -> tuple[str, ...]:
        """The packages with the CUDA of the node. ConfigError: not one it can have."""
        if self.cuda is None:
            return self.packages
        version = ".".join((cuda or self.cuda.default).split(".")[:2])
        known = gpus.table()["cuda"]
        if version not in known:
            raise ConfigError(
                f"CUDA {version} is in no row of the compatibility table", where=self.name
            )
        if not within(version, list(self.cuda.span)):
            low, below = self.cuda.span
            raise ConfigError(
                f"is not to be had with CUDA {version}",
                where=self.name,
                remedy=f"use CUDA from {low or 'any'}" + (f" to below {below}" if below else ""),
            )
        return (*self.packages, f"{self.cuda.package}={version}")


@dataclass(frozen=True)
class Package:
    """One package of a lock; ``size`` in bytes, 0 when the channel does not say."""

    url: str
    sha256: str
    size: int
    name: str
    version: str
    build: str
    build_number: int
    subdir: str
    noarch: Optional[str]
    depends: tuple[str, ...]
    site_packages: Optional[str] = None


@dataclass(frozen=True)
class Lock:
    """Exactly what an environment is. ``packages`` sorted by URL."""

    name: str
    platform: str
    packages: tuple[Package, ...]
    imports: tuple[str, ...]

    def text(self) -> str:
        """The file, stable and for people to compare."""
        return json.dumps({"schema": 1, **asdict(self)}, indent=1, sort_keys=True) + "\n"

    @property
    def inputs(self) -> dict[str, Any]:
        """Of the cache's key: what decides which bytes come out. Where they lie does not."""
        return {**self._content, "format": envmanifest.FORMAT}

    @property
    def _content(self) -> dict[str, Any]:
        rows = [[p.url.rpartition("/")[2], p.sha256] for p in self.packages]
        return {"schema": 1, "platform": self.platform, "packages": rows}

    @property
    def digest(self) -> str:
        """SHA-256 of platform, packages and imports."""
        return hashlib.sha256(
            canonical({**self._content, "imports": list(self.imports)})
        ).hexdigest()

    @property
    def explicit(self) -> str:
        """The same for conda and mamba: ``create --file``."""
        lines = [f"{package.url}#sha256:{package.sha256}" for package in self.packages]
        return "\n".join(["@EXPLICIT", *lines]) + "\n"


def shipped(name: str) -> Spec:
    """A specification that comes with Airlock."""
    return spec_of(load_data(f"environments/{name}.json"), name)


def spec_of(document: Any, where: str) -> Spec:
    """A specification's JSON. ConfigError names the field that is wrong."""
    fields = _object(document, where, {"schema", "name", "channels", "packages", "imports"})
    extra = set(fields) - {"schema", "name", "channels", "packages", "imports", "cuda", "about"}
    if extra:
        raise ConfigError(f"does not know {', '.join(sorted(extra))}", where=where)
    name = fields["name"]
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ConfigError(f"name {name!r} is not a short lower-case word", where=where)
    pin = None
    if fields.get("cuda") is not None:
        row = _object(fields["cuda"], f"{where}: cuda", {"default", "package"})
        pin = CudaPin(row["default"], row["package"], (row.get("from"), row.get("below")))
    return Spec(
        name,
        channels=_texts(fields["channels"], f"{where}: channels"),
        packages=_texts(fields["packages"], f"{where}: packages"),
        imports=_texts(fields["imports"], f"{where}: imports"),
        cuda=pin,
    )


def lock_of(text: str, where: str) -> Lock:
    """A lock's JSON. ConfigError names what is wrong: nothing of a lock may be guessed."""
    try:
        document = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"is not JSON: {error}", where=where) from None
    fields = _object(document, where, {"schema", "name", "platform", "packages", "imports"})
    if fields["schema"] != 1 or fields["platform"] not in PLATFORMS:
        raise ConfigError("is of another schema or platform", where=where)
    if not isinstance(fields["name"], str) or not _NAME.fullmatch(fields["name"]):
        raise ConfigError("name is not a short lower-case word", where=where)
    if not isinstance(fields["packages"], list) or not fields["packages"]:
        raise ConfigError("holds no packages", where=where)
    packages = tuple(_package(row, where) for row in fields["packages"])
    imports = _texts(fields["imports"], f"{where}: imports")
    return Lock(fields["name"], fields["platform"], packages, imports)


def _package(row: Any, where: str) -> Package:
    wanted = {"url", "sha256", "name", "version", "build", "build_number", "subdir"}
    fields = _object(row, f"{where}: packages", wanted)
    url, sha256 = fields["url"], fields["sha256"]
    place = f"{where}: {url}"
    if urlsplit(str(url)).scheme not in ("https", "http", "file") or "@" in urlsplit(url).netloc:
        raise ConfigError("is not a URL without credentials", where=place)
    if not str(url).endswith((".conda", ".tar.bz2")):
        raise ConfigError("is not a conda package", where=place)
    if not re.fullmatch(r"[0-9a-f]{64}", str(sha256)):
        raise ConfigError("has no SHA-256", where=place)
    if fields.get("noarch") not in _NOARCH:
        raise ConfigError(f"noarch {fields.get('noarch')!r} is not known", where=place)
    return Package(
        url=url,
        sha256=sha256,
        size=int(fields.get("size") or 0),
        name=fields["name"],
        version=fields["version"],
        build=fields["build"],
        build_number=int(fields["build_number"]),
        subdir=fields["subdir"],
        noarch=fields.get("noarch"),
        depends=tuple(fields.get("depends") or ()),
        site_packages=fields.get("site_packages"),
    )


def _object(value: Any, where: str, needed: set[str]) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ConfigError("is not a JSON object", where=where)
    missing = sorted(needed - set(value))
    if missing:
        raise ConfigError(f"lacks {', '.join(missing)}", where=where)
    return value


def _texts(value: Any, where: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(item, str) and item for item in value):
        raise ConfigError("is not a list of texts", where=where)
    return tuple(value)
