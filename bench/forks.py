"""A fork of a frozen node against a cold boot of the same image with the same units."""

from __future__ import annotations

import secrets
import sys
import time

from bench.hundred import AREAS, ours
from bench.lab import Lab, lab, seconds
from bench.record import Measurement, against

FORKS, BOOTS = 5, 1
LIMIT, TIMES = 0.6, 30.0


def bench_fork_vs_cold_boot() -> Measurement:
    """From nothing running to 100 facts over virtio-serial: 0.6 s, and 30 times faster."""
    with lab() as ready:
        with ready.node():  # what is not frozen yet is frozen now
            pass
        forks = [_sample(ready, "fork") for _ in range(FORKS)]
        boots = [_sample(ready, "boot") for _ in range(BOOTS)]
    measured = against(
        "fork_vs_cold_boot",
        forks,
        boots,
        "cold boot, same image and units",
        "s",
        ["QEMU started; the node's answer holds 100 facts, our nonce, its clock and its identity"],
    )
    if measured.ours > LIMIT or measured.ratio < TIMES:
        print(f"OVER THE LIMIT: {LIMIT} s and {TIMES:g} times", file=sys.stderr)
    return measured


def _sample(ready: Lab, phase: str) -> float:
    """Seconds from starting QEMU to an answer that is of this machine, of now."""
    with ready.node(boot_anew=phase == "boot") as (node, job, _):
        nonce = secrets.token_hex(8)
        began = time.perf_counter()
        facts = node.transport.facts(nonce, only=AREAS)
        took = seconds(job, phase) + time.perf_counter() - began
        values = ours(facts)
        assert len(values) == 100, len(values)
        assert facts["nonce"] == nonce
        assert abs(facts["clock"] - time.time()) < 5, "its clock is stale"
        if phase == "fork":
            assert values["hostname"] == node.name
            assert values["mac0"] == node.mac
    return took
