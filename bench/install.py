"""A node's installers with a warm cache against the same with nothing cached."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from bench.lab import Lab, lab, seconds
from bench.record import Measurement, against
from harness import pack
from harness.lab import base, build
from harness.lab.surroundings import proxy_password, proxy_value
from harness.state import cache_dir, keys_dir, state_dir

_WARM_ROUNDS = 3
LIMIT = 20.0


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


def _install(ready: Lab) -> tuple[float, str]:
    """Build the image of the lab's cell anew: seconds of plan, apply and verify; hit or miss."""
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
        return seconds(job, "install"), str(made.manifest["provenance"]["driver"]["cache"])


def bench_warm_install() -> Measurement:
    """proxy, trust and driver into a fresh image: the modules compiled once, then found.

    Neither the network nor the processor is held back when nothing is cached.
    """
    with _nothing_cached(), lab() as ready:
        cold, first = _install(ready)
        warm = [_install(ready) for _ in range(_WARM_ROUNDS)]
    if first != "miss" or {outcome for _, outcome in warm} != {"hit"}:
        sys.exit(f"the cache was {first}, then {[outcome for _, outcome in warm]}")
    measured = against(
        "warm_install",
        [took for took, _ in warm],
        [cold],
        "the same installers with an empty cache",
        "s",
        ["airlock-node.pyz apply --only proxy,trust,driver,seal behind the intercepting proxy"],
    )
    if measured.ratio < LIMIT:
        print(f"UNDER THE LIMIT: {LIMIT:.0f} times", file=sys.stderr)
    return measured
