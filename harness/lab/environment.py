"""A small conda environment for nodes: from a channel of ours, by the real solver, in the cache.

It is solved and built here, once, and put into the store that builds have; a node restores it from
there by its lock, as it would from a bucket.
"""

from __future__ import annotations

import importlib.metadata
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fixtures import channel
from harness.cachetool import sign
from harness.errors import InfraError
from harness.lab.base import canonical
from harness.state import cache_dir, exclusive
from installers import envfiles
from installers.cache.cache import Cache
from installers.cache.filestore import FileStore
from installers.cache.manifest import Trust
from installers.envfiles import Lock

if TYPE_CHECKING:
    from fixtures.pki import Authority
    from harness.cells import Cell

NAME = "lab"
#: Where a lock lies in the image, without a leading slash; what the installer looks for.
LOCK_FILE = f"usr/lib/airlock/environments/{NAME}.lock.json"
#: What stands in the lock: nobody answers there, so a node that does not take it from the cache
#: cannot have it at all.
_CHANNEL = "https://channel.airlock.test"
_HINT = "pip install 'gpu-airlock[conda]'"
#: The first that runs on every Python that an image has: pip itself goes into the environment.
_PIP = 24
_PACKAGES = ("python=3.11", "models", "pip", "ipykernel")


def wanted(cell: Cell) -> bool:
    """Whether the profile has the environment."""
    return "environments" in cell.profile.installers


def metadata(cell: Cell) -> dict[str, str]:
    """What a customer writes who wants it."""
    return {"airlock-environments": NAME} if wanted(cell) else {}


def files(cell: Cell, authority: Authority, store: Path) -> dict[str, str]:
    """The lock's path in the image (no leading slash) -> its text. See :func:`lock`."""
    return {LOCK_FILE: lock(authority, store).text()} if wanted(cell) else {}


def expected(cell: Cell, authority: Authority, store: Path) -> dict[str, dict[str, Any]] | None:
    """What holds on a good node, by the environment's name; None without one."""
    if not wanted(cell):
        return None
    prefix = f"/opt/airlock/envs/{NAME}"
    digest = lock(authority, store).digest
    return {NAME: {"lock": digest, "prefix": prefix, "kernel": f"{prefix}/bin/python"}}


def lock(authority: Authority, store: Path) -> Lock:
    """The environment's lock; the store holds what it names, signed as the store's modules are.

    Raises InfraError without py-rattler or a recent pip, or where solving or building fails.
    """
    versions = {name: _version(name) for name in ("py-rattler", "pip")}
    if int(versions["pip"].partition(".")[0]) < _PIP:
        raise InfraError(f"pip {versions['pip']} does not run on Python 3.12", hint=_HINT)
    made_of = [Path(str(channel.__file__)).read_text(), versions]
    kept = cache_dir("environment") / f"{canonical(made_of)[:32]}.lock.json"
    with exclusive(kept), sign.signer(f"file:{authority.module.path}", None) as signer:
        believed = Trust(frozenset({authority.module.sha256}))
        place = FileStore(store)
        cache = Cache([place], place, trust=believed, strict=True, sign=signer)
        if kept.is_file():
            found = envfiles.lock_of(kept.read_text(), str(kept))
            if cache.get(envfiles.KIND, found.inputs) is not None:
                return found
        found = _make(cache)
        kept.write_text(found.text())
    return found


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError as error:
        raise InfraError(f"{name} is not installed: no environment", hint=_HINT) from error


def _make(cache: Cache) -> Lock:
    from harness.envs import build, solve

    spec = envfiles.Spec(NAME, (), _PACKAGES, ("models", "tensors"))
    with (
        tempfile.TemporaryDirectory(dir=cache_dir("environment")) as folder,
        channel.for_nodes(Path(folder, "channel")) as served,
    ):
        solved = solve.lock(spec, channels=[served.url], tool="rattler")
        build.build(solved, cache, Path(folder, "build"))
    packages = [
        replace(package, url=package.url.replace(served.url, _CHANNEL))
        for package in solved.packages
    ]
    return replace(solved, packages=tuple(packages))
