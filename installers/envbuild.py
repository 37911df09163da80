"""Building a locked environment on a node, by the mamba, micromamba or conda that the image has.

Only what the cache lacks is built. The lock is explicit, so nothing is solved here. A download that
breaks among several at once (mamba's "Multi-download failed") is tried again one at a time: behind
some proxies that is what helps, and nobody has to leave the proxy for it.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from typing import Any, Optional
from urllib.parse import urlsplit

from installers import envmanifest, envpack
from installers.cache.store import Content
from installers.config import Config
from installers.envfiles import Lock
from installers.errors import CommandError, NodeError
from installers.host import Host
from installers.journal import Log

_FOLDERS = ("/opt/conda/bin", "/opt/conda/miniconda3/bin", "/opt/conda/default/bin")
_PROGRAMS = ("micromamba", "mamba", "conda")
_LIMIT = 2 * 3600.0
_ONE_AT_A_TIME = {"MAMBA_DOWNLOAD_THREADS": "1", "CONDA_FETCH_THREADS": "1"}
Built = tuple[Mapping[str, Content], dict[str, Any]]


def program(host: Host) -> Optional[str]:
    """The node's own installer of conda packages; None where it has none."""
    for name in _PROGRAMS:
        for path in (host.find_program(name), *(f"{folder}/{name}" for folder in _FOLDERS)):
            if path is not None and host.exists(path):
                return path
    return None


def hosts(locks: Iterable[Lock]) -> list[str]:
    """Names of the channels' hosts in some locks."""
    found = {urlsplit(package.url).hostname for lock in locks for package in lock.packages}
    return sorted(name for name in found if name)


def long_prefix(root: str) -> str:
    """A prefix below ``root`` as long as packed ones are."""
    return f"{root}/.build-".ljust(envpack.PREFIX_LENGTH, "_")


def build(host: Host, lock: Lock, root: str, config: Config, log: Log, *, offline: bool) -> Built:
    """(archives and manifest, what to note). Raises NodeError when the node cannot build.

    The archives lie below ``root`` until ``clear``: they are too large for the memory.
    """
    where = f"environment {lock.name}"
    remedy = "fill the cache where there is a network: airlock env build, then airlock cache warm"
    if offline:
        raise NodeError(
            "the cache lacks it, and this node is told to be offline", where=where, remedy=remedy
        )
    tool = program(host)
    if tool is None:
        raise NodeError(
            "the cache lacks it, and this node has no mamba, micromamba or conda",
            where=where,
            remedy=remedy,
        )
    prefix, work = long_prefix(root), _work(root, lock.name)
    clear(host, root, lock.name)
    host.write(f"{work}/explicit.txt", lock.explicit)
    with log.step("build-environment", tool=tool, packages=len(lock.packages)):
        _create(host, tool, prefix, f"{work}/explicit.txt", config)
    with log.step("pack-environment", name=lock.name):
        out = host.path(f"{work}/out")
        made = envpack.pack(host.path(prefix), out)
    shutil.rmtree(host.path(prefix), ignore_errors=True)
    packed = {name: out / name for name in [*made.shards, envmanifest.MANIFEST]}
    return packed, {"tool": tool, "packages": len(lock.packages)}


def clear(host: Host, root: str, name: str) -> None:
    """Remove what a build of ours, also a killed one, left below ``root``."""
    for path in (long_prefix(root), _work(root, name)):
        shutil.rmtree(host.path(path), ignore_errors=True)


def _work(root: str, name: str) -> str:
    return f"{root}/.pack-{name}"


def _create(host: Host, tool: str, prefix: str, explicit: str, config: Config) -> None:
    environment = config.proxy.environment(credentials=True)
    words = [tool, "create", "--yes", "--quiet", "--prefix", prefix, "--file", explicit]
    try:
        host.run(words, env=environment, timeout=_LIMIT)
    except CommandError as error:
        if error.code is None:
            raise NodeError(
                f"{tool} did not end within {_LIMIT / 3600:.0f} hours",
                where=prefix,
                remedy="build it elsewhere: airlock env build",
            ) from error
        shutil.rmtree(host.path(prefix), ignore_errors=True)
        host.run(words, env={**environment, **_ONE_AT_A_TIME}, timeout=_LIMIT)
