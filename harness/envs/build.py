"""A lock becomes an environment, and that an entry of the cache."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from harness.envs.solve import client
from harness.errors import InfraError
from installers import envbuild, envfiles, envmanifest, envpack
from installers.cache.cache import Cache, Entry
from installers.envfiles import Lock, Package


def install(lock: Lock, prefix: Path, packages: Path) -> None:
    """Install a lock's packages at ``prefix``, fetched into ``packages``; nothing is solved.

    Each package is compared with its SHA-256. Raises InfraError.
    """
    import rattler

    async def work() -> None:
        await rattler.install(
            [_record(package) for package in lock.packages],
            target_prefix=prefix,
            cache_dir=packages,
            platform=rattler.Subdir(lock.platform),
            client=client(),
            show_progress=False,
            execute_link_scripts=False,
        )

    try:
        asyncio.run(work())
    except Exception as error:  # rattler's errors have no common class
        raise InfraError(f"{lock.name} was not built: {error}") from error


def _record(package: Package) -> Any:
    import rattler

    record = rattler.PackageRecord(
        name=package.name,
        version=package.version,
        build=rattler.BuildString(package.build),
        build_number=package.build_number,
        subdir=package.subdir,
        noarch=package.noarch,  # type: ignore[arg-type]
        depends=list(package.depends),
        sha256=bytes.fromhex(package.sha256),
        size=package.size or None,
        python_site_packages_path=package.site_packages,
    )
    folder, _, name = package.url.rpartition("/")
    channel = folder.rpartition("/")[0]
    return rattler.RepoDataRecord(record, name, package.url, channel)


def build(lock: Lock, cache: Cache, work: Path) -> tuple[Entry, bool]:
    """(the packed environment, whether it was built now, below ``work``, for want of it)."""
    found = cache.get(envfiles.KIND, lock.inputs)
    if found is not None:
        return found, False
    work.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=work, prefix="e"))
    try:
        prefix = Path(envbuild.long_prefix(str(folder)))
        install(lock, prefix, folder / "packages")
        made = envpack.pack(prefix, folder / "out")
        files = {name: folder / "out" / name for name in [*made.shards, envmanifest.MANIFEST]}
        details = {"name": lock.name, "packages": len(lock.packages), "files": len(made.files)}
        cache.put(envfiles.KIND, lock.inputs, files, details)
    finally:
        _clear(folder)
    entry = cache.get(envfiles.KIND, lock.inputs)
    if entry is None:
        raise InfraError("the environment was built, and the store did not take it")
    return entry, True


def _clear(folder: Path, patience: float = 10.0) -> None:
    """Remove a directory; rattler's threads may go on writing for a moment after a failure."""
    deadline = time.monotonic() + patience
    while folder.exists():
        shutil.rmtree(folder, ignore_errors=True)
        if time.monotonic() > deadline:
            return
        time.sleep(0.05)
