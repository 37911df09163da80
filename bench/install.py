"""A node's installers, and its modules, with a warm cache against the same with nothing cached."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.lab import Lab, lab, seconds
from bench.record import Measurement, against, timed
from harness import pack
from harness.lab import base, build
from harness.lab.surroundings import proxy_password, proxy_value
from harness.state import cache_dir, keys_dir, state_dir
from installers import kmods
from installers.cache.cache import Cache
from installers.cache.filestore import FileStore
from installers.cache.manifest import Trust
from installers.cache.store import ENTRIES

_WARM_ROUNDS = 3
_HITS = 9
LIMIT = 20.0
CACHE_LIMIT = 50.0


@dataclass(frozen=True)
class _Measured:
    """Seconds: the installers with nothing cached and with a warm cache; build and hits of modules.

    ``modules``: how many there are, and their bytes.
    """

    cold: float
    warm: list[float]
    build: float
    hits: list[float]
    modules: tuple[int, int]


@contextlib.contextmanager
def _nothing_cached() -> Iterator[None]:
    """A state directory of its own, with the lab's base images, keys and unpacked proxy."""
    own = state_dir()
    shared = ("cache/base", "keys", "daemons")
    with tempfile.TemporaryDirectory(prefix="airlock-bench-", dir="/var/tmp") as directory:
        for name in shared:
            (Path(directory) / name).parent.mkdir(exist_ok=True)
            (Path(directory) / name).symlink_to(own / name)
        before = os.environ.get("AIRLOCK_STATE")
        os.environ["AIRLOCK_STATE"] = directory
        try:
            yield
        finally:
            os.environ.pop("AIRLOCK_STATE")
            if before is not None:
                os.environ["AIRLOCK_STATE"] = before


def _install(ready: Lab) -> tuple[float, dict[str, Any]]:
    """Build the image of the lab's cell anew: seconds of plan, apply and verify; of the driver."""
    with ready.job() as job:
        authority, origin = ready.provider.shared(fresh=False)
        made = build.build(
            job,
            base.build(job.cell.image, log=job.capsule / "base.log"),
            node_file=pack.pack(cache_dir("node-file")),
            authority=authority,
            start_proxy=ready.proxy(job),
            origin=origin,
            proxy=proxy_value(job.cell.scenario, proxy_password(keys_dir())),
            secrets={},
        )
        shutil.rmtree(made.directory)
        return seconds(job, "install"), dict(made.manifest["provenance"]["driver"])


def _hits(ready: Lab) -> tuple[list[float], tuple[int, int]]:
    """Seconds in which a node that trusts the signer alone has the modules; their number, bytes."""
    store = FileStore(cache_dir(build.MODULES))
    envelopes = [json.loads(path.read_text()) for path in (store.directory / ENTRIES).iterdir()]
    (manifest,) = [e["manifest"] for e in envelopes if e["manifest"]["kind"] == kmods.KIND]
    authority, _ = ready.provider.shared(fresh=False)
    trust = Trust(frozenset({authority.module.sha256}))

    def hit() -> dict[str, bytes]:
        entry = Cache([store], store, trust=trust, strict=True).get(kmods.KIND, manifest["inputs"])
        if entry is None:
            sys.exit("the modules are not in the cache")
        return {name: entry.read(name) for name in entry.files}

    modules = hit()
    return [timed(hit) for _ in range(_HITS)], (len(modules), sum(map(len, modules.values())))


@functools.cache
def _measure() -> _Measured:
    """Neither the network nor the processor is held back when nothing is cached."""
    with _nothing_cached(), lab() as ready:
        cold, first = _install(ready)
        warm = [_install(ready) for _ in range(_WARM_ROUNDS)]
        hits, modules = _hits(ready)
    outcomes = [driver["cache"] for _, driver in warm]
    if first["cache"] != "miss" or set(outcomes) != {"hit"}:
        sys.exit(f"the cache was {first['cache']}, then {outcomes}")
    return _Measured(cold, [took for took, _ in warm], first["build_seconds"], hits, modules)


def bench_warm_install() -> Measurement:
    """proxy, trust and driver into a fresh image: the modules compiled once, then found."""
    found = _measure()
    measured = against(
        "warm_install",
        found.warm,
        [found.cold],
        "the same installers with an empty cache",
        "s",
        ["airlock-node.pyz apply --only proxy,trust,driver,seal behind the intercepting proxy"],
    )
    if measured.ratio < LIMIT:
        print(f"UNDER THE LIMIT: {LIMIT:.0f} times", file=sys.stderr)
    return measured


def bench_module_cache() -> Measurement:
    """The driver's modules from the cache, content hashes and signature checked, against a build.

    The build is its fetching, its fix-ups and its compiler, without what an installer does besides.
    """
    found = _measure()
    number, size = found.modules
    measured = against(
        "module_cache",
        found.hits,
        [found.build],
        "the build of the same modules",
        "s",
        [f"{number} modules, {size >> 10} KiB: signed manifest verified, each file hashed twice"],
    )
    if measured.ratio < CACHE_LIMIT:
        print(f"UNDER THE LIMIT: {CACHE_LIMIT:.0f} times", file=sys.stderr)
    return measured
